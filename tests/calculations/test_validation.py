"""What is said before submission, and what is left to the worker; no job is run here."""

from __future__ import annotations

import numpy as np
import pytest
from aiida import orm
from ase import Atoms
from ase.build import bulk

from aiida_mlpotential.calculations.single_point import SinglePointCalculation
from aiida_mlpotential.calculations.validation import check_masses, validate_inputs, validate_structure, validate_worker
from aiida_mlpotential.data.structures import StructureSetData

pytestmark = pytest.mark.usefixtures('aiida_profile')
PORTS = ('structure', 'structures')


class Picky(SinglePointCalculation):
    """A calculation that does without odd numbers of atoms."""

    @classmethod
    def check_task(cls, request):
        return 'parameters: double is not for sets.' if _double(request) and not request.single else None

    @classmethod
    def frame_problems(cls, request):
        return {int(index): 'it is odd' for index in np.flatnonzero(request.frames.counts % 2)}


def _double(request):
    return request.parameters['precision'] == 'double'


def _one(number):
    return orm.StructureData(ase=bulk('Cu') * (number, 1, 1))


def _many(*numbers):
    return StructureSetData.from_ase([bulk('Cu') * (number, 1, 1) for number in numbers])


def test_sound_inputs(emt_model):
    assert validate_inputs(SinglePointCalculation, {'model': emt_model, 'structure': _one(1)}, PORTS) is None
    assert validate_inputs(SinglePointCalculation, {'model': emt_model, 'structures': _many(1, 2)}, PORTS) is None


def test_inputs_that_a_workflow_gives_itself(emt_model):
    assert validate_inputs(SinglePointCalculation, {}, PORTS) is None
    assert validate_inputs(SinglePointCalculation, {'model': emt_model}, ('model',)) is None
    message = validate_inputs(SinglePointCalculation, {'model': emt_model}, PORTS)
    assert message.startswith('give either `structure`')
    both = {'model': emt_model, 'structure': _one(1), 'structures': _many(1)}
    assert validate_inputs(SinglePointCalculation, both, PORTS).startswith('give either `structure`')


def test_problems_of_a_task(emt_model):
    inputs = {'model': emt_model, 'structure': _one(1)}
    assert validate_inputs(Picky, inputs, PORTS) == 'structure: it is odd.'
    assert validate_inputs(Picky, {**inputs, 'structure': _one(2)}, PORTS) is None


def test_a_set_is_refused_only_if_there_is_nothing_to_do(emt_model):
    message = validate_inputs(Picky, {'model': emt_model, 'structures': _many(1, 3)}, PORTS)
    assert message == 'structures: it can be done for none of them; the first: it is odd.'
    assert validate_inputs(Picky, {'model': emt_model, 'structures': _many(1, 2)}, PORTS) is None


def test_the_job_as_a_whole(emt_model):
    inputs = {'model': emt_model, 'parameters': orm.Dict({'precision': 'double'})}
    message = validate_inputs(Picky, {**inputs, 'structures': _many(2)}, PORTS)
    assert message == 'parameters: double is not for sets.'
    assert validate_inputs(Picky, {**inputs, 'structure': _one(2)}, PORTS) is None


def test_structures_that_the_model_does_not_know(emt_model):
    silicon = orm.StructureData(ase=bulk('Si'))
    message = validate_inputs(Picky, {'model': emt_model, 'structure': silicon}, PORTS)
    assert message.startswith('structure: contains Si; the model knows')
    structures = StructureSetData.from_ase([bulk('Si'), bulk('Si')])
    message = validate_inputs(Picky, {'model': emt_model, 'structures': structures}, PORTS)
    assert message.startswith('structures: EMT can evaluate none of them; the first: contains Si')


def test_options_and_sites():
    assert validate_worker('upload', None) is None
    assert 'allowed are upload, installed' in validate_worker('pigeon', None)
    assert validate_structure(None, None) is None
    structure = orm.StructureData(cell=np.eye(3) * 4)
    structure.append_atom(position=(0, 0, 0), symbols='Cu', weights=0.5)
    assert 'mixed or partial occupation' in validate_structure(structure, None)


def test_masses_are_those_of_the_elements():
    assert check_masses(None) is None
    every = Atoms(['H', 'Li', 'C', 'S', 'Cl', 'Se', 'Pt', 'U'], positions=np.arange(24).reshape(8, 3))
    assert check_masses(orm.StructureData(ase=every)) is None
    every.set_masses([None, 6.015, *[None] * 6])
    message = check_masses(orm.StructureData(ase=every))
    assert 'the kind Li' in message
    assert 'isotopes are not supported' in message
