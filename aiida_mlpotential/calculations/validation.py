"""What can be known to be wrong with the inputs of a job is said before it is submitted, in one sentence."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Protocol

import numpy as np
from aiida import orm

from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.selection import frames_of_inputs, validate_selection
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.symmetry.libraries import MissingLibraryError
from aiida_mlpotential.symmetry.space_groups import TooManyOperationsError
from aiida_mlpotential.worker.checks import Rules, check_frames, explain
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.parameters import with_defaults
from aiida_mlpotential.worker.request import check_request

#: How the worker comes to the computer; see ``metadata.options.worker``.
WORKERS = ('upload', 'installed')
#: By less than this, relatively, tables of atomic masses differ, and isotopes of all but heavy elements by more.
_MASS_TOLERANCE = 2e-3


@dataclasses.dataclass(frozen=True)
class Request:
    """What a job is asked to do.

    :ivar parameters: all parameters of the task, complete
    :ivar structure: the one structure; ``None`` for a set
    """

    model: ModelData
    parameters: dict[str, Any]
    frames: Frames
    structure: orm.StructureData | None

    @property
    def single(self) -> bool:
        """Return whether there is one structure, as a node of its own."""
        return self.structure is not None


class Checked(Protocol):
    """What a process class says of its inputs."""

    TASK: ClassVar[str]

    @classmethod
    def check_task(cls, request: Request) -> str | None:
        """Return why the job as a whole cannot be done, or ``None``."""

    @classmethod
    def frame_problems(cls, request: Request) -> dict[int, str]:
        """Return why single structures cannot be done, by their number."""


def content(node: orm.Dict | None) -> dict[str, Any]:
    """Return what a node holds, or nothing: AiiDA lets None through for an optional input."""
    return {} if node is None else dict(node.get_dict())  # type: ignore[no-untyped-call]


def validate_worker(value: str, _: Any) -> str | None:
    """Return what is wrong with the option ``worker``, or ``None``."""
    return None if value in WORKERS else f'metadata.options.worker is {value!r}; allowed are {", ".join(WORKERS)}.'


def validate_structure(node: orm.StructureData | None, _: Any) -> str | None:
    """Return why a structure is none of whole atoms, or ``None``."""
    if node is not None and (node.is_alloy or node.has_vacancies):
        return 'structure: it has sites with mixed or partial occupation; make every site one atom first.'
    return None


def validate_selection_node(node: orm.Dict | None, _: Any) -> str | None:
    """Return why a node does not say which structures, or ``None``."""
    return None if node is None else validate_selection(content(node))


def validate_inputs(process: type[Checked], inputs: dict[str, Any], ports: Any) -> str | None:
    """Return what makes the inputs, taken together, impossible to compute; ``None`` if nothing does."""
    model: ModelData | None = inputs.get('model')
    if model is None:  # the port itself complains, or is not part of a workflow that wraps this process
        return None
    structure: orm.StructureData | None = inputs.get('structure')
    structures: StructureSetData | None = inputs.get('structures')
    if structure is None and structures is None and not {'structure', 'structures'} & set(ports):
        return None  # a workflow that wraps this process gives them itself
    if (structure is None) == (structures is None):
        return 'give either `structure` (one StructureData) or `structures` (a StructureSetData), and not both.'
    parameters = with_defaults(content(inputs.get('parameters')), process.TASK)
    message = (
        check_request(model.to_spec(), parameters, process.TASK)
        or _validate_parent(inputs)
        or _validate_selection(inputs.get('selection'), structures)
    )
    if message:
        return message
    request = Request(model, parameters, frames_of_inputs(inputs), structure)
    # A part of a set may have bad structures only: whoever took it apart wants to be told of them with the results.
    part = inputs.get('selection') is not None
    for check in (process.check_task,) if part else (_check_periodic, _check_frames, process.check_task):
        message = check(request)
        if message:
            return message
    try:
        return None if part else _check_problems(request, process.frame_problems(request))
    except (MissingLibraryError, TooManyOperationsError) as exception:
        return f'parameters: {exception}.'


def _validate_selection(selection: orm.Dict | None, structures: StructureSetData | None) -> str | None:
    if selection is None:
        return None
    if structures is None:
        return 'selection says which of `structures` to take, but there is one `structure`: leave it out.'
    return validate_selection(content(selection), len(structures))


def _validate_parent(inputs: dict[str, Any]) -> str | None:
    parent, code = inputs.get('parent_folder'), inputs.get('code')
    if parent is None or code is None:
        return None
    computer = inputs.get('metadata', {}).get('computer') or code.computer  # a portable code has none of its own
    if computer is None or parent.computer.pk == computer.pk:
        return None
    return (
        f'parent_folder lies on the computer {parent.computer.label}, the job would run on {computer.label}: '
        'a job can only be continued where it ran.'
    )


def _check_periodic(request: Request) -> str | None:
    if 'stress' not in request.parameters['properties'] or np.any(np.all(request.frames.pbc, axis=1)):
        return None
    return 'parameters: properties asks for the stress, but no structure is periodic in three directions: leave it out.'


def _check_frames(request: Request) -> str | None:
    """Say at once what the worker would say of a single structure; of a set, if not one of it can be evaluated.

    A few bad structures of a set fail on their own, later.
    """
    frames, model = request.frames, request.model
    rules = Rules.of(model.elements, model.options, request.parameters)
    if request.single:
        status = int(check_frames(frames, rules)[0])
        return None if status == FrameStatus.PENDING else f'structure: {explain(frames, 0, status, rules)}.'
    rules = dataclasses.replace(rules, minimum_distance=0.0)
    statuses = check_frames(frames, rules)
    if np.any(statuses == FrameStatus.PENDING):
        return None
    first = explain(frames, 0, int(statuses[0]), rules)
    return f'structures: {model.name} can evaluate none of them; the first: {first}.'


def _check_problems(request: Request, problems: dict[int, str]) -> str | None:
    """Return the problem of a single structure, or that of the first of a set if there is not one without."""
    if len(problems) < len(request.frames):
        return None
    text = problems[0].rstrip('.')
    return (
        f'structure: {text}.' if request.single else f'structures: it can be done for none of them; the first: {text}.'
    )


def check_masses(structure: orm.StructureData | None) -> str | None:
    """Return one sentence on isotopes, whose masses do not reach the worker, or ``None``.

    :param structure: the masses of its kinds are compared with those that frequencies are computed with
    """
    from ase.data import atomic_masses, atomic_numbers

    for kind in () if structure is None else structure.kinds:
        standard = float(atomic_masses[atomic_numbers.get(kind.symbol, 0)])
        if abs(float(kind.mass) - standard) > _MASS_TOLERANCE * standard:
            return (
                f'structure: the kind {kind.name} has the mass {float(kind.mass):g} amu, but frequencies are computed '
                f'with the mean masses of the elements ({kind.symbol}: {standard:g}): isotopes are not supported.'
            )
    return None
