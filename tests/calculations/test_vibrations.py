"""Vibrational analyses through the engine: real jobs on this machine, compared with ASE on the same potential."""

from __future__ import annotations

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.vibrations import Vibrations

from aiida_mlpotential.calculations.vibrations import VibrationsCalculation
from aiida_mlpotential.data.normal_modes import NormalModesData
from aiida_mlpotential.data.structures import StructureSetData

CODES = VibrationsCalculation.exit_codes


@pytest.fixture
def run(python_code, molecules_model):
    """Return a function that runs a job and returns outputs and node."""

    def function(**inputs):
        return run_get_node(VibrationsCalculation, code=python_code, model=molecules_model, **inputs)

    return function


def wavenumbers(atoms, folder, n_vibrations):
    """Return what ASE finds, cm^-1."""
    atoms = atoms.copy()
    atoms.calc = EMT()
    vibrations = Vibrations(atoms, name=str(folder / 'vib'), delta=0.005, nfree=4)
    vibrations.run()
    values = vibrations.get_frequencies()
    return np.sort(values.real - values.imag)[-n_vibrations:]


@pytest.mark.slow
def test_one_structure(run, tetrahedron, tmp_path):
    outputs, node = run(structure=orm.StructureData(ase=tetrahedron))
    assert node.is_finished_ok, node.exit_message
    results = outputs['results']
    assert isinstance(results, NormalModesData)
    expected = wavenumbers(tetrahedron, tmp_path, 6)
    np.testing.assert_allclose(results.frequencies(0), expected, atol=0.5)
    summary = outputs['output_parameters'].get_dict()
    assert summary['character'] == 'minimum'
    assert (summary['n_imaginary'], summary['imaginary_frequencies']) == (0, [])
    np.testing.assert_allclose(summary['lowest_frequencies'], expected, atol=0.5)
    assert summary['zero_point_energy'] == pytest.approx(results.zero_point_energy(0))
    assert results.base.attributes.get('zero_point_energy') == pytest.approx(results.zero_point_energy(0))
    assert results.temperatures == []
    data = results.to_vibrations(0)
    np.testing.assert_allclose(np.sort(data.get_frequencies().real)[-6:], expected, atol=0.5)


@pytest.mark.slow
def test_many_structures_and_their_characters(run, tetrahedron, nitrogen, square):
    moved = tetrahedron.copy()
    moved.rattle(0.1, seed=1)
    structures = StructureSetData.from_ase([tetrahedron, nitrogen, square, moved], labels=['a', 'b', 'c', 'd'])
    outputs, node = run(structures=structures)
    assert node.is_finished_ok, node.exit_message
    results, summary = outputs['results'], outputs['output_parameters'].get_dict()
    assert [results.character(index) for index in range(4)] == [
        'minimum', 'minimum', 'saddle point of order 2', 'not stationary'
    ]  # fmt: skip
    assert [len(results.frequencies(index)) for index in range(4)] == [6, 1, 6, 6]
    counts = {'n_minima': 2, 'n_transition_states': 0, 'n_higher_saddles': 1, 'n_not_stationary': 1}
    assert {key: summary[key] for key in counts} == counts
    assert summary['frequency_min'] == pytest.approx(results.frequencies(2)[0])
    assert results.animate(2, 0)[0] == structures.get_frames().to_ase(2)


@pytest.mark.slow
def test_a_saddle_where_a_minimum_was_expected_has_its_own_exit_code(run, square, tetrahedron):
    outputs, node = run(structure=orm.StructureData(ase=square), parameters={'expected': 'minimum'})
    assert node.exit_status == CODES.ERROR_WRONG_CHARACTER.status
    assert 'imaginary mode' in node.exit_message
    assert outputs['output_parameters']['character'] == 'saddle point of order 2'
    assert len(outputs['output_parameters']['imaginary_frequencies']) == 2
    assert outputs['results'].modes(0).shape == (6, 4, 3)

    structures = StructureSetData.from_ase([tetrahedron, bulk('Si')])
    _, node = run(structures=structures, parameters={'expected': 'transition_state'})
    assert node.exit_status == CODES.ERROR_ALL_STRUCTURES_FAILED.status  # in more than one way


def test_isotopes_are_refused(run):
    structure = orm.StructureData(cell=np.eye(3), pbc=False)
    structure.append_atom(symbols='H', name='H', position=(0, 0, 0))
    structure.append_atom(symbols='H', name='D', position=(0, 0, 0.8), mass=2.014)
    with pytest.raises(ValueError, match=r'the kind D has the mass 2\.014 amu, but .* isotopes are not supported'):
        run(structure=structure)


def test_parameters_of_other_tasks_are_refused(run, tetrahedron):
    with pytest.raises(ValueError, match="unknown key 'optimizer'"):
        run(structure=orm.StructureData(ase=tetrahedron), parameters={'optimizer': 'FIRE'})
