"""The outside of torch files: the zip archive of ``torch.save`` and of TorchScript, and the format before torch 1.6."""

from __future__ import annotations

import dataclasses
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Any

from .machine import Machine
from .values import MAX_TENSOR_BYTES, Instance, TorchFileError

#: How a file that torch wrote before version 1.6 begins: a pickled magic number.
_LEGACY_START = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'
#: What a damaged zip file may raise; RuntimeError is for one that is encrypted.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, struct.error, ValueError, RuntimeError, OSError, OverflowError)
_BAD_NAME = re.compile(r'^/|^[A-Za-z]:|\\|\x00|(^|/)\.\.(/|$)')
#: Members of an archive that torch needs, beside tensors and sources.
_MEMBERS = ('data.pkl', 'constants.pkl', 'version', '.data/version', 'byteorder')
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
    #: Bytes of storages that are read while looking at a file, each as often as it is read.
    read: int = 8 << 30


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


def read_torch_file(path: str | Path | io.BytesIO, limits: Limits = LIMITS) -> TorchFile:
    """Read a torch file without running anything in it.

    :param path: file written by ``torch.save`` or ``torch.jit.save``, or its content
    :raises TorchFileError: if it is something else, damaged, hostile or too large; it says which
    :raises FileNotFoundError: if there is no such file
    """
    source = path if isinstance(path, io.BytesIO) else Path(path)
    if isinstance(source, Path) and not source.is_file():
        raise FileNotFoundError(f'there is no file {str(path)!r}')
    with _opened(source) as handle:
        start = handle.read(len(_LEGACY_START))
        if start == _LEGACY_START:
            return _read_legacy(handle, limits)
        if not start.startswith(b'PK\x03\x04'):
            raise TorchFileError('it is neither a zip archive nor a pickle of torch, so torch did not write it')
        _check_directory(handle, limits)
        size = handle.seek(0, io.SEEK_END)
    return _read_archive(source, size, limits)


def open_torch_file(path: str | Path, limits: Limits = LIMITS) -> tuple[TorchFile, io.BytesIO]:
    """Return what :func:`read_torch_file` does, and the same content for ``torch.load`` or ``torch.jit.load``.

    torch reads archives with code of its own, which sees other members than this in a file made for that. So it is
    given a new archive of exactly the members that were judged, from the bytes that were: whoever changes the file
    meanwhile changes nothing. Bytecode and debug information, which nobody judged, are left out.

    :raises TorchFileError: if the file is something else, damaged, hostile or too large; it says which
    :raises FileNotFoundError: if there is no such file
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'there is no file {str(path)!r}')
    content = io.BytesIO(Path(path).read_bytes())
    file = read_torch_file(content, limits)
    content.seek(0)
    return file, content if file.kind == 'legacy' else _repacked(content, limits)


def _repacked(content: io.BytesIO, limits: Limits) -> io.BytesIO:
    target = io.BytesIO()
    try:
        with zipfile.ZipFile(content) as source, zipfile.ZipFile(target, 'w', zipfile.ZIP_STORED) as copy:
            for info in source.infolist():
                inner = info.filename.partition('/')[2]
                wanted = inner in _MEMBERS or inner.startswith(('data/', 'constants/'))
                if wanted or (inner.startswith('code/') and inner.endswith('.py')):
                    copy.writestr(info.filename, _read(source, info, limits.total))
    except _ZIP_ERRORS as exception:
        if isinstance(exception, TorchFileError):
            raise
        raise TorchFileError(f'the zip archive is damaged: {type(exception).__name__}: {exception}') from None
    target.seek(0)
    return target


def _opened(source: Path | io.BytesIO) -> AbstractContextManager[IO[bytes]]:
    """Return a stream that is closed in the end if it was opened here."""
    return source.open('rb') if isinstance(source, Path) else nullcontext(source)


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


def _read_archive(path: Path | io.BytesIO, size: int, limits: Limits) -> TorchFile:
    try:
        with zipfile.ZipFile(path) as archive:
            members = _checked_members(archive, size, limits)
            prefix = next(iter(members)).partition('/')[0]
            names = {name.partition('/')[2]: info for name, info in members.items()}
            if 'data.pkl' not in names:
                raise TorchFileError('a zip archive, but without data.pkl: torch did not write it')
            if 'byteorder' in names and _read(archive, names['byteorder'], 16) != b'little':
                raise TorchFileError('it was written on a big-endian machine: save it again on an ordinary one')
            script = 'constants.pkl' in names
            root, machine = _run(archive, names['data.pkl'], _Storages(path, f'{prefix}/data', members, limits), limits)
            code: dict[str, str] = {}
            if script:
                storages = _Storages(path, f'{prefix}/constants', members, limits)
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


def _run(archive: zipfile.ZipFile, info: zipfile.ZipInfo, storages: _Storages, limits: Limits) -> tuple[Any, Machine]:
    machine = Machine(io.BytesIO(_read(archive, info, limits.pickle)), storages.read, storages.size)
    return machine.run(), machine


class _Storages:
    """The storages of an archive, which is opened again when a tensor is asked for its numbers."""

    def __init__(
        self, path: Path | io.BytesIO, folder: str, members: Mapping[str, zipfile.ZipInfo], limits: Limits
    ) -> None:
        self._path, self._folder, self._members = path, folder, members
        self._left = limits.read
        self._last = ('', b'')

    def _info(self, key: str) -> zipfile.ZipInfo:
        info = self._members.get(f'{self._folder}/{key}')
        if info is None:
            raise TorchFileError(f'the storage {key[:80]!r} is not in the file')
        return info

    def size(self, key: str) -> int:
        """Return the bytes of a storage, as the archive states them."""
        return self._info(key).file_size

    def read(self, key: str) -> bytes:
        """Return a storage; the last one is kept, for there may be many tensors in one."""
        info = self._info(key)
        if self._last[0] != key:
            self._left -= info.file_size
            if self._left < 0:
                raise TorchFileError('its tensors share numbers in a way that reading them would have no end')
            try:
                with zipfile.ZipFile(self._path) as archive:
                    self._last = (key, _read(archive, info, MAX_TENSOR_BYTES))
            except TorchFileError:
                raise
            except _ZIP_ERRORS as exception:
                raise TorchFileError(f'the storage {key!r} is damaged: {exception}') from None
        return self._last[1]


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

    stream = io.BytesIO(handle.read(limits.pickle))
    machine = Machine(stream, refuse)
    version, system = machine.run(), machine.run()
    if version != 1001 or not isinstance(system, dict) or system.get('little_endian') is not True:
        raise TorchFileError('it begins as a torch file, and goes on otherwise')
    root = machine.run()
    if stream.getbuffer().nbytes > stream.tell():
        machine.run()  # the keys of the storages, which follow; torch unpickles them as well
    return TorchFile('legacy', frozenset(machine.globals), root, tuple(machine.instances))
