"""Parameter files on their way into a node: regular files with plain names, copied once before anybody reads them.

What is inspected, hashed and stored is the copy: a file that somebody changes meanwhile is never two things.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import stat
from collections.abc import Callable, Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from aiida_mlpotential.worker.backends.base import ModelFileError
from aiida_mlpotential.worker.frames import sha256_of

#: Most files and bytes of a model, and most entries of a directory in which they are looked for.
MAX_FILES = 1000
MAX_BYTES = 2_000_000_000
MAX_ENTRIES = 20_000

_MAX_PATH = 200
_BLOCK = 1 << 20
# Letters, digits and . _ + - only: no shell, no pattern of a transport (AiiDA expands * ? [ ]) and no terminal sees
# anything in such a name. It begins with neither a dot nor a dash.
_PLAIN = re.compile(r'[A-Za-z0-9_+][A-Za-z0-9._+-]{0,127}')


@dataclasses.dataclass(frozen=True)
class ParameterCopy:
    """A private copy of a parameter file, or of the files of a directory.

    :ivar path: the file or directory, for the backend to inspect
    :ivar files: path in the copy by the path that the file gets in the node
    :ivar original: name of the file where it had to be changed, else empty
    :ivar size: bytes of all files
    """

    path: Path
    files: Mapping[str, Path]
    original: str
    size: int


def is_plain(path: str) -> bool:
    """Return whether a relative path is safe everywhere: in a shell, a transport, an archive and a terminal."""
    return len(path) <= _MAX_PATH and all(_PLAIN.fullmatch(part) for part in path.split('/'))


def is_inside(path: str) -> bool:
    """Return whether a relative path stays in its folder; of nodes that others made nothing else is known."""
    parts = path.split('/')
    return bool(path) and '\0' not in path and not any(part in ('', '.', '..') for part in parts)


def plain_name(name: str, fallback: str = 'model') -> str:
    """Return a file name with a plain character for every other; a leading dot or dash gets a word before it."""
    suffix = re.sub(r'[^A-Za-z0-9._+-]', '_', PurePosixPath(name).suffix)[:20]
    stem = name[: len(name) - len(PurePosixPath(name).suffix)]
    plain = re.sub(r'[^A-Za-z0-9._+-]', '_', stem)[:100] + suffix
    return plain if _PLAIN.fullmatch(plain) else f'{fallback}{plain}'[:128]


def show(path: str | Path) -> str:
    """Return a path for a message: in quotes, with escapes for what a terminal would act on."""
    text = repr(str(path))
    return text if len(text) <= 300 else f'{text[:140]}...{text[-140:]}'


def check_names(names: Collection[str]) -> None:
    """Refuse paths in a model that are not safe, or that some file systems take for the same.

    :raises ModelFileError: naming the first
    """
    if len(names) > MAX_FILES:
        raise ModelFileError(
            f'the model has {len(names)} files, allowed are {MAX_FILES}: leave out what it can do without'
        )
    seen: dict[str, str] = {}
    for name in names:
        if not is_plain(name):
            raise ModelFileError(
                f'the file name {show(name)} in the model is not plain: rename it, with letters, digits and . _ + - '
                'only, no dot or dash at the beginning'
            )
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise ModelFileError(f'{show(other)} and {show(name)} differ in case only: rename one of them')


def copy_parameters(
    source: Path, folder: Path, choose: Callable[[Path], Collection[str] | None], limit: int = MAX_BYTES
) -> ParameterCopy:
    """Copy a parameter file, or those files of a directory that the backend needs.

    A file may have any name, of which a plain one is made. The names in a directory must be plain, because the files
    of a model refer to each other by name.

    :param source: the file or directory
    :param folder: empty directory for the copy
    :param choose: of a directory, returns the files that are needed by their path in it, or ``None`` for all
    :param limit: bytes that the model may have
    :raises FileNotFoundError: if there is no such file
    :raises ModelFileError: if it is something else than files and directories, too large, empty, or changing
    """
    mode = _mode_of(source)
    if stat.S_ISREG(mode):
        name = plain_name(source.name)
        paths = {name: source}
        target = folder / name
    elif stat.S_ISDIR(mode):
        paths = _choose_files(source, choose)
        target = folder / plain_name(source.resolve().name)
    else:
        raise ModelFileError(f'{show(source)} is neither a file nor a directory: give the parameter file itself')
    files, size = {}, 0
    for name, path in paths.items():
        copy = target if stat.S_ISREG(mode) else target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        size += copy_file(path, copy, limit - size)
        files[name] = copy
    if not size:
        raise ModelFileError(f'the model file {show(source)} is empty: get it again from its source')
    renamed = stat.S_ISREG(mode) and target.name != source.name
    # not every name is a text that a database takes
    original = source.name.encode('utf-8', 'backslashreplace').decode() if renamed else ''
    return ParameterCopy(target, files, original, size)


def _mode_of(source: Path) -> int:
    try:
        mode = source.lstat().st_mode
    except FileNotFoundError:
        raise FileNotFoundError(f'there is no model file {show(source)}') from None
    except (OSError, ValueError) as exception:  # a NUL in the name is a ValueError
        reason = getattr(exception, 'strerror', None) or exception
        raise ModelFileError(f'the model file {show(source)} cannot be read: {reason}') from None
    if stat.S_ISLNK(mode):
        raise ModelFileError(
            f'{show(source)} is a symbolic link: give the file itself, {show(os.path.realpath(source))}'
        )
    return mode


def _choose_files(source: Path, choose: Callable[[Path], Collection[str] | None]) -> dict[str, Path]:
    """Return the files of a directory that are needed."""
    there = _list_files(source)
    if not there:
        raise ModelFileError(f'the model directory {show(source)} holds no files')
    wanted = choose(source)
    names = sorted(there if wanted is None else wanted)
    missing = sorted(set(names) - set(there))
    if missing:
        raise ModelFileError(f'the model directory {show(source)} has no file {show(missing[0])}')
    check_names(names)
    return {name: source / name for name in names}


def _list_files(root: Path) -> list[str]:
    """Return the paths of all files below a directory, which may have nothing else but directories."""
    found, folders, number = [], [root], 0
    while folders:
        folder = folders.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as exception:
            raise ModelFileError(f'the directory {show(folder)} cannot be read: {exception.strerror}') from None
        number += len(entries)
        if number > MAX_ENTRIES:
            raise ModelFileError(
                f'the directory {show(root)} has more than {MAX_ENTRIES} entries: copy the files of the model '
                'to one of their own'
            )
        for entry in entries:
            if entry.is_symlink():
                raise ModelFileError(
                    f'the model directory has the symbolic link {show(entry.name)}: put the file itself there'
                )
            if entry.is_dir(follow_symlinks=False):
                folders.append(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                found.append(Path(entry.path).relative_to(root).as_posix())
            else:
                raise ModelFileError(
                    f'{show(entry.name)} in the model directory is neither a file nor a directory: remove it'
                )
    return found


def copy_file(source: Path, target: Path, limit: int) -> int:
    """Copy a regular file to a path that is new, and return its size.

    :raises ModelFileError: if it is larger than the limit, or something writes to it, or it cannot be read
    """
    # a link or a FIFO may have taken the place of the file that was looked at before
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(source, flags)
    except OSError as exception:
        raise ModelFileError(f'the model file {show(source)} cannot be read: {exception.strerror}') from None
    with os.fdopen(descriptor, 'rb') as stream, target.open('xb') as copy:
        before, size = os.fstat(descriptor), 0
        if not stat.S_ISREG(before.st_mode):
            raise ModelFileError(f'{show(source)} is no regular file: give the parameter file itself')
        if before.st_size > limit:
            raise ModelFileError(
                f'the model is larger than {MAX_BYTES / 1e9:g} GB with {show(source)}: give its parameter files only'
            )
        for block in iter(lambda: stream.read(_BLOCK), b''):
            size += len(block)
            if size > before.st_size:
                break
            copy.write(block)
        after = os.fstat(descriptor)
    if (size, after.st_size, after.st_mtime_ns) != (before.st_size, before.st_size, before.st_mtime_ns):
        raise ModelFileError(f'{show(source)} changed while it was read: import it when nothing writes to it')
    return size


def model_sha256(files: Mapping[str, str], options: Mapping[str, Any]) -> str:
    """Return the hash of the only file, else that of the list of files, else that of the options."""
    if len(files) == 1:
        return next(iter(files.values()))
    content = dict(files) or dict(options)
    return sha256_of(json.dumps(content, sort_keys=True, separators=(',', ':')).encode())
