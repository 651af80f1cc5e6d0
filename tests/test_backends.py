"""Every custom model gives its reference values as a job: all structures at once, and one alone.

The jobs run in the environment of their backend: one of those in the folder ``AIIDA_MLPOTENTIAL_ENVIRONMENTS``, which
the installer fills and which has a folder for each, or the running Python where it has the library.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from aiida.plugins import CalculationFactory
from ase import Atoms

from aiida_mlpotential.data.model import ModelData, ModelInfo
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.worker.units import HARTREE

pytestmark = pytest.mark.usefixtures('aiida_profile')

FIXTURES = Path(__file__).parent / 'fixtures'
ENVIRONMENTS = 'AIIDA_MLPOTENTIAL_ENVIRONMENTS'


@dataclass(frozen=True)
class Case:
    """A model with reference values, and how close they must be (eV, eV/angstrom)."""

    backend: str
    file: str
    energy_unit: str = 'Auto'
    elements: tuple[str, ...] | None = None
    energy: float = 1e-4
    forces: float = 1e-3
    units_from: tuple[str, str] = ('file', 'file')
    reference: str = 'reference.json'
    #: For the models whose reference has energies without self energies: whether the model adds them.
    self_energies: bool | None = None

    def energy_of(self, entry: dict[str, Any]) -> float:
        """Return the reference energy of a structure, eV."""
        if self.self_energies is None:
            return float(entry['energy_ev'])
        energies = [SELF_ENERGIES[number] * HARTREE for number in entry['numbers']] if self.self_energies else []
        return float(entry['sequential_energy_ev_without_self_energies'] + sum(energies))


def _ani(file: str, elements: tuple[str, ...] | None = None, self_energies: bool = True) -> Case:
    units = ('default', 'default')
    return Case('torchani', file, 'Auto', elements, 1e-5, 1e-4, units, 'reference_custom.json', self_energies)


#: Hartree, those in the model. The reference adds them in single precision, which is off by up to 2e-4 eV; its energies
#: without them are not.
SELF_ENERGIES = {1: -25.69244956970215, 6: 12.136370658874512, 8: -24.982595443725586}

CASES = {
    'ani full': _ani('custom_full_ani.pt'),
    'ani sequential': _ani('custom_sequential_idx.pt', ('H', 'C', 'O'), self_energies=False),
    'ani torchscript': _ani('custom_torchscript.pt', ('H', 'C', 'O')),
    'schnetpack': Case('schnetpack', 'best_model', energy=1e-5, forces=1e-4, units_from=('default', 'default')),
    'sgdml kcal/mol and angstrom': Case('sgdml', 'ethanol_kcal_ang.npz', energy=1e-6, forces=1e-6),
    'sgdml Hartree and bohr': Case('sgdml', 'ethanol_hartree_bohr.npz', energy=1e-6, forces=1e-6),
    'pinn eV': Case('pinn', 'pinet2_ev', energy=2e-3, forces=2e-4, units_from=('default', 'default')),
    'pinn Hartree': Case(
        'pinn',
        'pinet2_hartree',
        'Hartree',
        energy=2e-3,
        forces=2e-4,
        units_from=('user', 'default'),
    ),
}


def find_python(backend: str) -> str:
    """Return the Python that can run jobs of a backend; skip the test where there is none."""
    folder = os.environ.get(ENVIRONMENTS)
    for python in sorted(Path(folder).glob(f'{backend}*/bin/python')) if folder else ():
        return str(python)
    spec = importlib.util.find_spec(backend)
    if spec is None or spec.origin is None:  # a mere folder of that name
        pytest.skip(f'the library {backend} is not installed here, nor an environment in ${ENVIRONMENTS}')
    return sys.executable


def find_model(case: Case, shared: Path) -> Path:
    """Return the model: the copy in the tests, or that of the reference data."""
    for path in (FIXTURES / case.backend / case.file, shared / 'models' / case.backend / case.file):
        if path.exists():
            return path
    pytest.skip(f'{case.file} is not among the fixtures, and the reference data is not beside this checkout')


def read_reference(case: Case, shared: Path) -> list[dict[str, Any]]:
    """Return the reference values of a model: all where the reference data is there, else those of the tests."""
    for path in (shared / 'models' / case.backend / case.reference, FIXTURES / case.backend / case.reference):
        if path.exists():
            models = json.loads(path.read_text())['models']
            entry = models[case.file] if case.self_energies is None else models['custom_full_ani.pt']
            return [*entry['structures'], *entry.get('periodic', [])]
    pytest.skip(f'there are no reference values for {case.file}')


@pytest.fixture
def code(localhost, request):
    """Return the Python of the environment of the backend as a code."""
    backend = request.getfixturevalue('case').backend
    return orm.InstalledCode(
        label=f'python-{backend}', computer=localhost, filepath_executable=find_python(backend)
    ).store()


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request) -> Case:
    return request.param


@pytest.fixture
def shared(request) -> Path:
    return Path(__file__).resolve().parents[2] / 'shared' / 'data'


def _atoms(entry: dict[str, Any]) -> Atoms:
    return Atoms(entry['numbers'], entry['positions'], cell=entry.get('cell'), pbc=entry.get('pbc', False))


def _run(inputs: dict[str, Any]) -> dict[str, Any]:
    outputs, node = run_get_node(CalculationFactory('mlpotential.single_point'), **inputs)
    log = node.outputs.retrieved.base.repository.get_object_content('worker.err')
    assert node.is_finished_ok, f'{node.exit_message}\n{log}'
    return outputs


@pytest.mark.slow
def test_reference_values_together_and_alone(case, code, shared):
    model = ModelData.from_file(
        find_model(case, shared),
        backend=case.backend,
        elements=case.elements,
        info=ModelInfo(energy_unit=case.energy_unit),
    ).get_or_store()
    assert (model.units_from['energy'], model.units_from['distance']) == case.units_from
    entries = read_reference(case, shared)
    frames = [_atoms(entry) for entry in entries]
    crystals = [index for index, atoms in enumerate(frames) if atoms.pbc.all()]
    properties = ['energy', 'forces', *(['stress'] if crystals else [])]
    settings = {'properties': properties, 'precision': 'single', 'num_threads': 1}
    inputs = {'code': code, 'model': model, 'parameters': orm.Dict(settings)}
    results = _run({**inputs, 'structures': StructureSetData.from_ase(frames)})['results']
    for index, entry in enumerate(entries):
        frame = results.frame(index)
        assert frame.energy == pytest.approx(case.energy_of(entry), rel=0, abs=case.energy)
        np.testing.assert_allclose(frame.forces, entry['forces_ev_per_ang'], rtol=0, atol=case.forces)
        if index in crystals:
            np.testing.assert_allclose(frame.stress, entry['stress_ev_per_ang3'], rtol=0, atol=1e-5)
    for index in (0, *crystals[:1]):
        settings['properties'] = properties if index in crystals else ['energy', 'forces']
        single = {'parameters': orm.Dict(settings), 'structure': orm.StructureData(ase=frames[index])}
        alone = _run({**inputs, **single})['results'].frame(0)
        assert alone.energy == pytest.approx(results.frame(index).energy, rel=0, abs=case.energy)
        np.testing.assert_allclose(alone.forces, results.frame(index).forces, rtol=0, atol=case.forces)
