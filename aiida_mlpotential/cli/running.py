"""Running or submitting a workflow from the command line, with the options that its commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from aiida.cmdline.utils import echo

from .progress import Steps
from .reports import fail_unless_finished, show_outcome

if TYPE_CHECKING:
    from aiida.engine import ProcessBuilder
    from aiida.orm import ProcessNode

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


def scheduler_options(command: Any) -> Any:
    """Give a command the options of the scheduler; see :func:`collect_scheduler_options`."""
    for option in reversed(_SCHEDULER.values()):
        command = option(command)
    return command


def collect_scheduler_options(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return what was given of the options of the scheduler, as ``metadata.options`` of a calculation."""
    return {name: arguments[name] for name in _SCHEDULER if arguments.get(name) is not None}


def refused(exception: Exception) -> click.ClickException:
    """Return the error of a command for inputs that a workflow refuses."""
    from .launch import first_line

    return click.ClickException(first_line(exception))


def run_workflow(builder: ProcessBuilder, title: str) -> ProcessNode:
    """Run a workflow to its end; inputs that it refuses end the command with one sentence."""
    from aiida.engine import run_get_node

    node: Any
    with Steps().step(title) as step:
        try:
            _, node = run_get_node(builder)
        except ValueError as exception:
            raise refused(exception) from exception
        show_outcome(step, node)
    finished: ProcessNode = node
    return finished


def submit_workflow(builder: ProcessBuilder) -> None:
    """Submit a workflow to the daemon, and say how to follow it."""
    from aiida.common.exceptions import InvalidOperation
    from aiida.engine import submit

    try:
        node: Any = submit(builder)
    except ValueError as exception:
        raise refused(exception) from exception
    except (InvalidOperation, ConnectionError) as exception:
        raise click.ClickException(f'{str(exception).splitlines()[0]} Or leave out --daemon.') from exception
    echo.echo_success(f'submitted {node.process_label}<{node.pk}> to the daemon.')
    echo.echo(f'Follow it with `aiida-mlpotential watch {node.pk}` or `verdi process report {node.pk}`.')


def end(node: ProcessNode) -> None:
    """End the command with an error unless a workflow succeeded."""
    fail_unless_finished(node)
