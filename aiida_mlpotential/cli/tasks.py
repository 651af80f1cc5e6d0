"""What the command line knows of each task: its command, its process, and how its results are shown and written."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiida.engine import CalcJob
    from aiida.orm import ProcessNode

    from aiida_mlpotential.data.results import ResultsData
    from aiida_mlpotential.data.structures import StructureSetData

_PREFIX = 'aiida.calculations:'


@dataclasses.dataclass(frozen=True)
class LaunchTask:
    """A task that ``launch`` has a command for.

    :ivar name: key of the worker's tasks, and of the entry point
    :ivar noun: what a calculation of this task is called in a sentence
    :ivar done: what a structure of which all went well is said to be
    :ivar help: the help of the command
    :ivar report: module and function that turn results, their structures and the calculation into text
    :ivar output: module and function that return the structures for ``--output``, of the same arguments
    :ivar workflow: whether the command can run the workflow of the same name, with ``--optimize``
    """

    name: str
    noun: str
    done: str
    help: str
    report: tuple[str, str]
    output: tuple[str, str]
    workflow: bool = False

    @property
    def command(self) -> str:
        """Return the name of the command."""
        return self.name.replace('_', '-')

    @property
    def entry_point(self) -> str:
        """Return the entry point of the calculation."""
        return f'mlpotential.{self.name}'

    @property
    def process_type(self) -> str:
        """Return what a node of the calculation has as its type."""
        return f'{_PREFIX}{self.entry_point}'

    def process_class(self) -> type[CalcJob]:
        """Return the class of the calculation."""
        from aiida.plugins import CalculationFactory

        found: Any = CalculationFactory(self.entry_point)
        process: type[CalcJob] = found
        return process

    def format_results(self, results: ResultsData, structures: StructureSetData, node: ProcessNode) -> str:
        """Return what a terminal shows of the results."""
        text: str = _load(self.report)(results, structures, node)
        return text

    def structures_to_write(self, results: ResultsData, structures: StructureSetData, node: ProcessNode) -> Any:
        """Return the structures that go into the file of ``--output`` with the results."""
        return _load(self.output)(results, structures, node)


def _load(where: tuple[str, str]) -> Callable[..., Any]:
    module, attribute = where
    found: Callable[..., Any] = getattr(importlib.import_module(f'.{module}', __package__), attribute)
    return found


_AS_GIVEN = ('files', 'as_given')

TASKS: dict[str, LaunchTask] = {
    task.name: task
    for task in (
        LaunchTask(
            'single_point',
            'single-point calculation',
            'evaluated',
            'Energies, forces and their spread for the structures of FILE, in any format that ASE reads.',
            report=('reports', 'format_results'),
            output=_AS_GIVEN,
        ),
        LaunchTask(
            'geometry_optimization',
            'geometry optimization',
            'converged',
            'Optimize the structures of FILE, positions and on request cells: all together, each with its own status.',
            report=('reports_optimization', 'format_results'),
            output=('reports_optimization', 'optimized'),
        ),
        LaunchTask(
            'vibrations',
            'vibrational analysis',
            'analysed',
            'Frequencies and normal modes of the structures of FILE, which should be optimized, and whether each is a '
            'minimum or a saddle point.',
            report=('reports_vibrations', 'format_results'),
            output=_AS_GIVEN,
        ),
        LaunchTask(
            'thermochemistry',
            'thermochemistry calculation',
            'computed',
            'Entropy, enthalpy and Gibbs energy of the molecules of FILE, which should be optimized, as ideal gases.',
            report=('reports_thermochemistry', 'format_results'),
            output=_AS_GIVEN,
            workflow=True,
        ),
    )
}


def task_of(node: ProcessNode) -> LaunchTask | None:
    """Return the task of a calculation, or ``None`` if it is none of ours."""
    return next((task for task in TASKS.values() if node.process_type == task.process_type), None)
