"""What is refused before a screening begins, in one sentence that says what to do."""

from __future__ import annotations

import dataclasses

import pytest
from aiida import orm
from ase import Atoms
from ase.build import bulk

from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.workflows.screening.chain import ScreeningWorkChain
from aiida_mlpotential.workflows.screening.validation import is_positive, optimizing_model, validate_screening

CONSTRAINT = {'kind': 'atoms', 'atoms': [0]}


@pytest.fixture
def other_model(aiida_profile):
    return ModelData.from_ase_calculator(
        'ase.calculators.lj.LennardJones', {'sigma': 2.3, 'epsilon': 0.4}, elements=['Cu'], name='LJ'
    ).get_or_store()


@pytest.fixture
def ensemble(other_model, monkeypatch):
    """Return a model that says it has eight members."""
    spec = dataclasses.replace(other_model.to_spec(), ensemble_size=8)
    monkeypatch.setattr(ModelData, 'to_spec', lambda self: spec)
    return other_model


@pytest.fixture
def check(copper, emt_model, python_code):
    """Return a function that validates inputs which are right but for what is changed."""

    def function(**changes):
        inputs = {'structures': copper, 'models': {'emt': emt_model}, 'code': python_code, **changes}
        return validate_screening({name: value for name, value in inputs.items() if value is not None}, None)

    return function


def test_good_inputs_pass(check, emt_model, python_code):
    assert check() is None
    assert check(code=None, codes={'emt': python_code}) is None
    assert check(models={'a': emt_model, 'b_1': emt_model}, codes={'a': python_code}) is None
    assert check(parameters=orm.Dict({'properties': ['energy']})) is None
    assert check(optimization={'parameters': orm.Dict({'force_tolerance': 0.01}), 'model': orm.Str('emt')}) is None


def test_messages_have_the_port_once(check):
    """What a job would say of its port is said without the way through the models, with that of the optimization."""
    iron = StructureSetData.from_ase([bulk('Fe')]).store()
    assert check(structures=iron).startswith('structures: ')
    wrong = {'properties': ['forces_std']}
    assert check(parameters=orm.Dict(wrong)).startswith('parameters: properties asks for forces_std, but ')
    assert check(optimization={'parameters': orm.Dict({'force_tolerance': -1})}).startswith('optimization.parameters: ')


def test_the_process_itself_asks():
    """The validator is that of the inputs: what is wrong cannot be submitted."""
    assert ScreeningWorkChain.spec().inputs.validator is validate_screening


def test_the_port_complains_of_missing_structures(check):
    assert check(structures=None) is None


@pytest.mark.parametrize('models', [{}, None])
def test_a_model_is_needed(check, models):
    assert check(models=models) == 'models: give at least one, such as models = {"ani": model}.'


@pytest.mark.parametrize('label', ['structures', 'settings', 'metadata'])
def test_labels_that_mean_something_else_are_refused(check, label, emt_model):
    """They are names of other inputs of the function that ranks, which is called when everything is computed."""
    assert check(models={label: emt_model}) == (
        f'models: the label {label!r} is a name that is taken: choose another one.'
    )


def test_labels_that_would_be_taken_apart_are_refused(check, emt_model):
    assert check(models={'emt': emt_model, 'a__b': emt_model}) == (
        "models: the label 'a__b' has two underscores in a row: choose another one."
    )


def test_every_model_has_a_code(check, emt_model, python_code):
    assert check(code=None) == "there is no code for the model 'emt': give `code` for all, or codes.emt."
    both = {'a': emt_model, 'b': emt_model}
    assert "no code for the model 'b'" in check(code=None, models=both, codes={'a': python_code})


def test_every_code_has_a_model(check, python_code):
    assert check(codes={'ani': python_code}) == "codes: there is no model 'ani'; the models are emt."


def test_a_job_would_refuse_the_parameters(check):
    message = check(parameters=orm.Dict({'properties': ['energy', 'forces_std']}))
    assert message == 'parameters: properties asks for forces_std, but EMT has one member: leave it out.'


def test_no_structure_can_be_evaluated(check):
    """Some that cannot be fail on their own; where it is all of them, nobody has to wait to be told."""
    silicon = StructureSetData.from_ase([bulk('Si'), bulk('Si')]).store()
    assert check(structures=silicon).startswith('structures: EMT can evaluate none of them; the first: contains Si')
    mixed = StructureSetData.from_ase([bulk('Si'), bulk('Cu')]).store()
    assert check(structures=mixed) is None


def test_each_model_is_asked(check, emt_model, other_model):
    """Nickel is an element of the first one only."""
    nickel = StructureSetData.from_ase([bulk('Ni')]).store()
    assert check(structures=nickel) is None
    message = check(structures=nickel, models={'emt': emt_model, 'lj': other_model})
    assert message.startswith('structures: LJ can evaluate none of them')


@pytest.mark.parametrize('name', ['n_selected', 'max_qbc'])
def test_what_needs_a_spread_needs_an_ensemble(check, name):
    node = orm.Int(3) if name == 'n_selected' else orm.Float(0.01)
    message = check(**{name: node})
    assert message.startswith(f'{name} asks for ')
    assert message.endswith('but no model is an ensemble: leave it out.')


def test_one_ensemble_is_enough(check, ensemble):
    assert check(models={'lj': ensemble}, n_selected=orm.Int(3), max_qbc=orm.Float(0.01)) is None


def test_the_model_that_optimizes_is_one_of_them(check):
    message = check(optimization={'parameters': orm.Dict({}), 'model': orm.Str('ani')})
    assert message == "optimization.model: there is no model 'ani'; the models are emt."


def test_parameters_of_the_optimization_are_those_of_its_task(check):
    message = check(optimization={'parameters': orm.Dict({'force_tolerence': 0.01})})
    assert "did you mean 'force_tolerance'" in message


def test_a_job_would_refuse_the_optimization(check):
    """Molecules have no cell to optimize: the message is that of the job."""
    molecules = StructureSetData.from_ase([Atoms('Cu2', [(0, 0, 0), (0, 0, 2.2)])]).store()
    optimization = {'parameters': orm.Dict({'optimize_cell': True})}
    assert check(optimization=optimization) is None
    message = check(structures=molecules, optimization=optimization)
    assert message is not None
    assert 'cell' in message


def test_single_structures_have_other_numbers_in_a_slice(check):
    """A constraint of all structures is fine, one of some would hold others."""
    every = {'constraints': [CONSTRAINT]}
    some = {'constraints': [CONSTRAINT, {**CONSTRAINT, 'structures': [1]}]}
    assert check(optimization={'parameters': orm.Dict(every)}) is None
    assert check(optimization={'parameters': orm.Dict(some)}) == (
        'optimization.parameters: constraints names single structures, which have other numbers in a slice.'
    )


def test_the_first_model_optimizes_unless_another_is_named(emt_model):
    models = {'b': emt_model, 'a': emt_model}
    assert optimizing_model({'models': models, 'optimization': {}}) == 'a'
    assert optimizing_model({'models': models, 'optimization': {'model': orm.Str('b')}}) == 'b'


@pytest.mark.parametrize(('value', 'good'), [(1, True), (0.5, True), (0, False), (-2, False)])
def test_numbers_to_count_with(aiida_profile, value, good):
    class Port:
        name = 'slice_size'

    message = is_positive(orm.to_aiida_type(value), Port)
    assert message is None if good else message == f'slice_size is {value}: give a number above 0.'
    assert is_positive(None, Port) is None
