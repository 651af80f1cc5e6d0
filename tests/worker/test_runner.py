"""A whole job in the worker: whatever happens ends in the results file, and no structure costs another."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import signal
import time

import numpy as np
import pytest
from ase.calculators.emt import EMT
from waiting import wait_for

from aiida_mlpotential.worker import runner, storage
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.runner import model_notes, versions
from aiida_mlpotential.worker.schema import FRAMES_FILE, JobSpec, ModelSpec


def _expected(frames: Frames) -> np.ndarray:
    energies = []
    for atoms in frames:
        atoms.calc = EMT()
        energies.append(atoms.get_potential_energy())
    return np.array(energies)


def test_the_numbers_are_those_of_the_calculator(job):
    info = job.run(properties=['energy', 'forces', 'stress'])
    assert info['state'] == 'finished'
    assert info['counts'] == {'total': 7, 'ok': 7, 'failed': 0, 'pending': 0}
    np.testing.assert_allclose(job.array('energies'), _expected(job.frames), atol=1e-12)
    last = job.frames.to_ase(6)
    last.calc = EMT()
    np.testing.assert_allclose(job.array('forces')[job.frames.offsets[6] :], last.get_forces(), atol=1e-12)
    np.testing.assert_allclose(job.array('stress')[6], last.get_stress(voigt=False), atol=1e-12)


def test_what_made_the_numbers_is_recorded(job):
    info = job.run(num_threads=1)
    assert info['versions'].keys() >= {'python', 'numpy', 'ase'}
    assert info['worker_command']
    assert info['timings'].keys() == {'load', 'evaluate', 'total'}
    assert info['units'] == {'energies': 'eV', 'forces': 'eV/angstrom'}
    assert info['peak_memory_mb'] > 10
    assert (info['device'], info['num_threads'], info['precision']) == ('cpu', 1, 'double')
    assert 'Energy' in (job.directory / 'mlpotential.txt').read_text()


def test_a_bad_structure_costs_no_other(job):
    positions = job.frames.positions.copy()
    positions[job.frames.offsets[2]] = np.nan
    numbers = job.frames.numbers.copy()
    numbers[job.frames.offsets[4]] = 14
    job.frames = dataclasses.replace(job.frames, positions=positions, numbers=numbers)
    info = job.run()
    assert info['counts'] == {'total': 7, 'ok': 5, 'failed': 2, 'pending': 0}
    status = job.array('status')
    assert status[2] == FrameStatus.NON_FINITE_INPUT
    assert status[4] == FrameStatus.UNSUPPORTED_ELEMENT
    assert info['messages'].keys() == {'2', '4'}
    assert np.isnan(job.array('energies')[[2, 4]]).all()
    assert np.isfinite(job.array('energies')[[0, 1, 3, 5, 6]]).all()


def _fail(job, change=None, **parameters):
    spec = job.write(**parameters)
    if change:
        spec = change(job, spec)
    assert runner.run_job(lambda: spec, job.directory) is False
    info = job.info()
    assert info['state'] == 'failed'
    assert 'Traceback' in info['error']['traceback']
    return info['error']


def _model(**changes):
    return lambda _job, spec: dataclasses.replace(spec, model=dataclasses.replace(spec.model, **changes))


def _file(name, content, sha256=None):
    def change(job, spec):
        (job.directory / 'model').mkdir()
        if content is not None:
            (job.directory / name).write_bytes(content)
        return dataclasses.replace(spec, model=dataclasses.replace(spec.model, files={name: sha256 or 'e' * 64}))

    return change


def _damage(job, spec):
    path = job.directory / FRAMES_FILE
    path.write_bytes(path.read_bytes()[:100])
    return spec


def _no_frames(job, spec):
    (job.directory / FRAMES_FILE).unlink()
    return spec


def _not_frames(job, spec):
    (job.directory / FRAMES_FILE).write_bytes(b'no zip')
    return dataclasses.replace(spec, frames_sha256=runner.sha256_of(b'no zip'))


@pytest.mark.parametrize(
    ('change', 'label', 'text'),
    [
        (lambda _j, s: dataclasses.replace(s, task='dance'), 'ERROR_JOB_INVALID', 'single_point'),
        (lambda _j, s: dataclasses.replace(s, results_version=99), 'ERROR_RESULTS_VERSION', 'same version'),
        (_model(backend='abacus'), 'ERROR_MODEL_UNSUPPORTED', 'ase'),
        (_model(options={'calculator': 'os.system'}), 'ERROR_MODEL_UNSUPPORTED', 'not the class of an ASE calculator'),
        (_model(options={'calculator': 'nowhere.Calc'}), 'ERROR_BACKEND_MISSING', 'install'),
        (_file('model/x.pt', None), 'ERROR_MODEL_MISSING', 'model/x.pt'),
        (_file('model/x.pt', b'cut'), 'ERROR_MODEL_HASH', 'sha256'),
        (_damage, 'ERROR_STRUCTURES_INVALID', 'not the file that was sent'),
        (_no_frames, 'ERROR_STRUCTURES_INVALID', 'missing'),
        (_not_frames, 'ERROR_STRUCTURES_INVALID', 'not a set of frames'),
    ],
)
def test_an_unusable_job_says_why(job, change, label, text):
    error = _fail(job, change)
    assert error['label'] == label
    assert text in error['message']


def test_wrong_parameters_are_refused_here_too(job):
    assert _fail(job, precision='half')['label'] == 'ERROR_JOB_INVALID'


def test_a_property_that_the_backend_lacks_is_refused(job):
    error = _fail(job, properties=['forces_std'])
    assert error['label'] == 'ERROR_PROPERTY_UNAVAILABLE'


def test_a_memory_limit_that_leaves_no_room_is_refused(job):
    process = job.start(memory_limit=256, num_threads=1)
    process.communicate(timeout=60)
    error = job.info()['error']
    assert error['label'] == 'ERROR_OUT_OF_MEMORY'
    assert 'set memory_limit to that' in error['message']


def test_a_sufficient_memory_limit_changes_nothing(job):
    process = job.start(memory_limit=2000, num_threads=1)
    process.communicate(timeout=60)
    assert job.info()['counts']['ok'] == 7


def test_a_job_file_that_cannot_be_read_is_an_error_like_others(tmp_path):
    def read():
        return JobSpec.from_json('nonsense')

    assert runner.run_job(read, tmp_path) is False
    assert '"ERROR_JOB_INVALID"' in (tmp_path / 'results.json').read_text()


def test_a_full_disk_in_the_middle_keeps_what_was_done(job, monkeypatch):
    job.run()
    before = job.array('energies')
    shutil.rmtree(job.directory / 'arrays')
    calls = []

    def pwrite(*args):
        calls.append(args)
        if len(calls) > 7:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*args)

    original = os.pwrite
    monkeypatch.setattr(storage.os, 'pwrite', pwrite)
    error = _fail(job, batch_atoms=1)
    assert error['label'] == 'ERROR_DISK_FULL'
    done = job.array('status') == FrameStatus.OK
    assert 0 < done.sum() < 7
    np.testing.assert_array_equal(job.array('energies')[done], before[done])


def test_a_killed_job_goes_on_from_what_it_had(job, monkeypatch):
    complete = job.run()
    energies = job.array('energies')
    shutil.rmtree(job.directory / 'arrays')

    from aiida_mlpotential.worker.backends.ase import AseBackend

    original, seen = AseBackend.evaluate, []

    def evaluate(self, frames, request):
        seen.append(len(frames))
        if len(seen) == 4:
            raise KeyboardInterrupt  # as a kill: nothing is caught, nothing is cleaned up
        return original(self, frames, request)

    monkeypatch.setattr(AseBackend, 'evaluate', evaluate)
    with pytest.raises(KeyboardInterrupt):
        job.run(batch_atoms=1)
    assert job.info()['state'] == 'running'
    assert (job.array('status') == FrameStatus.OK).sum() == 3
    info = job.run(batch_atoms=2, num_threads=1)
    assert sum(seen[4:]) == 4
    assert info['counts'] == complete['counts']
    assert 'went on with the results of 3 structures' in info['notes'][0]
    np.testing.assert_array_equal(job.array('energies'), energies)


def test_results_of_another_job_are_not_taken_over(job):
    job.run()
    info = job.run(minimum_distance=0.1)
    assert info['notes'] == []


def test_not_even_when_a_job_between_the_two_never_started(job, copper):
    """The arrays of the first job must not be taken for those of the second, which failed before it wrote any."""
    job.run()
    job.frames = copper(7, seed=5)
    energies = _expected(job.frames)
    assert _fail(job, _model(options={'calculator': 'nowhere.Calc'}))['label'] == 'ERROR_BACKEND_MISSING'
    info = job.run()
    assert info['notes'] == []
    np.testing.assert_allclose(job.array('energies'), energies, atol=1e-12)


def test_going_on_from_structures_that_did_not_converge_is_not_beginning_anew(job):
    job.task = 'geometry_optimization'
    job.frames = job.frames.select(np.flatnonzero(job.frames.counts > 1))
    rattled = job.frames.positions + np.random.default_rng(1).normal(scale=0.05, size=job.frames.positions.shape)
    job.frames = dataclasses.replace(job.frames, positions=rattled)
    assert job.run(max_steps=1)['counts']['ok'] == 0
    before = job.array('steps')
    (job.directory / 'parent').mkdir()
    for name in ('arrays', 'checkpoint'):
        (job.directory / name).rename(job.directory / 'parent' / name)
    info = job.run(max_steps=1)
    assert job.array('steps').max() == before.max() + 1
    assert not [note for note in info['notes'] if 'began anew' in note]


def test_the_arrays_of_a_parent_are_taken_over(job):
    job.run()
    energies = job.array('energies')
    (job.directory / 'parent').mkdir()
    (job.directory / 'arrays').rename(job.directory / 'parent' / 'arrays')
    info = job.run(num_threads=1)
    assert 'went on with the results of 7 structures' in info['notes'][0]
    np.testing.assert_array_equal(job.array('energies'), energies)


def test_messages_survive_a_restart(job):
    numbers = job.frames.numbers.copy()
    numbers[job.frames.offsets[4]] = 14
    job.frames = dataclasses.replace(job.frames, numbers=numbers)
    first = job.run()
    second = job.run()
    assert 'went on with' in second['notes'][0]
    assert second['messages'] == first['messages']
    assert 'contains Si' in second['messages']['4']


def test_labels_of_any_script_do_no_harm(job):
    job.frames = dataclasses.replace(job.frames, labels=('λ', '\ud800', *'abcde'))
    environment = {'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}
    process = job.start(environment)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert job.info()['counts']['ok'] == 7


def test_a_sigterm_before_the_model_is_loaded_ends_in_order(long_job):
    process = long_job.start(batch_atoms=4)
    time.sleep(0.15)  # Python has started, numpy is being imported
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGTERM)  # the latter if the signal came before Python ran a line
    if process.returncode == 0:
        assert long_job.info()['state'] == 'stopped'


def test_sigterm_ends_the_job_in_order(long_job):
    process = long_job.start(batch_atoms=4)
    wait_for(lambda: long_job.n_ok() >= 10 or process.poll() is not None, what='10 frames')
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    info = long_job.info()
    assert info['state'] == 'stopped'
    assert 10 <= info['counts']['ok'] < 400
    assert info['counts']['pending'] == 400 - info['counts']['ok']
    assert any('SIGTERM' in note for note in info['notes'])


@pytest.mark.slow
def test_a_killed_process_leaves_valid_files(long_job):
    process = long_job.start(batch_atoms=4)
    wait_for(lambda: long_job.n_ok() >= 30 or process.poll() is not None, what='30 frames')
    process.kill()
    process.communicate()
    ok = long_job.array('status') == FrameStatus.OK
    assert 30 <= ok.sum() < 400
    assert np.isfinite(long_job.array('energies')[ok]).all()
    assert np.isnan(long_job.array('energies')[~ok]).all()
    again = long_job.start(batch_atoms=4)
    again.communicate(timeout=120)
    info = long_job.info()
    assert info['counts']['ok'] == 400
    assert f'went on with the results of {ok.sum()} structures' in info['notes'][0]


def test_units_that_nobody_stated_and_trust_are_noted():
    model = ModelSpec('mine', 'schnetpack', '0' * 64, energy_unit='kcal/mol', trusted=True)
    assumed = dataclasses.replace(model, units_from={'energy': 'default', 'distance': 'user'})
    assert model_notes(assumed) == [
        'the energy unit of mine, kcal/mol, was assumed: neither its file nor its importer said it',
        'the files of mine were trusted: code in them may have run',
    ]
    stated = dataclasses.replace(model, trusted=False, units_from={'energy': 'file', 'distance': 'user'})
    assert model_notes(stated) == []


def test_the_units_of_ase_are_no_assumption():
    model = ModelSpec('EMT', 'ase', '0' * 64, units_from={'energy': 'default', 'distance': 'default'})
    assert model_notes(model) == []


def test_versions_are_those_of_what_is_there():
    found = versions(('numpy', 'a-distribution-that-nobody-made'))
    assert found.keys() == {'python', 'numpy', 'ase'}


def test_the_summary_says_that_files_were_trusted(job):
    job.model = dataclasses.replace(job.model, trusted=True)
    info = job.run()
    assert info['model']['trusted'] is True
    assert 'Trusted                yes' in (job.directory / 'mlpotential.txt').read_text()


def test_elements_that_only_the_model_names_count(job, monkeypatch):
    monkeypatch.setattr('aiida_mlpotential.worker.backends.ase.AseBackend.elements', ('Al', 'Ni'))
    job.model = dataclasses.replace(job.model, elements=None)
    info = job.run()
    assert info['counts']['ok'] == 0
    assert info['messages']['0'] == 'contains Cu; the model knows Al, Ni'


def test_an_option_that_nobody_knows_ends_the_job(job):
    job.model = dataclasses.replace(job.model, options={**job.model.options, 'device_arg': 'cuda'})
    error = job.run()['error']
    assert error['label'] == 'ERROR_MODEL_UNSUPPORTED'
    assert "unknown option 'device_arg' of a model of ase; did you mean 'device_argument'?" in error['message']
