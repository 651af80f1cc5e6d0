"""Parsing: every way in which a job can end has its own exit code, and partial results are always stored."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from aiida_mlpotential.calculations.single_point import SinglePointCalculation

CODES = SinglePointCalculation.exit_codes


def test_a_complete_job_gives_all_outputs(parse):
    results, node = parse()
    assert node.exit_status in (None, 0)
    assert set(results) == {'results', 'output_parameters'}
    assert results['output_parameters']['n_ok'] == 3
    assert results['output_parameters']['model_name'] == 'EMT'


def test_no_results_file_quotes_the_last_words(parse, work_directory):
    (work_directory / 'results.json').unlink()
    (work_directory / 'worker.err').write_text('Traceback\nbash: python: command not found\n')
    results, node = parse()
    assert node.exit_status == CODES.ERROR_RESULTS_MISSING.status
    assert 'command not found' in node.exit_message
    assert results == {}


@pytest.mark.parametrize('text', ['', '{"state": "fin', '[]', '{"state": "finished"}'])
def test_a_broken_results_file(parse, work_directory, text):
    (work_directory / 'results.json').write_text(text)
    _, node = parse()
    assert node.exit_status == CODES.ERROR_RESULTS_INVALID.status


def test_where_nobody_left_a_word_the_likely_causes_are_named(parse, work_directory):
    for name in ('results.json', 'worker.err'):
        (work_directory / name).unlink()
    _, node = parse()
    assert node.exit_status == CODES.ERROR_RESULTS_MISSING.status
    assert 'the disk of the work directory has no room at all' in node.exit_message


@pytest.mark.parametrize('key', ['format_version', 'results_version'])
def test_results_of_a_newer_worker(parse, change_info, key):
    change_info(**{key: 99})
    outputs, node = parse()
    assert node.exit_status == CODES.ERROR_RESULTS_VERSION.status
    assert f'{key} 99, this plugin reads up to' in node.exit_message and 'update' in node.exit_message
    assert 'results' not in outputs


def test_a_newer_worker_that_computed_nothing_says_what_to_do(parse, change_info):
    error = {'label': 'ERROR_RESULTS_VERSION', 'message': 'install the same version on both sides'}
    change_info(results_version=99, state='failed', error=error, counts=None)
    _, node = parse()
    assert node.exit_status == CODES.ERROR_RESULTS_VERSION.status
    assert 'install the same version on both sides' in node.exit_message


def test_results_of_a_newer_worker_that_complains_itself_are_not_read(parse, change_info):
    error = {'label': 'ERROR_RESULTS_VERSION', 'message': 'install the same version on both sides'}
    change_info(results_version=99, state='failed', error=error)
    outputs, node = parse()
    assert 'results_version 99, this plugin reads up to' in node.exit_message
    assert 'results' not in outputs


def test_parsing_again_does_not_take_the_earlier_outcome_for_the_verdict_of_the_scheduler(parse, work_directory):
    (work_directory / 'arrays' / 'energies.npy').write_bytes(b'')
    _, node = parse(exit_status=CODES.ERROR_RESULTS_VERSION.status)
    assert node.exit_status == CODES.ERROR_RESULTS_INVALID.status
    assert CODES.ERROR_RESULTS_VERSION.message[:20] not in node.exit_message


@pytest.mark.parametrize('name', ['energies', 'forces', 'status', 'offsets'])
def test_an_array_that_was_cut_short(parse, work_directory, name):
    path = work_directory / 'arrays' / f'{name}.npy'
    path.write_bytes(path.read_bytes()[:-3])
    results, node = parse()
    assert node.exit_status == CODES.ERROR_RESULTS_INVALID.status
    assert name in node.exit_message
    assert 'results' not in results
    assert results['output_parameters']['model_name'] == 'EMT'


def test_some_structures_failed(parse, change_info, change_status):
    change_info(messages={'1': 'contains Xx'})
    change_status([0, 2, 0])
    results, node = parse()
    assert node.exit_status == CODES.ERROR_SOME_STRUCTURES_FAILED.status
    assert '1 of 3; two: UNSUPPORTED_ELEMENT, contains Xx' in node.exit_message
    assert results['output_parameters']['failures'] == [
        {'index': 1, 'label': 'two', 'status': 'UNSUPPORTED_ELEMENT', 'message': 'contains Xx'}
    ]


def test_all_structures_failed(parse, change_status):
    change_status([5, 2, 4])
    _, node = parse()
    assert node.exit_status == CODES.ERROR_ALL_STRUCTURES_FAILED.status


def test_a_job_that_was_killed_half_way_keeps_what_it_has(parse, change_info, change_status):
    change_info(state='running', counts=None)
    change_status([0, 1, 1])
    results, node = parse()
    assert node.exit_status == CODES.ERROR_INCOMPLETE.status
    assert '1 of 3 structures were done' in node.exit_message
    assert np.isfinite(results['results'].energies[0])
    assert results['output_parameters']['n_pending'] == 2


def test_a_job_that_was_killed_before_the_first_structure(parse, change_info, change_status, work_directory):
    change_info(state='running', counts=None)
    change_status([1, 1, 1])
    (work_directory / 'worker.err').write_text('Killed\n')
    _, node = parse()
    assert node.exit_status == CODES.ERROR_WORKER_KILLED.status
    assert 'Killed' in node.exit_message


def test_a_job_that_was_killed_while_it_loaded_the_model(parse, change_info, work_directory):
    change_info(state='starting', counts=None)
    shutil.rmtree(work_directory / 'arrays')
    _, node = parse()
    assert node.exit_status == CODES.ERROR_WORKER_KILLED.status


@pytest.mark.parametrize('label', ['ERROR_DEVICE_MISSING', 'ERROR_DISK_FULL', 'ERROR_MODEL_HASH'])
def test_an_error_of_the_worker_becomes_the_exit_code(parse, change_info, label):
    change_info(state='failed', error={'label': label, 'message': 'the cause'})
    results, node = parse()
    assert node.exit_status == CODES[label].status
    assert 'the cause' in node.exit_message
    assert 'results' in results


def test_an_error_that_nobody_knows_is_an_exception_of_the_worker(parse, change_info):
    change_info(state='failed', error={'label': 'ERROR_FROM_THE_FUTURE', 'message': 'the cause'})
    _, node = parse()
    assert node.exit_status == CODES.ERROR_WORKER_EXCEPTION.status


@pytest.mark.parametrize('status', [110, 120, 140])
def test_the_verdict_of_the_scheduler_is_kept(parse, change_info, change_status, status):
    change_info(state='running', counts=None)
    change_status([0, 0, 1])
    results, node = parse(exit_status=status)
    assert node.exit_status == status
    assert 'the scheduler says so' in node.exit_message
    assert results['output_parameters']['n_ok'] == 2


def test_the_verdict_of_the_scheduler_is_kept_without_results(parse, work_directory):
    (work_directory / 'results.json').unlink()
    _, node = parse(exit_status=110)
    assert node.exit_status == 110


def test_results_of_another_job_are_refused(parse, change_info):
    change_info(fingerprint='f' * 64)
    results, node = parse()
    assert node.exit_status == CODES.ERROR_RESULTS_INVALID.status
    assert 'another job' in node.exit_message
    assert 'results' not in results


def test_results_for_other_structures_are_refused(parse, work_directory):
    for path in (work_directory / 'arrays').glob('*.npy'):
        array = np.load(path)
        short = {'offsets': array[:3], 'forces': array[:3]}.get(path.stem, array[:2])
        np.save(path, short)
    _, node = parse()
    assert node.exit_status == CODES.ERROR_RESULTS_INVALID.status
    assert 'for 2 structures, the job has 3' in node.exit_message


def test_a_good_status_without_a_number_is_refused(parse, work_directory):
    np.save(work_directory / 'arrays' / 'energies.npy', np.array([1.0, np.nan, 2.0]))
    _, node = parse()
    assert node.exit_status == CODES.ERROR_RESULTS_INVALID.status


def test_messages_of_any_encoding_are_quoted(parse, work_directory):
    (work_directory / 'results.json').unlink()
    (work_directory / 'worker.err').write_bytes(b'python: commande introuv\xe9e')
    _, node = parse()
    assert node.exit_status == CODES.ERROR_RESULTS_MISSING.status
    assert 'commande introuv' in node.exit_message


def test_a_job_that_was_asked_to_stop_says_so(parse, change_info, change_status):
    change_info(state='stopped')
    change_status([0, 1, 1])
    _, node = parse()
    assert node.exit_status == CODES.ERROR_INCOMPLETE.status
    assert 'asked to stop after 1 of 3' in node.exit_message
    change_status([1, 1, 1])
    _, node = parse()
    assert node.exit_status == CODES.ERROR_INCOMPLETE.status
    assert 'asked to stop after 0 of 3' in node.exit_message


@pytest.mark.parametrize(
    'changes',
    [
        {'error': 'boom'},
        {'error': {'label': ['x'], 'message': 'y'}},
        {'model': []},
        {'units': 5},
        {'messages': {'first': 'x'}},
        {'timings': {'total': 'soon'}},
        {'notes': 'one'},
        {'state': 'dancing'},
        {'counts': '3'},
    ],
)
def test_a_results_file_of_wrong_types_is_refused(parse, change_info, changes):
    change_info(**changes)
    _, node = parse()
    assert node.exit_status == CODES.ERROR_RESULTS_INVALID.status
