"""Running or submitting a workflow from the command line, with the options that its commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from aiida.cmdline.utils import echo

from .inputs import first_line
from .progress import Steps
from .reports import show_outcome

if TYPE_CHECKING:
    from aiida.engine import ProcessBuilder
    from aiida.orm import ProcessNode

#: Seconds between two looks at the processes that a workflow waits for.
POLL_INTERVAL = 1.0
PROTOCOLS = ('fast', 'balanced', 'precise')

PROTOCOL = click.option(
    '--protocol',
    type=click.Choice(PROTOCOLS),
    default='balanced',
    show_default=True,
    help='How tight the minima are, and what is computed at them.',
)
DAEMON = click.option('-D', '--daemon', is_flag=True, help='Submit to the daemon instead of waiting for the results.')

#: Options of the scheduler, by the name of the argument, which is that of the option of a calculation.
_SCHEDULER = {
    'max_wallclock_seconds': click.option(
        '-w', '--max-wallclock-seconds', type=click.IntRange(min=1), help='Time limit of each job for the scheduler.'
    ),
    'queue_name': click.option('-q', '--queue', 'queue_name', help='Queue or partition of the scheduler.'),
    'account': click.option('--account', help='Account that the scheduler charges.'),
}


def queue_options(command: Any) -> Any:
    """Give a command the options of the scheduler, which ``inputs.scheduler_options`` collects."""
    for option in reversed(_SCHEDULER.values()):
        command = option(command)
    return command


def run_node(process: Any, inputs: Any = None) -> Any:
    """Run a process to its end in this interpreter, and return its node.

    Where the profile has no broker, AiiDA looks every minute whether a process that a workflow waits for has ended: for
    workflows in workflows that is minutes of doing nothing. Here it looks every second. The broker takes no part, as in
    AiiDA's own ``run``: that of a ZeroMQ profile is only there while the daemon runs.

    :param process: a class, or a builder with its inputs
    :raises ValueError: if the inputs are refused
    """
    from aiida.manage import get_manager

    with get_manager().create_runner(communicator=None, poll_interval=POLL_INTERVAL) as runner:
        return runner.run_get_node(process, inputs).node


def check_daemon() -> None:
    """Raise, before anything is made, unless the daemon of the profile is there to take what is submitted."""
    from aiida.manage import get_manager

    manager = get_manager()
    profile: Any = manager.get_profile()
    if profile.process_control_backend is None:
        raise click.ClickException(
            f'the profile {profile.name} has no broker, from which the daemon gets its work: leave out --daemon, or '
            'add one with `verdi profile configure-broker core.zeromq`.'
        )
    if not manager.get_daemon_client().is_daemon_running:
        raise click.ClickException(
            f'the daemon of the profile {profile.name} is not running: start it with `verdi daemon start`, or leave '
            'out --daemon to wait for the results here.'
        )


def submit_to_daemon(process: Any, inputs: Any) -> Any:
    """Submit a process to the daemon; an input that it refuses, or a daemon that is gone, is one sentence.

    :return: the node of the process
    """
    from aiida.common.exceptions import InvalidOperation
    from aiida.engine import submit

    check_daemon()
    try:
        return submit(process, inputs)
    except ValueError as exception:  # an input that the process refuses
        raise click.ClickException(first_line(exception)) from exception
    except (InvalidOperation, ConnectionError) as exception:
        raise click.ClickException(
            f'the daemon cannot be reached ({first_line(exception).rstrip(".")}): start it anew with `verdi daemon '
            'restart`, or leave out --daemon to wait for the results here.'
        ) from exception


def say_submitted(node: ProcessNode, more: str = '') -> None:
    """Say that a process was submitted, and how to follow it.

    :param more: what else there is to know
    """
    echo.echo_success(f'submitted {node.process_label}<{node.pk}> to the daemon.')
    echo.echo(f'Follow it with `aiida-mlpotential watch {node.pk}`{more}.')


def run_workflow(builder: ProcessBuilder, title: str) -> ProcessNode:
    """Run a workflow to its end; inputs that it refuses end the command with one sentence."""
    node: Any
    with Steps().step(title) as step:
        try:
            node = run_node(builder)
        except ValueError as exception:
            raise click.ClickException(first_line(exception)) from exception
        show_outcome(step, node)
    finished: ProcessNode = node
    return finished


def submit_workflow(builder: ProcessBuilder) -> None:
    """Submit a workflow to the daemon, and say how to follow it."""
    node = submit_to_daemon(builder, None)
    say_submitted(node, f' or `verdi process report {node.pk}`')
