"""``watch``: a bar, slices by state and the time that is left, for processes in any state, until they end."""

from __future__ import annotations

import dataclasses
import re

import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import ProcessState, run_get_node
from ase.build import bulk

from aiida_mlpotential.calculations.single_point import SinglePointCalculation
from aiida_mlpotential.cli import watch
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.queries.progress import PLAN_EXTRA, Phase, Progress, SliceProgress


@pytest.fixture
def progress() -> Progress:
    """Return a screening that is on its way."""
    slices = [
        SliceProgress('single_point', 'ANI-2x', 1000, done, failed, phase, (1,))
        for done, failed, phase in (
            (1000, 0, Phase.DONE),
            (1000, 2, Phase.DONE),
            (300, 0, Phase.RUNNING),
            (0, 0, Phase.QUEUED),
            (500, 0, Phase.FAILED),
        )
    ]
    return Progress(
        pk=17,
        label='ScreeningWorkChain',
        state='waiting',
        exit_status=None,
        exit_message='',
        paused=False,
        slices=tuple(slices),
        plan={'structures': 20000, 'slices': 20},
        seconds=140.0,
    )


def test_lines_of_a_screening(progress: Progress) -> None:
    """Structures done of all, the rate, the time for the rest, and the slices that have not begun as queued."""
    lines = list(watch.format_progress(progress, 100))
    assert lines[0] == 'ScreeningWorkChain<17> waiting'
    assert lines[1].startswith(' 14%|')
    assert lines[1].endswith('| 2800/20000 structures, 2 min 20 s, 20/s, about 14 min 20 s left')
    assert len(lines[1]) == 100
    assert lines[2] == 'slices: 2 done, 1 running, 16 queued, 1 failed (of 20)'
    assert lines[3:] == ['structures that failed: 2']


def test_line_for_a_log(progress: Progress) -> None:
    """It says nothing of the time, so that it changes only when something has happened."""
    later = dataclasses.replace(progress, seconds=200.0)
    assert watch.one_line(progress) == watch.one_line(later)
    assert watch.one_line(progress) == (
        'ScreeningWorkChain<17> waiting: 2800 of 20000 structures, 2 failed; '
        'slices: 2 done, 1 running, 16 queued, 1 failed (of 20)'
    )


def test_parts_are_told_apart(progress: Progress) -> None:
    """Tasks and models, in the order in which they began; one alone is no part."""
    more = [
        SliceProgress('geometry_optimization', 'ANI-2x', 1000, 400, 0, Phase.RUNNING, (2,)),
        SliceProgress('single_point', 'ANI-1ccx', 1000, 0, 0, Phase.QUEUED, (3,)),
    ]
    lines = list(watch.format_progress(dataclasses.replace(progress, slices=(*progress.slices, *more)), 100))
    assert lines[-3:] == [
        '  single point with ANI-2x: 2800 of 5000',
        '  geometry optimization with ANI-2x: 400 of 1000',
        '  single point with ANI-1ccx: 0 of 1000',
    ]


def test_all_is_no_less_than_all(progress: Progress) -> None:
    """Rounded up, 100% would be reached before the end; afterwards there is no time left."""
    nearly = dataclasses.replace(progress, plan={'structures': 2801, 'reused_slices': 3}, slices=progress.slices[:3])
    nearly = dataclasses.replace(nearly, slices=(dataclasses.replace(nearly.slices[0], size=2801, done=2800),))
    lines = list(watch.format_progress(nearly, 100))
    assert lines[1].startswith(' 99%|')
    assert 'taken from the database: 3 slices' in lines
    one = dataclasses.replace(nearly, plan={**nearly.plan, 'reused_slices': 1})
    assert 'taken from the database: 1 slice' in list(watch.format_progress(one, 100))
    done = dataclasses.replace(nearly, slices=(dataclasses.replace(nearly.slices[0], done=2801),))
    assert 'all done, ending' in list(watch.format_progress(done, 100))[1]
    ended = dataclasses.replace(done, state='finished', exit_status=0)
    lines = list(watch.format_progress(ended, 100))
    assert lines[0] == 'ScreeningWorkChain<17> finished [0]'
    assert 'left' not in lines[1]


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [(0, '0 s'), (59.4, '59 s'), (60, '1 min'), (3661, '1 h 1 min'), (90000, '1 d 1 h'), (86405, '1 d 5 s')],
)
def test_times_are_said_in_two_units(seconds: float, text: str) -> None:
    """Nobody wants to know the seconds of a day's work."""
    assert watch.format_seconds(seconds) == text


@pytest.mark.slow
def test_finished_calculation(invoke, emt, code) -> None:
    """A real job: all is done; a slice of it counts as its own."""
    structures = StructureSetData.from_ase([bulk('Cu'), bulk('Ni'), bulk('Si')])
    _, node = run_get_node(SinglePointCalculation, code=code, model=emt, structures=structures)
    result = invoke('watch', node.pk)
    assert result.exit_code == 1, 'it ended with the exit code 400'
    assert result.output.startswith(f'SinglePointCalculation<{node.pk}> finished [400]: Some structures failed')
    *_, line, causes = result.output.splitlines()
    assert line.endswith('3 of 3 structures, 1 failed; slices: 1 done (of 1)')
    assert causes == '1 of 3 failed with EMT (1 UNSUPPORTED_ELEMENT).'
    once = invoke('watch', '--once', node.uuid)
    assert once.exit_code == 1
    assert '100%|' in once.output
    assert 'structures that failed: 1' in once.output
    _, node = run_get_node(SinglePointCalculation, code=code, model=emt, structure=orm.StructureData(ase=bulk('Cu')))
    assert invoke('watch', node.pk).exit_code == 0


@pytest.mark.parametrize(('state', 'exit_code'), [('created', 0), ('waiting', 0), ('killed', 1), ('excepted', 1)])
def test_once_says_how_it_is_now(aiida_profile_clean, invoke, state: str, exit_code: int) -> None:
    """What runs is no failure; what was killed is one, and does not come to an end any more."""
    node = orm.WorkChainNode()
    node.set_process_label('SomeWorkChain')
    node.set_process_state(ProcessState(state))
    node.store()
    result = invoke('watch', '--once', node.pk)
    assert result.exit_code == exit_code, result.output
    assert result.output.splitlines()[0] == f'SomeWorkChain<{node.pk}> {state}'
    assert 'slices: none yet' in result.output


def test_paused_process_says_how_to_go_on(aiida_profile_clean, invoke) -> None:
    """AiiDA pauses a job when it cannot reach the computer any more: nothing happens until somebody acts."""
    node = orm.WorkChainNode()
    node.set_process_state(ProcessState.WAITING)
    node.store()
    node.pause()
    assert f'paused, `verdi process play {node.pk}` goes on' in invoke('watch', '--once', node.pk).output


def test_follows_until_the_end(aiida_profile_clean, invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line each time that something has happened, read anew from the database; then the status of the process."""
    node = orm.WorkChainNode()
    node.set_process_label('SomeWorkChain')
    node.set_process_state(ProcessState.WAITING)
    node.store()
    looks = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            node.base.extras.set(PLAN_EXTRA, {'structures': 10, 'slices': 2})
        if len(looks) == 4:
            node.set_exit_status(0)
            node.set_process_state(ProcessState.FINISHED)

    monkeypatch.setattr(watch.time, 'sleep', sleep)
    result = invoke('watch', '--interval', '0.5', node.pk)
    assert result.exit_code == 0
    assert looks == [0.5] * 4
    assert result.output.splitlines() == [
        f'SomeWorkChain<{node.pk}> waiting: 0 of 0 structures; slices: none yet',
        f'SomeWorkChain<{node.pk}> waiting: 0 of 10 structures; slices: 2 queued (of 2)',
        f'SomeWorkChain<{node.pk}> finished [0]: 0 of 10 structures; slices: none yet (of 2)',
    ]


def test_terminal_is_drawn_in_place(aiida_profile_clean, monkeypatch, capsys) -> None:
    """The lines of the last look are erased, and none is longer than the terminal is wide."""
    node = orm.WorkChainNode()
    node.set_process_label('A' * 300)
    node.set_process_state(ProcessState.WAITING)
    node.store()

    class Terminal:
        def isatty(self):
            return True

    def sleep(_):
        node.set_process_state(ProcessState.KILLED)

    monkeypatch.setattr(watch.click, 'get_text_stream', lambda name: Terminal())
    monkeypatch.setattr(watch.time, 'sleep', sleep)
    assert watch._follow(node.pk, 1, once=False).is_terminated
    output = capsys.readouterr().out
    assert output.count('\033[3F\033[J') == 1
    assert max(len(line) for line in re.sub(r'\033\[\d*[A-Z]', '', output).splitlines()) < 110


def test_what_is_no_process(emt, invoke) -> None:
    """One sentence; of a result, which process made it."""
    job = orm.CalcJobNode().store()
    number = orm.Int(1)
    number.base.links.add_incoming(job, LinkType.CREATE, 'number')
    number.store()
    for identifier, message in (
        (999999, "there is no node '999999'."),
        (emt.pk, f'node {emt.pk} is no process, but a ModelData.'),
        (number.pk, f'node {number.pk} is no process, but a Int: watch the process that made it, {job.pk}.'),
    ):
        result = invoke('watch', identifier)
        assert result.exit_code == 1
        assert result.output == f'Error: {message}\n'
