"""The outside of torch files: the zip archive of ``torch.save`` and of TorchScript, and the format before torch 1.6."""

from __future__ import annotations

import dataclasses
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from .machine import MAX_TENSOR_BYTES, Instance, Machine, TorchFileError

#: How a file that torch wrote before version 1.6 begins: a pickled magic number.
_LEGACY_START = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'
#: What a damaged zip file may raise; RuntimeError is for one that is encrypted.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, struct.error, ValueError, RuntimeError, OSError, OverflowError)
_BAD_NAME = re.compile(r'^/|^[A-Za-z]:|\\|\x00|(^|/)\.\.(/|$)')
#: A member that is smaller than this may be compressed as well as it likes.
_SMALL = 1 << 20


@dataclasses.dataclass(frozen=True)
class Limits:
    """How large a file may be; far above what models have, far below what would harm."""

    members: int = 100_000
    #: Bytes of the list of members.
    directory: int = 32 << 20
    #: Bytes of all members together, uncompressed.
    total: int = 16 << 30
    #: Uncompressed bytes for each compressed one.
    ratio: int = 200
    #: Bytes of a pickle.
    pickle: int = 8 << 20
    #: Bytes of all sources of a TorchScript archive together.
    code: int = 8 << 20


LIMITS = Limits()


@dataclasses.dataclass(frozen=True, eq=False)
class TorchFile:
    """What is in a torch file.

    :ivar kind: ``pickle`` (``torch.save``), ``torchscript``, or ``legacy`` (before torch 1.6; no tensor can be read)
    :ivar globals: the names of all classes and functions in the file, as ``module.name``
    :ivar root: the saved object, of inert values; visit it with ``walk``, not by recursion
    :ivar instances: all objects and calls in the file, those that are thrown away while it is read among them
    :ivar code: the sources of a TorchScript archive by their path
    """

    kind: str
    globals: frozenset[str]
    root: Any
    instances: tuple[Instance, ...] = ()
    code: dict[str, str] = dataclasses.field(default_factory=dict)


def read_torch_file(path: str | Path, limits: Limits = LIMITS) -> TorchFile:
    """Read a torch file without running anything in it.

    :param path: file written by ``torch.save`` or ``torch.jit.save``
    :raises TorchFileError: if it is something else, damaged, hostile or too large; it says which
    :raises FileNotFoundError: if there is no such file
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'there is no file {str(path)!r}')
    with path.open('rb') as handle:
        start = handle.read(len(_LEGACY_START))
        if start == _LEGACY_START:
            return _read_legacy(handle, limits)
        if not start.startswith(b'PK'):
            raise TorchFileError('it is neither a zip archive nor a pickle of torch, so torch did not write it')
        _check_directory(handle, limits)
    return _read_archive(path, limits)


def _check_directory(handle: IO[bytes], limits: Limits) -> None:
    """Refuse a list of members so long that reading it alone would take minutes; looks where ``zipfile`` does."""
    size = handle.seek(0, io.SEEK_END)
    tail_size = min(size, 22 + 20 + 56)
    handle.seek(size - tail_size)
    tail = handle.read(tail_size)
    end = tail[-22:]
    if len(end) < 22 or end[:4] != b'PK\x05\x06' or end[-2:] != b'\0\0':
        raise TorchFileError('the zip archive is cut short, or has something after its end')
    length = struct.unpack('<I', end[12:16])[0]
    if tail[-42:-38] == b'PK\x06\x07' and tail[-98:-94] == b'PK\x06\x06':
        length = max(struct.unpack('<Q', tail[-58:-50])[0], length if length != 0xFFFFFFFF else 0)
    if length > limits.directory:
        raise TorchFileError(f'the list of members of the archive is too long, {length} bytes')


def _read_archive(path: Path, limits: Limits) -> TorchFile:
    try:
        with zipfile.ZipFile(path) as archive:
            members = _checked_members(archive, path.stat().st_size, limits)
            prefix = next(iter(members)).partition('/')[0]
            names = {name.partition('/')[2]: info for name, info in members.items()}
            if 'data.pkl' not in names:
                raise TorchFileError('a zip archive, but without data.pkl: torch did not write it')
            if 'byteorder' in names and _read(archive, names['byteorder'], 16) != b'little':
                raise TorchFileError('it was written on a big-endian machine: save it again on an ordinary one')
            script = 'constants.pkl' in names
            root, machine = _run(archive, names['data.pkl'], _storages(path, prefix, 'data', members), limits)
            code: dict[str, str] = {}
            if script:
                storages = _storages(path, prefix, 'constants', members)
                constants = _run(archive, names['constants.pkl'], storages, limits)[1]
                machine.globals |= constants.globals
                machine.instances += constants.instances
                code = _read_code(archive, names, limits)
    except TorchFileError:
        raise
    except _ZIP_ERRORS as exception:
        raise TorchFileError(f'the zip archive is damaged: {type(exception).__name__}: {exception}') from None
    kind = 'torchscript' if script else 'pickle'
    return TorchFile(kind, frozenset(machine.globals), root, tuple(machine.instances), code)


def _checked_members(archive: zipfile.ZipFile, size: int, limits: Limits) -> dict[str, zipfile.ZipInfo]:
    """Return the members by name, after refusing all that no archive of torch has."""
    infos = archive.infolist()
    if not 0 < len(infos) <= limits.members:
        raise TorchFileError(f'the archive has {len(infos)} members')
    members = {info.filename: info for info in infos}
    if len(members) != len(infos):
        raise TorchFileError('the archive has two members of one name')
    prefixes = set()
    for name, info in members.items():
        # orig_filename: zipfile cuts a name at a null byte
        if _BAD_NAME.search(name) or _BAD_NAME.search(info.orig_filename):
            raise TorchFileError(f'the member {name[:80]!r} of the archive would lie outside of it')
        if info.flag_bits & 1:
            raise TorchFileError('the archive is encrypted')
        if info.file_size > max(_SMALL, limits.ratio * info.compress_size):
            raise TorchFileError(f'the member {name[:80]!r} is compressed so much that it must be a zip bomb')
        prefixes.add(name.partition('/')[0])
    if len(prefixes) != 1:
        raise TorchFileError('the archive has more than one folder: torch did not write it')
    if sum(info.compress_size for info in infos) > size:
        raise TorchFileError('the members of the archive overlap: it must be a zip bomb')
    if sum(info.file_size for info in infos) > limits.total:
        raise TorchFileError('the archive is too large')
    return members


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> bytes:
    if info.file_size > limit:
        raise TorchFileError(f'the member {info.filename!r} has {info.file_size} bytes, at most {limit} are read')
    with archive.open(info) as member:
        data = member.read(limit + 1)
    if len(data) != info.file_size:
        raise TorchFileError(f'the member {info.filename!r} is not as long as the archive says')
    return data


def _run(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, storages: Callable[[str], bytes], limits: Limits
) -> tuple[Any, Machine]:
    machine = Machine(io.BytesIO(_read(archive, info, limits.pickle)), storages)
    return machine.run(), machine


def _storages(path: Path, prefix: str, folder: str, members: dict[str, zipfile.ZipInfo]) -> Callable[[str], bytes]:
    """Return a reader of storages, which opens the file when a tensor is asked for its numbers."""

    def read(key: str) -> bytes:
        info = members.get(f'{prefix}/{folder}/{key}')
        if info is None:
            raise TorchFileError(f'the storage {key[:80]!r} is not in the file')
        try:
            with zipfile.ZipFile(path) as archive:
                return _read(archive, info, MAX_TENSOR_BYTES)
        except TorchFileError:
            raise
        except _ZIP_ERRORS as exception:
            raise TorchFileError(f'the storage {key!r} is damaged: {exception}') from None

    return read


def _read_code(archive: zipfile.ZipFile, names: dict[str, zipfile.ZipInfo], limits: Limits) -> dict[str, str]:
    sources = {name: info for name, info in names.items() if name.startswith('code/') and name.endswith('.py')}
    if sum(info.file_size for info in sources.values()) > limits.code:
        raise TorchFileError('the sources of the TorchScript archive are too long')
    return {
        name.removeprefix('code/'): _read(archive, info, limits.code).decode('utf-8') for name, info in sources.items()
    }


def _read_legacy(handle: IO[bytes], limits: Limits) -> TorchFile:
    """Read the pickles at the beginning of a file from before torch 1.6: version, system, and the saved object."""

    def refuse(_: str) -> bytes:
        raise TorchFileError('tensors of a file from before torch 1.6 cannot be read: save it again with a newer torch')

    machine = Machine(io.BytesIO(handle.read(limits.pickle)), refuse)
    version, system = machine.run(), machine.run()
    if version != 1001 or not isinstance(system, dict) or system.get('little_endian') is not True:
        raise TorchFileError('it begins as a torch file, and goes on otherwise')
    root = machine.run()
    return TorchFile('legacy', frozenset(machine.globals), root, tuple(machine.instances))
