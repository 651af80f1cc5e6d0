"""All results of a model, by its node, its hash or the beginning of that."""

from __future__ import annotations

import pytest
from aiida import orm
from aiida.engine import calcfunction

from aiida_mlpotential.data.results import ResultsData
from aiida_mlpotential.queries.results import iter_results, results_of_model

pytestmark = pytest.mark.slow


@calcfunction
def _merge(**slices: ResultsData) -> ResultsData:
    """Return results of the whole set, as a screening makes them of its slices."""
    whole = slices['a'].clone()
    whole.base.attributes.set('selection', None)
    return whole


def test_results_of_a_model_are_found_by_its_hash(run, copper, emt_model, other_model):
    """Whatever the jobs were about, and the newest first."""
    first = run(structures=copper)
    second = run(structure=copper.get_structure(0))
    other = run(structures=copper, model=other_model)
    expected = [node.outputs.results.uuid for node in (second, first)]
    for model in (emt_model, emt_model.sha256, emt_model.sha256[:8]):
        assert [node.uuid for node in results_of_model(model)] == expected
    assert [node.uuid for node in results_of_model(other_model.sha256)] == [other.outputs.results.uuid]
    assert results_of_model(emt_model, task='vibrations') == []
    assert results_of_model('0' * 64) == []


def test_merged_slices_do_not_count_twice(run, copper, emt_model):
    parts = [run(structures=copper, selection={'start': start, 'stop': start + 3}) for start in (0, 3)]
    slices = [node.outputs.results for node in parts]
    alone = run(structures=copper, selection={'indices': [2]}).outputs.results
    merged = _merge(a=slices[0], b=slices[1])
    assert [node.uuid for node in results_of_model(emt_model)] == [merged.uuid, alone.uuid]
    assert len(results_of_model(emt_model, parts=True)) == 4


def test_results_made_of_others_hide_only_slices(run, copper, emt_model):
    """A function of results of a whole set makes results of its own, and does not replace them."""
    whole = run(structures=copper).outputs.results
    made = _merge(a=whole)
    assert [node.uuid for node in results_of_model(emt_model)] == [made.uuid, whole.uuid]


def test_any_filter_of_the_query_builder_will_do(run, copper):
    node = run(structures=copper)
    assert [found.uuid for found in iter_results({'attributes.n_frames': 6})] == [node.outputs.results.uuid]
    assert list(iter_results({'attributes.n_frames': {'>': 6}})) == []


@pytest.mark.parametrize('text', ['', 'EMT', 'abc', 'ABCDEF0123', 'a' * 65, '%%%%%%%%%'])
def test_what_is_no_hash_is_refused(aiida_profile_clean, text):
    with pytest.raises(ValueError, match='is no sha256 of a model: give 8 to 64 of its digits'):
        results_of_model(text)
    assert orm.QueryBuilder().append(ResultsData).count() == 0
