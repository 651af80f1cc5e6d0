"""Exit codes of the workflows: those of the calculations under the same names, away from AiiDA's own numbers."""

from __future__ import annotations

import functools

from aiida.engine import CalcJob, ExitCode, Process, ProcessSpec
from aiida.orm import ProcessNode

from aiida_mlpotential.worker import errors

#: A workflow that ends as its last calculation did has the code of the calculation plus this.
OFFSET = 300
#: Below it are AiiDA's codes of processes in general, which a workflow has itself.
_FIRST_OF_JOBS = 100


@functools.cache
def calculation_codes() -> dict[int, errors.ExitCode]:
    """Return what a workflow ends with after a calculation: our own codes, and AiiDA's verdicts of schedulers.

    :return: exit codes of the workflow, by the number of the calculation
    """
    labels = {code.status: label for label, code in CalcJob.spec().exit_codes.items() if code.status >= _FIRST_OF_JOBS}
    labels.update((code.status, code.label) for code in errors.EXIT_CODES)
    return {status: errors.ExitCode(status + OFFSET, label, '{detail}') for status, label in sorted(labels.items())}


def declare_exit_codes(spec: ProcessSpec) -> None:
    """Give a workflow every exit code of the calculations, with the cause in the message."""
    for code in calculation_codes().values():
        spec.exit_code(code.status, code.label, message=code.message, invalidates_cache=code.invalidates_cache)


def cause_of(node: ProcessNode) -> str:
    """Return which calculation ended how, as it says itself."""
    text = node.exit_message or node.exception or node.process_status or 'no message was left'
    state = node.exit_status if node.exit_status is not None else node.process_state.value  # type: ignore[union-attr]
    return f'{node.process_label}<{node.pk}> [{state}] {text.strip()}'


def exit_code_of(process: Process, node: ProcessNode, why: str = '') -> ExitCode:
    """Return the exit code of a workflow that ends as a calculation did.

    :param process: the workflow, with :func:`declare_exit_codes`
    :param node: the calculation
    :param why: why there was no other run
    """
    known = calculation_codes().get(node.exit_status or 0)
    label = known.label if known else 'ERROR_UNHANDLED_FAILURE'
    code: ExitCode = getattr(process.exit_codes, label)
    detail = f'{cause_of(node)}{f" ({why})" if why else ""}'
    return ExitCode(code.status, detail, code.invalidates_cache)
