"""The table of results: which columns there are, how many rows, and what a failure looks like."""

from __future__ import annotations

import io

import click
import numpy as np
import pytest
from aiida import orm
from aiida.engine import ProcessState
from ase.build import molecule

from aiida_mlpotential.cli import reports
from aiida_mlpotential.cli.progress import Step, Steps
from aiida_mlpotential.data.frame_result import FrameResult
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.worker.errors import EXIT_CODES, FrameStatus


class ResultsData:
    """As much of a results node as a table needs."""

    pk = 7

    def __init__(self, frames: list[FrameResult], **attributes: float) -> None:
        self.frames = frames
        self.n_failed = sum(frame.status > FrameStatus.PENDING for frame in frames)
        self.n_pending = sum(frame.status == FrameStatus.PENDING for frame in frames)
        self.n_ok = len(frames) - self.n_failed - self.n_pending
        self.all = {'units': {'energies': 'eV', 'forces': 'eV/angstrom'}, **attributes}
        self.base = self.attributes = self

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def status(self) -> np.ndarray:
        return np.array([int(frame.status) for frame in self.frames])

    @property
    def qbc(self) -> np.ndarray:
        return np.array([np.nan if frame.qbc is None else frame.qbc for frame in self.frames])

    def frame(self, index: int) -> FrameResult:
        return self.frames[index]


def _structures(number: int, labelled: bool = False) -> StructureSetData:
    labels = [f'name-{index}' for index in range(number)] if labelled else ()
    return StructureSetData.from_ase([molecule('H2O') for _ in range(number)], labels)


def test_columns_are_those_that_have_something(aiida_profile) -> None:
    """A model without members, asked for energies alone, has a short table."""
    frames = [FrameResult(index, FrameStatus.OK, '', 3, energy=-1.5) for index in range(2)]
    results = ResultsData(frames, energy_min=-1.5, energy_max=-1.5)
    header, _, first, *_ = reports.format_results(results, _structures(2)).strip().splitlines()
    assert header.split() == ['#', 'formula', 'energy', '(eV)', 'status']
    assert first.split() == ['0', 'H2O', '-1.500000', 'OK']


def test_ensemble_labels_and_failures(aiida_profile) -> None:
    """Spread in meV, labels, and the message of a structure that failed."""
    forces = np.array([[0.0, 3.0, 4.0], [0, 0, 0], [0, 0, 0]])
    frames = [
        FrameResult(0, FrameStatus.OK, '', 3, energy=-1.5, energy_std=0.0012, qbc=0.0007, forces=forces),
        FrameResult(1, FrameStatus.ATOM_ORDER, 'sort them, or set `reorder_atoms`', 3),
        FrameResult(2, FrameStatus.PENDING, '', 3),
    ]
    results = ResultsData(frames, energy_min=-1.5, energy_max=-1.5, energy_std_mean=0.0012, energy_std_max=0.0012)
    text = reports.format_results(results, _structures(3, labelled=True))
    lines = text.strip().splitlines()
    assert lines[2].split() == ['0', 'name-0', 'H2O', '-1.500000', '1.200', '0.700', '5.0000', 'OK']
    assert lines[3].split()[:3] == ['1', 'name-1', 'H2O']
    assert lines[3].endswith('ATOM_ORDER')
    assert lines[6] == '#1 name-1: ATOM_ORDER: sort them, or add --reorder-atoms'
    assert not any(line.startswith('#2') for line in lines)  # one that was not reached did not fail
    assert '1 of 3 structures evaluated, 1 failed, 1 not reached.' in text
    assert 'ResultsData<7>: energies, forces.' in text


def test_failures_beyond_the_table_are_listed(aiida_profile) -> None:
    """A failed structure is named wherever it stands, and many of them are counted."""
    good = [FrameResult(index, FrameStatus.OK, '', 3, energy=-1.0) for index in range(25)]
    bad = FrameResult(25, FrameStatus.ATOMS_TOO_CLOSE, 'atoms 0 and 1 are close', 3)
    text = reports.format_rows(ResultsData([*good, bad]), _structures(26), [{'status': 'OK'}] * reports.MAX_ROWS)
    assert text.endswith('... and 6 more\n\n#25: ATOMS_TOO_CLOSE: atoms 0 and 1 are close')
    lines = reports.failure_lines(ResultsData([bad] * 23), _structures(23))
    assert len(lines) == reports.MAX_ROWS + 2
    assert lines[-1] == '... and 3 more failed'


def test_many_arrays_are_counted(aiida_profile) -> None:
    """Thermochemistry has forty arrays: the first are named, the others counted."""
    results = ResultsData([])
    results.all['units'] = {f'array_{index}': 'eV' for index in range(reports.MAX_NAMES + 3)}
    text = reports.where(results)
    assert f'array_{reports.MAX_NAMES - 1}, ... and 3 more.' in text
    assert f'array_{reports.MAX_NAMES},' not in text


def test_summary_of_many(aiida_profile) -> None:
    """At most twenty rows, and the extremes of all."""
    frames = [
        FrameResult(index, FrameStatus.OK, '', 3, energy=-1.0, energy_std=0.001, qbc=0.001) for index in range(23)
    ]
    results = ResultsData(frames, energy_min=-2.0, energy_max=-1.0, energy_std_mean=0.001, energy_std_max=0.002)
    text = reports.format_results(results, _structures(23))
    assert '... and 3 more' in text
    assert text.count('H2O') == reports.MAX_ROWS
    assert 'energies from -2.000000 to -1.000000 eV; std 1.000 meV on average, 2.000 meV at most' in text


def _node(computer: orm.Computer, state: ProcessState, status: int | None, message: str) -> orm.CalcJobNode:
    node = orm.CalcJobNode(computer=computer)
    node.set_process_label('SinglePointCalculation')
    node.set_process_state(state)
    if status is not None:
        node.set_exit_status(status)
        node.set_exit_message(message)
    return node.store()


def test_success_says_nothing(localhost: orm.Computer) -> None:
    """A calculation that finished with 0 raises nothing."""
    assert reports.fail_unless_finished(_node(localhost, ProcessState.FINISHED, 0, '')) is None


@pytest.mark.parametrize(
    ('state', 'status', 'expected'),
    [
        (ProcessState.FINISHED, 330, 'failed (exit code 330): no torch'),
        (ProcessState.KILLED, None, 'failed (killed): there is no message'),
    ],
)
def test_failure_has_its_message(localhost: orm.Computer, state, status: int | None, expected: str) -> None:
    """The exit message is the error of the command, with the command that shows more."""
    node = _node(localhost, state, status, 'no torch')
    with pytest.raises(click.ClickException) as caught:
        reports.fail_unless_finished(node)
    assert caught.value.exit_code == 1
    assert expected in caught.value.message
    assert f'`verdi process report {node.pk}`' in caught.value.message


def test_outcome_of_a_step(localhost: orm.Computer, monkeypatch) -> None:
    """The progress line of a calculation says how it ended: well, in part or not at all."""
    partial = ResultsData([FrameResult(0, FrameStatus.OK, '', 3), FrameResult(1, FrameStatus.EMPTY, '', 0)])
    cases = (
        (0, None, 'good', ' finished'),
        (301, None, 'failed', ' failed'),
        (401, ResultsData([FrameResult(0, FrameStatus.EMPTY, '', 0)]), 'failed', ' failed'),
        (400, partial, 'partial', ', 1 of 2 evaluated, 1 failed'),
    )
    for status, results, state, words in cases:
        monkeypatch.setattr(reports, '_results_of', lambda _, results=results: results)
        node = _node(localhost, ProcessState.FINISHED, status, '')
        step = Step('Calculation', Steps(io.StringIO()))
        reports.show_outcome(step, node)
        assert step.state == state
        assert step.result == f'SinglePointCalculation<{node.pk}>{words}'


def test_failures_are_not_said_twice(localhost: orm.Computer, monkeypatch) -> None:
    """What is listed is no error message too, unless the list leaves failures out."""
    frames = [FrameResult(0, FrameStatus.OK, '', 3), FrameResult(1, FrameStatus.EMPTY, '', 0)]
    node = _node(localhost, ProcessState.FINISHED, 400, 'Some structures failed')
    monkeypatch.setattr(reports, '_results_of', lambda _: ResultsData(frames))
    with pytest.raises(click.exceptions.Exit) as caught:
        reports.fail_unless_finished(node)
    assert caught.value.exit_code == 1
    monkeypatch.setattr(reports, '_results_of', lambda _: ResultsData(frames * (reports.MAX_ROWS + 1)))
    with pytest.raises(click.ClickException, match='Some structures failed'):
        reports.fail_unless_finished(node)


def test_remedies_are_those_of_the_command_line(localhost: orm.Computer, monkeypatch) -> None:
    """An early end is continued with an option, not with an input, and a missing GPU has an option too."""
    results = ResultsData([FrameResult(0, FrameStatus.OK, '', 3), FrameResult(1, FrameStatus.PENDING, '', 3)])
    monkeypatch.setattr(reports, '_results_of', lambda _: results)
    (template,) = [code.message for code in EXIT_CODES if code.label == 'ERROR_INCOMPLETE']
    node = _node(localhost, ProcessState.FINISHED, 402, template.format(detail='1 of 2'))
    with pytest.raises(click.ClickException) as caught:
        reports.fail_unless_finished(node)
    assert f'`aiida-mlpotential launch single-point --continue {node.pk}`' in caught.value.message
    assert 'parent_folder' not in caught.value.message
    node = _node(localhost, ProcessState.FINISHED, 340, 'ask the scheduler for one, or set device_fallback')
    with pytest.raises(click.ClickException, match='or add --device-fallback'):
        reports.fail_unless_finished(node)


@pytest.mark.parametrize(('spread', 'warned'), [(0.0099, 0), (0.0101, 1)])
def test_uncertain_structures_are_counted(aiida_profile, spread: float, warned: int) -> None:
    """Above 0.010 eV for the square root of the atoms a line points to the explanation."""
    frames = [FrameResult(0, FrameStatus.OK, '', 3, energy=-1.0, energy_std=0.1, qbc=spread)]
    text = reports.summarise(ResultsData(frames))
    assert text.count('1 structure with std/√atoms above 10 meV') == warned
    assert '1 of 1 structure evaluated.' in text


def test_large_spread_is_in_electronvolt(aiida_profile) -> None:
    """A spread of electronvolts is not shown as thousands of millielectronvolts."""
    frames = [FrameResult(index, FrameStatus.OK, '', 3, energy=-1.0, energy_std=2.5, qbc=1.25) for index in range(2)]
    results = ResultsData(frames, energy_min=-1.0, energy_max=-1.0, energy_std_mean=2.5, energy_std_max=2.5)
    text = reports.format_results(results, _structures(2))
    assert 'std (eV)' in text
    assert '2.500' in text
    assert 'std 2.500 eV on average' in text
    assert 'meV)' not in text


def test_trust_is_said_before_a_launch(emt, capsys) -> None:
    """Whose files may run code is named, with the reason; of others nothing is said."""
    reports.warn_of_trust(emt)
    assert capsys.readouterr().out == ''
    model = emt.clone()
    model.base.attributes.set_many({'trusted': True, 'trust_reason': 'it is a pickle'})
    reports.warn_of_trust(model)
    assert capsys.readouterr().out == (
        'Note: EMT is trusted, its files may run code on the computer of the job: it is a pickle.\n'
    )
