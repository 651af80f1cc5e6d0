"""Base restart workflows with real jobs to which things happen: one calculation, run as often as it takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from aiida import orm
from aiida.cmdline.utils.common import get_workchain_report
from aiida.engine import run_get_node
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.optimize import BFGS

from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.library import get_model
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.schema import STOP_FILE
from aiida_mlpotential.workflows.tasks import GeometryOptimizationBaseWorkChain, SinglePointBaseWorkChain

pytestmark = pytest.mark.slow

CODES = SinglePointBaseWorkChain.exit_codes
INJECTED = Path(__file__).parent / 'injected'
CUDA = 'CUDA error: device-side assert triggered'


def _atoms():
    return [bulk('Cu') * (n, 1, 1) for n in (1, 2, 3, 4)]


def _clusters(number=3):
    generator = np.random.default_rng(1)
    square = np.array([[0, 0, 0], [2.4, 0, 0], [1.2, 2.1, 0], [1.2, 0.7, 2.0]])
    return [Atoms('Cu4', positions=square + generator.normal(scale=0.1, size=(4, 3))) for _ in range(number)]


def _jobs(node):
    return sorted(node.called, key=lambda job: job.pk)


def _statuses(node):
    return [job.exit_status for job in _jobs(node)]


def _parameters(node, name):
    return [job.inputs.parameters.get_dict().get(name) for job in _jobs(node)]


def _energies(frames):
    energies = []
    for atoms in frames:
        atoms.calc = EMT()
        energies.append(atoms.get_potential_energy())
    return energies


@pytest.fixture
def run(python_code, emt_model, aiida_profile):
    """Return a function that runs the workflow for some structures."""

    def function(chain, frames, parameters, model=emt_model, options=None, **inputs):
        structures = StructureSetData.from_ase(frames).store()
        overrides = {'calc': {'parameters': parameters}, **inputs}
        builder = chain.get_builder_from_protocol(python_code, model, structures, None, overrides, options)
        return run_get_node(builder)

    return function


@pytest.fixture
def scripted(run, tmp_path):
    """Return a function that runs single points, to whose workers happens what a script says, run by run."""

    def function(*lines, **inputs):
        script = tmp_path / 'script'
        script.write_text('\n'.join(lines))
        model = ModelData.from_ase_calculator('scripted_emt.ScriptedEMT', {'script': str(script)}, elements=['Cu'])
        options = {'prepend_text': f'export PYTHONPATH={INJECTED}'}
        outputs, node = run(SinglePointBaseWorkChain, _atoms(), {'batch_atoms': 1}, model.store(), options, **inputs)
        assert not script.read_text(), 'there were fewer runs than the script has lines'
        return outputs, node

    return function


def test_one_run_is_enough(run):
    outputs, node = run(SinglePointBaseWorkChain, _atoms(), {})
    assert node.is_finished_ok, node.exit_message
    assert _statuses(node) == [0]
    np.testing.assert_allclose(outputs['results'].energies, _energies(_atoms()), atol=1e-9)


def test_a_killed_and_a_stopped_worker_are_taken_up(scripted, run):
    """``kill -9``, then a scheduler's SIGTERM: nothing is computed twice, and the numbers are those of one run."""
    undisturbed, _ = run(SinglePointBaseWorkChain, _atoms(), {})
    outputs, node = scripted('kill 2', 'term 2', 'go')
    assert node.is_finished_ok, node.exit_message
    assert _statuses(node) == [402, 402, 0]
    assert [job.outputs.output_parameters['n_ok'] for job in _jobs(node)] == [1, 3, 4]
    assert np.array_equal(outputs['results'].energies, undisturbed['results'].energies)
    assert np.array_equal(outputs['results'].forces, undisturbed['results'].forces)


def test_without_progress_it_gives_up(scripted):
    """A worker that dies at once, again and again: also a smaller batch is tried, as memory may be the cause."""
    outputs, node = scripted('kill 1', 'kill 1', 'kill 1')
    assert node.exit_status == CODES.ERROR_WORKER_KILLED.status
    assert 'SinglePointCalculation' in node.exit_message and '3 runs in a row got nothing done' in node.exit_message
    assert outputs['results'].n_pending == 4


def test_too_little_memory_once(run, tmp_path):
    """The first run gets a limit that the libraries exceed; the next one has a smaller batch and the same results."""
    limit = f'if [ ! -f {tmp_path}/tried ]; then touch {tmp_path}/tried; ulimit -d 350000; fi'
    outputs, node = run(SinglePointBaseWorkChain, _atoms(), {'batch_atoms': 8}, options={'prepend_text': limit})
    assert node.is_finished_ok, node.exit_message
    assert _statuses(node) == [341, 0]
    assert _parameters(node, 'batch_atoms') == [8, 2]
    undisturbed, _ = run(SinglePointBaseWorkChain, _atoms(), {})
    for name in ('energies', 'forces'):
        assert np.array_equal(outputs['results'].get_array(name), undisturbed['results'].get_array(name))
    hashes = {item['results'].base.attributes.get('parameters_hash') for item in (outputs, undisturbed)}
    assert len(hashes) == 1, 'a smaller batch must not make other results of it'


def test_a_broken_gpu_is_tried_again_and_then_left(scripted):
    outputs, node = scripted(f'raise 2 {CUDA}', f'raise 1 {CUDA}', 'go')
    assert node.is_finished_ok, node.exit_message
    assert _statuses(node) == [343, 343, 0]
    assert _parameters(node, 'device') == [None, None, 'cpu']
    assert outputs['results'].n_ok == 4


def test_a_broken_gpu_where_the_cpu_is_not_allowed(scripted):
    outputs, node = scripted(f'raise 2 {CUDA}', f'raise 2 {CUDA}', allow_cpu=False)
    assert node.exit_status == CODES.ERROR_DEVICE_FAILED.status
    assert CUDA in node.exit_message and 'the CPU is not allowed' in node.exit_message
    assert outputs['results'].n_ok == 2, 'what was done before is kept'


def test_bad_structures_are_reported_and_not_run_again(run):
    frames = [*_atoms(), Atoms('Cu2', positions=[[0, 0, 0], [0, 0, 0.1]])]
    outputs, node = run(SinglePointBaseWorkChain, frames, {})
    assert node.exit_status == CODES.ERROR_SOME_STRUCTURES_FAILED.status
    assert 'ATOMS_TOO_CLOSE' in node.exit_message
    assert 'ATOMS_TOO_CLOSE' in get_workchain_report(node, 'REPORT')
    assert _statuses(node) == [400]
    assert (outputs['results'].n_ok, outputs['results'].n_failed) == (4, 1)


def test_more_steps_are_enough(run):
    outputs, node = run(GeometryOptimizationBaseWorkChain, _clusters(), {'max_steps': 10, 'precision': 'double'})
    assert node.is_finished_ok, node.exit_message
    assert _statuses(node) == [410, 0]
    assert len(outputs['output_structures']) == 3


def test_what_does_not_converge_is_kept(run):
    """More steps, then FIRE, then the end; each run goes on from the geometries of the one before."""
    parameters = {'max_steps': 1, 'force_tolerance': 1e-6, 'precision': 'double'}
    outputs, node = run(GeometryOptimizationBaseWorkChain, _clusters(), parameters)
    assert node.exit_status == node.process_class.exit_codes.ERROR_NOT_CONVERGED.status
    assert _statuses(node) == [410, 410, 410]
    assert _parameters(node, 'optimizer') == ['LBFGS', 'LBFGS', 'FIRE']
    assert [set(job.outputs.results.get_array('steps').tolist()) for job in _jobs(node)] == [{1}, {2}, {3}]
    assert set(outputs['results'].status.tolist()) == {int(FrameStatus.NOT_CONVERGED)}
    assert len(outputs['output_structures']) == 3
    assert '3 still do not converge' in node.exit_message


def test_what_has_converged_is_not_touched_by_later_runs(run):
    """One structure after the other converges: in the first run, in the second, and with FIRE."""
    generator, rest = np.random.default_rng(2), _clusters(1)[0]
    rest.calc = EMT()
    BFGS(rest, logfile=None).run(fmax=1e-6)
    scales = (0, 0.005, 0.02, 0.04, 0.06, 0.1, 0.15, 0.3)
    frames = [rest.copy() for _ in scales]
    for atoms, scale in zip(frames, scales, strict=True):
        atoms.positions += generator.normal(scale=scale, size=(4, 3))
    parameters = {'max_steps': 4, 'force_tolerance': 0.01, 'precision': 'double'}
    outputs, node = run(GeometryOptimizationBaseWorkChain, frames, parameters)
    assert _parameters(node, 'optimizer') == ['LBFGS', 'LBFGS', 'FIRE']
    results = [job.outputs.results for job in _jobs(node)]
    done = [set(np.flatnonzero(item.status == FrameStatus.OK).tolist()) for item in results]
    assert set() < done[0] < done[1] <= done[2], 'the test should have structures that converge in different runs'
    sets = [job.outputs.output_structures for job in _jobs(node)]
    assert results[-1].uuid == outputs['results'].uuid
    for before, job in zip(done, _jobs(node)[1:], strict=False):
        kept = f'went on with the results of {len(before)} structures of an earlier run'
        assert kept in job.outputs.output_parameters['notes']
    for earlier, later in ((0, 1), (0, 2), (1, 2)):
        for index in done[earlier]:
            before, after = results[earlier].frame(index), results[later].frame(index)
            assert (before.energy, before.extra['steps']) == (after.energy, after.extra['steps'])
            assert np.array_equal(before.forces, after.forces)
            assert np.array_equal(sets[earlier].get_ase(index).positions, sets[later].get_ase(index).positions)
    for index in done[2]:
        found = sets[2].get_ase(index)
        assert _energies([found]) == pytest.approx([results[2].energies[index]], abs=1e-9)


@pytest.mark.parametrize(('precision', 'atol'), [('single', 1e-5), ('double', 1e-10)])
def test_another_batch_size_after_a_restart_changes_last_digits_only(
    python_code, shared_data, monkeypatch, precision, atol
):
    """What was done before is the same bit by bit; the rest differs by the order of sums, eV and eV/angstrom."""
    monkeypatch.setenv('AIIDA_MLPOTENTIAL_MODELS', str(shared_data / 'models' / 'torchani'))
    generator = np.random.default_rng(3)
    frames = [molecule(name) for name in ('CH3OH', 'H2O', 'C6H6', 'NH3', 'CH4', 'CH3CONH2', 'C5H5N', 'CO2')]
    for atoms in frames:
        atoms.positions += generator.normal(scale=0.05, size=atoms.positions.shape)
    structures, model = StructureSetData.from_ase(frames).store(), get_model('ANI-1ccx')

    def compute(batch_atoms, prepend_text='', **inputs):
        parameters = {'precision': precision, 'batch_atoms': batch_atoms}
        overrides = {'calc': {'parameters': parameters, **inputs}, 'max_iterations': 1}
        options = {'prepend_text': prepend_text}
        return run_get_node(
            SinglePointBaseWorkChain.get_builder_from_protocol(python_code, model, structures, None, overrides, options)
        )

    whole, _ = compute(1000)
    part, _ = compute(20, f'touch {STOP_FILE}')
    done = part['results'].status == FrameStatus.OK
    assert 0 < done.sum() < len(frames)
    rest, node = compute(3, parent_folder=part['remote_folder'])
    assert node.is_finished_ok, node.exit_message
    rows = np.repeat(done, np.diff(rest['results'].offsets))
    assert np.array_equal(rest['results'].energies[done], part['results'].energies[done])
    assert np.array_equal(rest['results'].forces[rows], part['results'].forces[rows])
    for name in ('energies', 'forces', 'member_energies'):
        found, expected = rest['results'].get_array(name), whole['results'].get_array(name)
        np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def test_the_last_iteration_says_why(scripted):
    outputs, node = scripted('kill 3', max_iterations=1)
    assert node.exit_status == CODES.ERROR_MAXIMUM_ITERATIONS_EXCEEDED.status
    assert 'SinglePointCalculation' in node.exit_message and '[402]' in node.exit_message
    assert outputs['results'].n_ok == 2


def test_what_can_be_known_to_be_wrong_is_refused_at_once(run):
    with pytest.raises(ValueError, match='unknown key'):
        run(SinglePointBaseWorkChain, _atoms(), {'cutoff': 5})


def test_inputs_of_the_calculation_are_those_of_its_namespace():
    ports = SinglePointBaseWorkChain.spec().inputs['calc']
    assert {'code', 'model', 'structure', 'structures', 'selection', 'parameters', 'parent_folder'} <= set(ports)
    outputs = SinglePointBaseWorkChain.spec().outputs
    assert {'results', 'output_parameters', 'remote_folder', 'retrieved'} <= set(outputs)
    assert isinstance(SinglePointBaseWorkChain.spec().inputs['max_iterations'].default(), orm.Int)
