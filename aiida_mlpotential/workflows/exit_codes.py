"""Exit codes of the workflows: those of the calculations under the same names, away from AiiDA's own numbers."""

from __future__ import annotations

from aiida.engine import ExitCode, Process, ProcessSpec
from aiida.orm import ProcessNode

from aiida_mlpotential.worker.errors import EXIT_CODES

#: A workflow that ends as its last calculation did has the code of the calculation plus this.
OFFSET = 300


def declare_exit_codes(spec: ProcessSpec) -> None:
    """Give a workflow every exit code of the calculations, with the cause in the message."""
    for code in EXIT_CODES:
        spec.exit_code(code.status + OFFSET, code.label, message='{detail}', invalidates_cache=code.invalidates_cache)


def exit_code_of(process: Process, node: ProcessNode) -> ExitCode:
    """Return the exit code of a workflow that ends as a calculation did.

    :param process: the workflow, with :func:`declare_exit_codes`
    :param node: the calculation; verdicts of the scheduler (110, 120, 140, ...) are those of what they lead to
    """
    labels = {code.status: code.label for code in EXIT_CODES} | _VERDICTS
    label = labels.get(node.exit_status or 0, 'ERROR_WORKER_EXCEPTION')
    code: ExitCode = getattr(process.exit_codes, label)
    return code.format(detail=f'{node.process_label}<{node.pk}> [{node.exit_status}] {node.exit_message}')


#: What the verdicts of the scheduler and of monitors mean in our own terms.
_VERDICTS = {
    110: 'ERROR_OUT_OF_MEMORY',
    120: 'ERROR_INCOMPLETE',
    140: 'ERROR_INCOMPLETE',
    150: 'ERROR_INCOMPLETE',
    100: 'ERROR_RESULTS_MISSING',
}
