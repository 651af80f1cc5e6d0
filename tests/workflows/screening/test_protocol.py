"""Builders of screenings from protocols."""

from __future__ import annotations

import pytest
from aiida.engine import run_get_node
from ase.build import bulk

from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.workflows.screening.chain import ScreeningWorkChain
from aiida_mlpotential.workflows.screening.ranking import ANI_CRITERION


@pytest.fixture
def structures(aiida_profile):
    return StructureSetData.from_ase([bulk('Cu') * (n, 1, 1) for n in (1, 2, 3, 4)]).store()


def test_protocols_are_described():
    assert list(ScreeningWorkChain.get_available_protocols()) == ['fast', 'balanced', 'precise']
    assert ScreeningWorkChain.get_default_protocol() == 'balanced'


def test_the_threshold_is_that_of_the_literature():
    assert ScreeningWorkChain.get_protocol_inputs()['max_qbc'] == pytest.approx(ANI_CRITERION, rel=1e-6)


@pytest.mark.slow
def test_a_single_model_has_no_threshold(python_code, emt_model, structures):
    builder = ScreeningWorkChain.get_builder_from_protocol(python_code, emt_model, structures)
    assert 'max_qbc' not in builder
    assert builder.models['model'].uuid == emt_model.uuid
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    assert outputs['results']['model'].n_ok == 4


def test_overrides_and_options_win(python_code, emt_model, structures):
    builder = ScreeningWorkChain.get_builder_from_protocol(
        {'emt': python_code},
        {'emt': emt_model},
        structures,
        protocol='precise',
        overrides={'slice_size': 2, 'parameters': {'properties': ['energy']}},
        options={'max_wallclock_seconds': 60},
    )
    assert builder.slice_size.value == 2
    assert builder.parameters.get_dict() == {'properties': ['energy'], 'precision': 'double'}
    assert builder.optimization.parameters['force_tolerance'] == 1e-3
    assert builder.options == {'max_wallclock_seconds': 60}
    assert builder.codes['emt'].uuid == python_code.uuid


def test_unknown_names_are_refused(python_code, emt_model, structures):
    with pytest.raises(ValueError, match='there is no protocol'):
        ScreeningWorkChain.get_builder_from_protocol(python_code, emt_model, structures, protocol='slow')
    with pytest.raises(ValueError, match="there is no input 'slices'"):
        ScreeningWorkChain.get_builder_from_protocol(python_code, emt_model, structures, overrides={'slices': 2})
