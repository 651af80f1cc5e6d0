"""What others see of our processes: ``verdi process dump``, ``verdi node graph generate``, links and caller."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from aiida import orm
from aiida.cmdline.commands.cmd_verdi import verdi
from aiida.engine import run_get_node
from aiida.tools.visualization import Graph
from ase.build import bulk
from click.testing import CliRunner
from real_servers import require

from aiida_mlpotential.calculations.single_point import SinglePointCalculation
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.workflows.tasks import SinglePointBaseWorkChain


@pytest.fixture
def verdi_command(aiida_profile_clean, tmp_path, monkeypatch):
    """Return a function that runs ``verdi`` in this process, in the loaded test profile and an empty directory."""
    monkeypatch.chdir(tmp_path)

    def function(*arguments):
        result = CliRunner().invoke(verdi, ['-p', aiida_profile_clean.name, *map(str, arguments)])
        assert result.exit_code == 0, result.output
        return result.output

    return function


@pytest.fixture
def inputs(aiida_profile_clean, python_code, emt_model):
    """Return the inputs of a single point of a slice."""
    structures = StructureSetData.from_ase([bulk('Cu', a=a) for a in (3.5, 3.6, 3.7)]).store()
    return {
        'code': python_code,
        'model': emt_model,
        'structures': structures,
        'selection': orm.Dict({'start': 1, 'stop': 3}),
    }


def _one(folder: Path, pattern: str) -> Path:
    found = list(folder.rglob(pattern))
    assert len(found) == 1, (pattern, found, sorted(folder.rglob('*')))
    return found[0]


@pytest.mark.slow
def test_dump_of_a_job_holds_all_that_it_took_and_gave(inputs, verdi_command, tmp_path):
    """In files that can be read without AiiDA and without this package."""
    _, node = run_get_node(SinglePointCalculation, **inputs)
    verdi_command('process', 'dump', node.pk, '--path', tmp_path / 'dump', '--include-outputs')
    job = json.loads(_one(tmp_path / 'dump' / 'inputs', 'job.json').read_text())
    assert job['task'] == 'single_point'
    assert job['model']['sha256'] == inputs['model'].sha256
    info = json.loads(_one(tmp_path / 'dump' / 'outputs', 'results.json').read_text())
    assert info['state'] == 'finished'
    energies = np.load(_one(tmp_path / 'dump' / 'outputs', 'energies.npy'))
    np.testing.assert_array_equal(energies, node.outputs.results.energies)
    positions = np.load(_one(tmp_path / 'dump' / 'node_inputs', 'structures.npz'))['positions']
    np.testing.assert_array_equal(positions, inputs['structures'].get_frames().positions)
    assert _one(tmp_path / 'dump' / 'node_outputs', 'energies.npy').read_bytes() == (
        node.outputs.results.base.repository.get_object_content('energies.npy', mode='rb')
    )
    metadata = _one(tmp_path / 'dump', '*aiida_node_metadata.yaml').read_text()
    assert node.uuid in metadata
    assert 'SinglePointCalculation' in metadata


@pytest.mark.slow
def test_dump_of_a_workflow_has_a_folder_for_every_job(inputs, verdi_command, tmp_path):
    _, chain = run_get_node(SinglePointBaseWorkChain, calc=inputs)
    assert chain.is_finished_ok, chain.exit_message
    verdi_command('process', 'dump', chain.pk, '--path', tmp_path / 'dump')
    (job,) = chain.called
    folder = _one(tmp_path / 'dump', f'*SinglePointCalculation-{job.pk}')
    np.testing.assert_array_equal(np.load(_one(folder, 'energies.npy')), job.outputs.results.energies)


@pytest.mark.slow
def test_graph_shows_what_a_result_was_made_of(inputs):
    """Model, set of structures, selection and code lead to the job, the job to its results, each with a description."""
    _, node = run_get_node(SinglePointCalculation, **inputs)
    graph = Graph()
    graph.recurse_ancestors(node)
    graph.recurse_descendants(node)
    text = graph.graphviz.source  # what `verdi node graph generate` hands to the program dot
    for line in (inputs['model'].get_description(), inputs['structures'].get_description()):
        assert line.split(':')[0] in text, line
    for name in ('model', 'structures', 'selection', 'code'):
        assert f'N{node.inputs[name].pk} -> N{node.pk}' in text, name
    for name in ('results', 'output_parameters', 'retrieved', 'remote_folder'):
        assert f'N{node.pk} -> N{node.outputs[name].pk}' in text, name
    assert 'State: finished' in text


@pytest.mark.servers
def test_graph_can_be_drawn(inputs, verdi_command, tmp_path):
    """Of a workflow with its calls, as a picture."""
    require('drawing')
    _, chain = run_get_node(SinglePointBaseWorkChain, calc=inputs)
    verdi_command('node', 'graph', 'generate', chain.pk, '-f', 'svg', '-O', 'graph.svg')
    text = Path('graph.svg').read_text()
    assert text.count('SinglePointCalculation') == 1
    assert 'CALL' in text


@pytest.mark.slow
def test_results_lead_back_to_their_structures(inputs, verdi_command):
    """By links alone, and shown by ``verdi`` in one line each."""
    _, node = run_get_node(SinglePointCalculation, **inputs)
    results = node.outputs.results
    assert results.get_structures_node().uuid == inputs['structures'].uuid
    assert len(results.get_structures()) == 2
    for item in (results, inputs['structures'], inputs['model']):
        assert '\n' not in item.get_description()
    assert f'{results.pk}' in verdi_command('process', 'show', node.pk)
