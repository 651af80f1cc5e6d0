"""The files of a launch: structures read from one, results written to another, and one sentence for each mistake."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .params import sentence

if TYPE_CHECKING:
    from aiida.orm import ProcessNode, StructureData

    from aiida_mlpotential.data.results import ResultsData
    from aiida_mlpotential.data.structures import StructureSetData
    from aiida_mlpotential.worker.frames import Frames

_INDEX = re.compile(r'-?\d+|(-?\d+)?:(-?\d+)?(:(-?[1-9]\d*)?)?')


def read_structures(file: Path, index: str, file_format: str | None) -> StructureSetData:
    """Return the structures of a file, unstored; what cannot be read is one sentence with the cause."""
    from aiida_mlpotential.data.structures import StructuresError, StructureSetData

    if _INDEX.fullmatch(index) is None:
        raise click.BadParameter(f'{index!r} is no index: write `0`, `-1`, `10:20` or `::10`.', param_hint='--index')
    _check_format(file_format)
    try:
        return StructureSetData.from_file(file, index=index, format=file_format)
    except (StructuresError, OSError) as exception:
        cause = exception.__cause__
        if index != ':' and (cause is None or isinstance(cause, (IndexError, StopIteration))):
            number = _count(file, file_format)
            if number:
                raise click.BadParameter(
                    f'{index!r} is out of range: {file.name!r} holds {number} structure{"" if number == 1 else "s"}, '
                    'counted from 0.',
                    param_hint='--index',
                ) from exception
        if isinstance(cause, KeyError) and re.fullmatch(r'[A-Z][a-z]{0,3}', str(cause.args[0])):
            raise click.ClickException(
                f'{file.name!r} has the unknown chemical symbol {cause.args[0]!r}: correct it.'
            ) from exception
        message = sentence(exception).replace('with `format`', 'with --format')
        raise click.ClickException(message) from exception


def _check_format(name: str | None) -> None:
    """Raise unless ASE knows the name of a format."""
    from ase.io.formats import ioformats

    if name is None or name in ioformats:
        return
    close = difflib.get_close_matches(name, ioformats, n=1)
    hint = f'did you mean {close[0]!r}?' if close else 'the command `ase info --formats` lists all.'
    raise click.BadParameter(f'ASE has no format {name!r}; {hint}', param_hint='--format')


def _count(file: Path, file_format: str | None) -> int:
    """Return how many structures a file holds, or 0 if that cannot be told."""
    from ase.io import iread

    try:
        return sum(1 for _ in iread(file, index=':', format=file_format))
    except Exception:  # each of ASE's readers has its own; the message that the caller has is the better one then
        return 0


def single_structure(structures: StructureSetData, file: Path) -> StructureData:
    """Return the only structure of a file as a ``StructureData``; why it cannot be one is said with its file."""
    from aiida_mlpotential.data.structures import StructuresError

    try:
        return structures.get_structure(0)
    except StructuresError as exception:
        message = str(exception).replace('structure 0 ', f'the structure of {file.name!r} ', 1).rstrip('.')
        raise click.ClickException(f'{message}: correct the file.') from exception


def check_output(output: Path, file: Path | None, overwrite: bool) -> None:
    """Raise, before anything is computed, if the results could or should not be written to a file.

    :param file: what the structures are read from
    """

    def refuse(message: str) -> None:
        raise click.BadParameter(message, param_hint='--output')

    parent = output.resolve().parent
    if not output.name:
        refuse('it names no file.')
    if not parent.is_dir():
        refuse(f'the directory {parent} does not exist.')
    if output.is_dir():
        refuse(f'{output} is a directory.')
    if file is not None and output.exists() and output.samefile(file):
        refuse(f'{output} is the file of the structures: choose another name.')
    if output.exists() and not overwrite:
        refuse(f'{output} exists already: choose another name, or replace it with --overwrite.')
    if not os.access(output if output.exists() else parent, os.W_OK):
        refuse(f'{output} cannot be written: there is no permission.')


def as_given(_results: ResultsData, structures: StructureSetData, _node: ProcessNode) -> StructureSetData:
    """Return the structures as they are, for tasks that leave them as they are."""
    return structures


def write_output(results: ResultsData, structures: StructureSetData | Frames, output: Path) -> None:
    """Write structures and results as extended XYZ; where that fails, say where the results are all the same."""
    try:
        results.write_extxyz(output, structures)
    except OSError as exception:
        raise click.ClickException(
            f'{output} cannot be written ({exception.strerror or exception}), '
            f'but the results are stored in node {results.pk}.'
        ) from exception
    click.echo(f'Wrote {output}.')
