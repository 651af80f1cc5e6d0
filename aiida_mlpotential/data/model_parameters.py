"""From the paths that a user names to the files of a model: one parameter set, or the members of a committee."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from aiida_mlpotential.worker.backends.base import FileFacts, ModelFileError
from aiida_mlpotential.worker.frames import sha256_of
from aiida_mlpotential.worker.schema import MODEL_DIRECTORY, member_directory

from .model_files import MAX_BYTES, ParameterCopy, copy_parameters, model_sha256, plain_name, show
from .model_info import inspect_file, merge_members


@dataclasses.dataclass(frozen=True)
class Parameters:
    """Copies of the files of a model, and what they say of themselves.

    :ivar files: copy of each file by its path in the node
    :ivar original_names: names that files had where these were not plain, by their path in the node
    :ivar committee: number of parameter sets of a committee; 0 for a single one
    :ivar facts: of the one, or those on which the members agree
    """

    files: Mapping[str, Path]
    original_names: Mapping[str, str]
    committee: int
    facts: FileFacts


def default_name(path: Path) -> str:
    """Return the name that a parameter file suggests for its model."""
    full = path.absolute()
    return plain_name(full.name if full.is_dir() else full.stem)


def read_single(path: Path, backend: str, folder: Path) -> Parameters:
    """Copy and inspect one parameter set.

    :param folder: empty directory for the copy
    :raises ModelFileError: if it is not valid
    """
    copy, facts = _read(path, backend, folder, MAX_BYTES)
    names = {file: copy.original for file in copy.files if copy.original}
    return Parameters(copy.files, names, 0, facts)


def read_committee(paths: Sequence[Path], backend: str, folder: Path) -> Parameters:
    """Copy and inspect several parameter sets, each to a folder of its own.

    :param folder: empty directory for the copies
    :raises ModelFileError: if one is not valid, or two are the same, or they do not agree
    """
    copies: list[ParameterCopy] = []
    facts: list[FileFacts] = []
    seen: dict[str, Path] = {}
    for index, path in enumerate(paths):
        target = folder / str(index)
        target.mkdir()
        copy, found = _read(path, backend, target, MAX_BYTES - sum(item.size for item in copies))
        other = seen.setdefault(model_sha256({file: sha256_of(item) for file, item in copy.files.items()}, {}), path)
        if other is not path:
            raise ModelFileError(
                f'{show(other)} and {show(path)} are the same parameters: a committee of copies has no spread, so give '
                'members that differ'
            )
        copies.append(copy)
        facts.append(found)
    merged = merge_members(facts, [show(path) for path in paths])
    files, names = {}, {}
    for index, copy in enumerate(copies):
        prefix = member_directory(index).removeprefix(f'{MODEL_DIRECTORY}/')
        files.update({f'{prefix}/{file}': item for file, item in copy.files.items()})
        names.update({f'{prefix}/{file}': copy.original for file in copy.files if copy.original})
    return Parameters(files, names, len(copies), merged)


def _read(path: Path, backend: str, folder: Path, limit: int) -> tuple[ParameterCopy, FileFacts]:
    copy = copy_parameters(path, folder, lambda source: inspect_file(backend, source).files, limit)
    return copy, inspect_file(backend, copy.path, path)
