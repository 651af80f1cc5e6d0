"""Frequencies against those that ASE finds with the same model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.optimize import BFGS
from ase.vibrations import Vibrations as AseVibrations

from aiida_mlpotential.worker.backends import load_backend
from aiida_mlpotential.worker.backends.base import Settings
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.registry import PRETRAINED
from aiida_mlpotential.worker.schema import ModelSpec
from aiida_mlpotential.worker.tasks.vibrations import Vibrations


def emt():
    """Return the backend of ASE's EMT."""
    return load_backend(
        ModelSpec('EMT', 'ase', '0' * 64, options={'calculator': 'ase.calculators.emt.EMT'}), Path(), Settings()
    )


def _sorted(found):
    return np.sort(np.where(np.abs(found.imag) > 0, -np.abs(found.imag), found.real))


def test_a_crystal_has_the_frequencies_that_ase_finds(make_context, tmp_path):
    """With a vacancy, so that there is something to relax; three translations, no rotation."""
    atoms = bulk('Cu', cubic=True) * (2, 1, 1)
    del atoms[3]
    atoms.calc = EMT()
    BFGS(atoms, logfile=None).run(fmax=1e-4)
    context = make_context(Vibrations, emt(), Frames.from_ase([atoms]))
    Vibrations().run(context)
    reference = AseVibrations(atoms, delta=1e-4, name=str(tmp_path / 'ase'))
    reference.run()
    expected = _sorted(reference.get_frequencies())
    found = context.store.read('frequencies', 0)
    assert context.store.read('n_rigid', 0) == 3 and np.array_equal(found[:3], np.zeros(3))
    expected = np.delete(expected, np.argsort(np.abs(expected))[:3])
    np.testing.assert_allclose(found[3:], expected, rtol=0, atol=0.01)
    assert found[3] > 10


class ByBackend(Calculator):
    """A backend as a calculator of ASE."""

    implemented_properties = ('energy', 'forces')

    def __init__(self, backend):
        super().__init__()
        self.backend = backend

    def calculate(self, atoms=None, properties=('energy',), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        found = self.backend.evaluate(Frames.from_ase([atoms]), frozenset({'forces'}))
        self.results = {'energy': float(found.energies[0]), 'forces': found.forces}


def published(name, shared_data, folder):
    """Return a published model, in double precision."""
    pytest.importorskip('torch')
    from aiida_mlpotential.worker.backends.torchani.convert import read_state_dict

    model = PRETRAINED[name]
    (folder / 'model').mkdir()
    path = shared_data / 'models' / 'torchani' / model.state_dict
    read_state_dict(path, model).write(folder / 'model' / model.file)
    spec = ModelSpec(name, 'torchani', model.sha256, {f'model/{model.file}': ''}, energy_unit='Hartree')
    return load_backend(spec, folder, Settings(device='cpu', precision='double'))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['ANI-1ccx', 'ANI-2x'])
def test_the_published_models_have_the_frequencies_that_ase_finds(make_context, shared_data, tmp_path, name):
    """Within 0.2 wavenumbers of short differences: where one of these straddles a kink of the CELU networks.

    The longer ones that ASE takes by default straddle many, and are up to 30 wavenumbers off (ANI-1ccx, benzene),
    whatever their order.
    """
    backend = published(name, shared_data, tmp_path)
    structures = [molecule(formula) for formula in ('H2O', 'CO2', 'C2H6', 'C6H6')]
    for atoms in structures:
        atoms.calc = ByBackend(backend)
        BFGS(atoms, logfile=None).run(fmax=1e-4)
    context = make_context(Vibrations, backend, Frames.from_ase(structures), expected='minimum')
    Vibrations().run(context)
    assert (context.store.status == FrameStatus.OK).all()
    for index, atoms in enumerate(structures):
        reference = AseVibrations(atoms, delta=1e-5, name=str(tmp_path / f'ase{index}'))
        reference.run()
        expected = _sorted(reference.get_frequencies())
        rigid = context.store.read('n_rigid', index)
        assert rigid == (5 if index == 1 else 6)
        expected = np.delete(expected, np.argsort(np.abs(expected))[:rigid])
        np.testing.assert_allclose(context.store.read('frequencies', index)[rigid:], expected, rtol=0, atol=0.2)
        spread = context.store.read('frequency_std', index)
        assert np.all(spread[rigid:] > 0.5) and np.all(spread[:rigid] == 0)
