"""How many structures failed, and why, from the results and the summary of a process."""

from __future__ import annotations

import pytest
from aiida import orm
from aiida.common.links import LinkType

from aiida_mlpotential.cli.failures import describe_failures, results_of
from aiida_mlpotential.data.statistics import format_causes


def test_causes() -> None:
    """The most frequent one first; what is done or was not reached is no failure."""
    counts = {'OK': 5, 'PENDING': 2, 'ATOMS_TOO_CLOSE': 1, 'NOT_CONVERGED': 3, 'ATOM_ORDER': 1}
    assert format_causes(counts) == '3 NOT_CONVERGED, 1 ATOMS_TOO_CLOSE, 1 ATOM_ORDER'
    assert format_causes({'OK': 5}) == ''


@pytest.fixture
def screening(make_results, monkeypatch) -> orm.WorkChainNode:
    """Return a screening of three structures with two models, by one of which one failed."""
    node = orm.WorkChainNode().store()
    for label, counts in (('a_1', {'OK': 2, 'UNSUPPORTED_ELEMENT': 1}), ('b', {'OK': 3})):
        results = make_results([1, 1, 1], [0, 0, 11] if len(counts) > 1 else [0, 0, 0])
        results.base.attributes.set_many({'status_counts': counts, 'model_name': label.replace('_', '-')})
        monkeypatch.setattr(type(results), '_validate', lambda self: True)
        results.store()
        results.base.links.add_incoming(node, LinkType.RETURN, f'results__{label}')
    return node


def test_models_of_a_screening(screening) -> None:
    assert set(results_of(screening)) == {'a_1', 'b'}
    assert describe_failures(screening) == ['1 of 3 failed with a-1 (1 UNSUPPORTED_ELEMENT)']


@pytest.mark.parametrize(
    ('named', 'expected'),
    [
        ({'0': 'NOT_CONVERGED', '4': 'NOT_CONVERGED', '5': 'PENDING'}, '3 of 9 not optimized (2 NOT_CONVERGED)'),
        ({'0': 'NOT_CONVERGED'}, '3 of 9 not optimized'),
    ],
)
def test_what_was_not_optimized(screening, named: dict[str, str], expected: str) -> None:
    """The causes are told if the summary names all of them."""
    summary = orm.Dict({'n_unoptimized': 3, 'unoptimized': named, 'n_structures': 9}).store()
    summary.base.links.add_incoming(screening, LinkType.RETURN, 'summary')
    assert describe_failures(screening)[0] == expected


@pytest.mark.usefixtures('aiida_profile_clean')
def test_results_of_something_else() -> None:
    """A process without results, or with results that are not of this plugin, has no causes to tell."""
    node = orm.WorkChainNode().store()
    assert describe_failures(node) == []
    other = orm.Dict({'results': 1}).store()
    other.base.links.add_incoming(node, LinkType.RETURN, 'results')
    assert describe_failures(node) == []
