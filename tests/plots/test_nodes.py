"""Which pictures there are of which node."""

from __future__ import annotations

import pytest
from aiida import orm

from aiida_mlpotential.plots import nodes
from aiida_mlpotential.plots.figures import PlotError

REACTION = {
    'equation': 'a → b',
    'model_name': 'EMT',
    'n_members': 1,
    'temperatures': [298.15, 400.0],
    'gas_pressure': 1e5,
    'quantities': {
        name: {'symbol': name, 'value': [1.0, 2.0], 'std': None} for name in ('energy', 'enthalpy', 'gibbs_energy')
    },
}


def _names(node):
    return [kind.name for kind in nodes.kinds_of(node)]


def test_a_reaction(aiida_profile):
    node = orm.Dict(REACTION)
    assert _names(node) == ['reaction']
    figure = nodes.draw(node, options=nodes.Options(temperature=400.0))
    assert '400 K' in figure.axes[0].get_title()


def test_results_of_an_ensemble(results):
    assert _names(results) == ['spread', 'energies']
    figure = nodes.draw(results, options=nodes.Options(threshold=0.01))
    assert '10 meV' in [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_threshold_is_that_of_the_screening(results, aiida_profile, monkeypatch):
    """What the screening flagged is marked, unless another threshold is given."""
    from aiida.common import LinkType

    monkeypatch.setattr(type(results), '_validate', lambda self: True)
    workflow = orm.WorkChainNode()
    workflow.base.links.add_incoming(orm.Float(0.012).store(), LinkType.INPUT_WORK, 'max_qbc')
    workflow.store()
    assert nodes.threshold_of(workflow) == 0.012
    assert nodes.threshold_of(results) is None
    results.store().base.links.add_incoming(workflow, LinkType.RETURN, 'results__one')
    for options, expected in ((None, '12 meV'), (nodes.Options(threshold=0.01), '10 meV')):
        legend = nodes.draw(workflow, options=options).legends[0]
        assert expected in [text.get_text() for text in legend.get_texts()]


def test_a_workflow_has_what_its_outputs_have(results, monkeypatch, aiida_profile):
    """The results of several models stand in a namespace, by the label of the model."""
    from aiida.common import LinkType

    monkeypatch.setattr(type(results), '_validate', lambda self: True)
    workflow = orm.WorkChainNode().store()
    for label in ('one', 'two'):
        copy = results.clone()
        copy.store()
        copy.base.links.add_incoming(workflow, LinkType.RETURN, f'results__{label}')
    assert set(nodes.find_spreads(workflow)) == {'one', 'two'}
    reaction = orm.WorkChainNode().store()
    orm.Dict(REACTION).store().base.links.add_incoming(reaction, LinkType.RETURN, 'reaction')
    assert _names(reaction) == ['reaction']


def test_what_has_no_picture(aiida_profile, results):
    node = orm.Dict({'a': 1}).store()
    with pytest.raises(PlotError, match=f'no picture of node {node.pk}: name a reaction'):
        nodes.draw(node)
    with pytest.raises(PlotError, match='choose spread or energies'):
        nodes.draw(results, 'reaction')
