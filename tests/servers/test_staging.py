"""A model travels once to a computer whose files the AiiDA host cannot see; a bad copy is noticed and replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiida.engine import submit
from aiida.plugins import WorkflowFactory
from ase import Atoms
from click.testing import CliRunner
from server_fixtures import environment
from waiting import wait_for

from aiida_mlpotential.cli import main
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.queries.staged import find_staged, linked_copy, list_staged

pytestmark = [pytest.mark.servers, pytest.mark.slow]
MODEL_FILE = Path(__file__).resolve().parents[1] / 'fixtures' / 'torchani' / 'custom_full_ani.pt'


def _run(profile, model):
    """Run a base chain, which finds out by itself that the computer is another machine; return its node."""
    water = Atoms('OH2', [[0, 0, 0], [0, 0.76, 0.6], [0, -0.76, 0.6]])
    chain = WorkflowFactory('mlpotential.single_point.base')
    builder = chain.get_builder_from_protocol(profile.code, model, StructureSetData.from_ase([water]).store())
    node = submit(builder)
    wait_for(lambda: node.is_terminated, 180)
    assert node.is_finished_ok, (node.exit_status, node.exit_message)
    return node, [child.process_label for child in sorted(node.called, key=lambda child: child.pk)]


def _copies(cluster):
    """Return where on the cluster the file of the model lies, links not counted."""
    return set(cluster.shell(f'find {cluster.scratch} -name {MODEL_FILE.name} -type f').split())


def test_a_model_travels_once(cluster, cluster_profile):
    model = ModelData.from_file(MODEL_FILE, backend='torchani').get_or_store()
    of_others = _copies(cluster)  # jobs of other tests, whose cluster this is, too
    first, called = _run(cluster_profile, model)
    assert called == ['StageModelCalculation', 'SinglePointCalculation']
    second, called = _run(cluster_profile, model)
    assert called == ['SinglePointCalculation']
    assert second.outputs.results.energies == pytest.approx(first.outputs.results.energies, abs=0)

    copy = find_staged(model, cluster_profile.computer)
    assert linked_copy(second.called[0]).pk == copy.pk
    file = f'{copy.get_remote_path()}/model/{MODEL_FILE.name}'
    assert _copies(cluster) - of_others == {file}
    assert cluster.shell(f'readlink {second.called[0].get_remote_workdir()}/model').strip() == f'{Path(file).parent}'

    cluster.shell(f'truncate -s -1 {file}')
    third, called = _run(cluster_profile, model)
    assert called == ['SinglePointCalculation', 'StageModelCalculation', 'SinglePointCalculation']
    assert third.outputs.results.energies == pytest.approx(first.outputs.results.energies, abs=0)
    newest = find_staged(model, cluster_profile.computer)
    assert newest.pk != copy.pk

    with environment(HOME=str(cluster.home)):
        result = CliRunner().invoke(main, ['models', 'unstage', str(model.pk), '-p', cluster_profile.profile.name])
    assert result.exit_code == 0, result.output
    assert list_staged(model) == []
    assert _copies(cluster) == of_others
    assert cluster.shell(f'ls {second.called[0].get_remote_workdir()}/results.json').strip()
