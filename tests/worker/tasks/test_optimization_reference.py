"""Minima against those of ASE: molecules of ANI, metals strained out of shape, ice with torchani's own calculator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.geometry import cell_to_cellpar
from ase.optimize import BFGS, LBFGS
from ase.units import GPa

from aiida_mlpotential.worker.backends import get_backend, load_backend
from aiida_mlpotential.worker.backends.base import Settings
from aiida_mlpotential.worker.backends.torchani.convert import read_state_dict
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.registry import PRETRAINED
from aiida_mlpotential.worker.schema import ModelSpec
from aiida_mlpotential.worker.tasks.geometry_optimization import GeometryOptimization

#: eV/angstrom. Soft cells need it so tight: at 1e-3 the angles of the ice are off by 0.06 degrees.
TIGHT = 1e-4


def strained_metals():
    """Return primitive cells and supercells of copper and aluminium, strained by some percent, the latter rattled."""
    random, structures = np.random.default_rng(1), []
    for symbol in ('Cu', 'Al'):
        for atoms in (bulk(symbol), bulk(symbol, cubic=True) * (2, 1, 1)):
            strain = np.eye(3) + random.normal(scale=0.02, size=(3, 3))
            atoms.set_cell(np.array(atoms.cell) @ strain, scale_atoms=True)
            atoms.rattle(0.03 * (len(atoms) > 1), seed=2)
            structures.append(atoms)
    return structures


def assert_like_ase(context, structures, calculator, pressure=0.0, **keywords):
    """Relax the same structures with ASE: the same enthalpy to 1e-4 eV, the same cell to 1e-3 angstrom and 0.01 deg."""
    assert (context.store.status == FrameStatus.OK).all()
    for index, atoms in enumerate(structures):
        atoms.calc = calculator
        BFGS(FrechetCellFilter(atoms, scalar_pressure=pressure, **keywords), logfile=None).run(fmax=TIGHT, steps=2000)
        cell = context.store.read('cells', index)
        enthalpy = context.store.read('energies', index) + pressure * np.linalg.det(cell)
        assert enthalpy == pytest.approx(atoms.get_potential_energy() + pressure * atoms.get_volume(), abs=1e-4)
        differences = cell_to_cellpar(cell) - atoms.cell.cellpar()  # a cell may be turned as a whole
        assert np.abs(differences[:3]).max() < 1e-3
        assert np.abs(differences[3:]).max() < 0.01


def assert_pressure(context, index, pressure, atoms):
    """Ask of the stress at the end what the tolerance of the forces on the cell leaves of it: a row of N log F has it.

    A compressed cell has negative stress: dE/dstrain is minus the pressure times the volume.
    """
    left = context.store.read('stress', index) + pressure * np.eye(3)
    assert np.abs(left).max() < 1.1 * TIGHT * atoms / np.linalg.det(context.store.read('cells', index))


@pytest.mark.slow
@pytest.mark.parametrize('pressure', [0.0, 1.0])
@pytest.mark.parametrize(
    ('mask', 'keywords'),
    [
        (None, {}),
        ([True, True, False, False, False, True], {'mask': [1, 1, 0, 0, 0, 1]}),
        ([False, False, True, False, False, False], {'mask': [0, 0, 1, 0, 0, 0]}),
    ],
    ids=['free', 'layer', 'height'],
)
def test_strained_metals(make_context, pressure, mask, keywords):
    spec = ModelSpec('EMT', 'ase', '0' * 64, options={'calculator': 'ase.calculators.emt.EMT'})
    structures = strained_metals()
    parameters = {'optimize_cell': True, 'force_tolerance': TIGHT, 'pressure': pressure, 'cell_mask': mask}
    backend, frames = load_backend(spec, Path(), Settings()), Frames.from_ase(structures)
    context = make_context(GeometryOptimization, backend, frames, **parameters)
    GeometryOptimization().run(context)
    if mask is None:
        for index, atoms in enumerate(structures):
            assert_pressure(context, index, pressure * GPa, len(atoms))
    assert_like_ase(context, structures, EMT(), pressure * GPa, **keywords)


@pytest.fixture(scope='session')
def network(shared_data):
    """Return the networks of ANI-1ccx."""
    pytest.importorskip('torch')
    entry = PRETRAINED['ANI-1ccx']
    return read_state_dict(shared_data / 'models' / 'torchani' / entry.state_dict, entry)


@pytest.fixture(scope='session')
def ani(network, tmp_path_factory):
    """Return a loader of ANI-1ccx."""
    entry, directory = PRETRAINED['ANI-1ccx'], tmp_path_factory.mktemp('ani')
    network.write(directory / entry.file)
    spec = ModelSpec('ANI-1ccx', 'torchani', entry.sha256, {entry.file: entry.sha256}, entry.elements, 8, 'Hartree')
    return lambda precision: get_backend('torchani').load(spec, directory, Settings(device='cpu', precision=precision))


class _Calculator(EMT):
    """A backend as a calculator of ASE."""

    implemented_properties = ('energy', 'forces')

    def __init__(self, backend):
        super().__init__()
        self._backend = backend

    def calculate(self, atoms=None, properties=None, system_changes=None):
        result = self._backend.evaluate(Frames.from_ase([atoms]), frozenset({'forces'}))
        self.atoms = atoms.copy()
        self.results = {'energy': result.energies[0], 'free_energy': result.energies[0], 'forces': result.forces}


@pytest.mark.slow
@pytest.mark.parametrize('precision', ['double', 'single'])
def test_molecules_with_ani(make_context, ani, precision):
    """Same minima as with ASE; in single precision as near as its noise allows, and in fewer steps than ASE."""
    random = np.random.default_rng(8)
    structures = [molecule(name) for name in ('H2O', 'C2H6', 'CH3CH2OH', 'C6H6', 'CH3CONH2', 'CH3CH2NH2')]
    for atoms in structures:
        atoms.positions += random.normal(scale=0.05, size=atoms.positions.shape)
    frames, backend, tight = Frames.from_ase(structures), ani(precision), 2e-3
    context = make_context(GeometryOptimization, backend, frames, force_tolerance=tight, precision=precision)
    GeometryOptimization().run(context)
    assert (context.store.status == FrameStatus.OK).all()
    reference, steps, theirs = ani('double'), 0, 0
    for index, atoms in enumerate(frames):
        atoms.calc = _Calculator(reference)
        optimizer = LBFGS(atoms, logfile=None)
        optimizer.run(fmax=tight, steps=500)
        steps, theirs = steps + context.store.read('steps', index), theirs + optimizer.nsteps
        assert np.isfinite(context.store.read('qbc', index))
        assert context.store.read('energies', index) == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
        ours = Atoms(atoms.numbers, context.store.read('positions', index)).get_all_distances()
        bonded = (ours < 1.7) & (ours > 0)
        assert np.abs(ours - atoms.get_all_distances())[bonded].max() < 0.01
    assert steps < 0.7 * theirs


@pytest.mark.slow
def test_water_in_a_cell_with_ani(make_context, ani):
    atoms = Atoms(cell=[[4.6, 0, 0], [0.2, 4.5, 0], [0.1, -0.1, 4.7]], pbc=True)
    for shift in ([0.3, 0.3, 0.3], [2.6, 2.5, 2.7]):
        water = molecule('H2O')
        water.rotate(90, 'x')
        water.translate(shift)
        atoms += water
    frames = Frames.from_ase([atoms])
    parameters = {'optimize_cell': True, 'force_tolerance': 2e-3, 'precision': 'double'}
    context = make_context(GeometryOptimization, ani('double'), frames, **parameters)
    GeometryOptimization().run(context)
    assert context.store.status.tolist() == [FrameStatus.OK]
    assert context.store.read('energies', 0) < context.store.read('initial_energies', 0) - 0.05
    limit = 2e-3 * len(atoms) / np.linalg.det(context.store.read('cells', 0))
    assert np.abs(context.store.read('stress', 0)).max() < 1.01 * limit


def waters():
    """Return eight molecules of water on a lattice, turned at random, in a triclinic cell."""
    random, edge = np.random.default_rng(3), 6.2
    atoms = Atoms(cell=[[edge, 0, 0], [0.3, edge, 0], [-0.2, 0.25, edge]], pbc=True)
    for place in np.ndindex(2, 2, 2):
        water = molecule('H2O')
        water.positions -= water.positions.mean(axis=0)
        water.rotate(random.uniform(0, 360), random.normal(size=3))
        water.translate((np.array(place) / 2 + 0.25) @ np.array(atoms.cell))
        atoms += water
    return atoms


@pytest.mark.slow
@pytest.mark.parametrize('pressure', [0.0, 1.0])
def test_ice_with_ani(make_context, network, ani, tmp_path, pressure):
    """Torchani's own model in double precision, moved by ASE; both begin in the basin that a first run found."""
    pytest.importorskip('torchani')
    from aiida_mlpotential.worker.backends.torchani.interop import to_torchani

    backend = ani('double')
    parameters = {'optimize_cell': True, 'pressure': pressure, 'precision': 'double'}

    def relax(atoms, folder, tolerance):
        (tmp_path / folder).mkdir()
        frames = Frames.from_ase([atoms])
        task = GeometryOptimization
        context = make_context(task, backend, frames, tmp_path / folder, force_tolerance=tolerance, **parameters)
        task().run(context)
        return context

    atoms = waters()
    first = relax(atoms, 'first', 0.02)
    atoms.set_cell(first.store.read('cells', 0))
    atoms.positions = first.store.read('positions', 0)
    atoms.rattle(0.01, seed=4)
    atoms.set_cell(np.array(atoms.cell) @ (np.eye(3) + 0.004 * np.eye(3)[[1, 2, 0]]), scale_atoms=True)
    context = relax(atoms, 'second', TIGHT)
    assert_pressure(context, 0, pressure * GPa, len(atoms))
    assert_like_ase(context, [atoms], to_torchani(network).ase(), pressure * GPa)
