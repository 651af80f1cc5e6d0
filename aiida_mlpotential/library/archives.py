"""A model as one file to pass on: a zip archive of ``model.json`` and the parameter files, the same bytes each time.

An archive comes from anybody. Nothing in it is believed: paths, sizes and kinds of its entries are checked before any
is read, every file against its sha256, and whether its maker is trusted is for the reader to say, not for the archive.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

from aiida_mlpotential.data.model import PARAMETERS_DIRECTORY, ModelData
from aiida_mlpotential.data.model_files import MAX_BYTES, MAX_FILES, check_names, copy_parameters, show
from aiida_mlpotential.worker.backends.base import ModelFileError
from aiida_mlpotential.worker.frames import sha256_of

from .manifest import FORMAT, MANIFEST_FILE, MAX_MANIFEST, Manifest

SUFFIX = '.zip'

#: An entry must not be so many times its compressed size; parameters are random numbers, which do not compress.
MAX_RATIO = 100
_RATIO_FROM = 1 << 20
#: Bytes that the table of contents may have for each entry: fixed fields, name, extra fields.
_MAX_ENTRY = 1000
_END, _END_SIZE, _END64 = b'PK\x05\x06', 22, b'PK\x06\x07'
#: Flags that change nothing but the compression, the place of the checksum and the encoding of names.
_HARMLESS_FLAGS = 0x2 | 0x4 | 0x8 | 0x800
_BLOCK = 1 << 20
_TIME = (1980, 1, 1, 0, 0, 0)


@dataclasses.dataclass(frozen=True)
class UnpackedModel:
    """An exported model in a private folder, all of its files verified.

    :ivar manifest: what stands in ``model.json``
    :ivar paths: the parameter file or directory, for each member of a committee
    """

    manifest: Manifest
    paths: tuple[Path, ...]


def is_export(path: Path) -> bool:
    """Return whether a path is an exported model: an archive, or a directory to which one was unpacked."""
    if path.suffix.lower() == SUFFIX:
        return True
    manifest = path / MANIFEST_FILE
    try:
        if not stat.S_ISREG(manifest.lstat().st_mode):
            return False
        with manifest.open('rb') as stream:
            data = json.loads(stream.read(MAX_MANIFEST + 1))
    except (OSError, ValueError, RecursionError):  # parameters of a model may have such a file for something else
        return False
    return isinstance(data, dict) and data.get('format') == FORMAT


def write_archive(node: ModelData, stream: IO[bytes]) -> None:
    """Write a model: the bytes depend on the node alone, and hold neither its UUID nor its trust.

    :raises ValueError: if a file in the repository is damaged
    """
    manifest = Manifest.of(node)
    with zipfile.ZipFile(stream, 'w', compression=zipfile.ZIP_STORED) as archive:
        archive.writestr(_entry(MANIFEST_FILE), manifest.to_json())
        for file, expected in sorted(node.files.items()):
            path = f'{PARAMETERS_DIRECTORY}/{file}'
            digest = hashlib.sha256()
            with node.base.repository.open(path, 'rb') as source, archive.open(_entry(path), 'w') as target:
                while block := source.read(_BLOCK):
                    digest.update(block)
                    target.write(block)
            if digest.hexdigest() != expected:
                raise ValueError(
                    f'the file {show(file)} of {node.name} has sha256 {digest.hexdigest()}, expected {expected}: '
                    'the repository of the profile is damaged'
                )


def _entry(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, date_time=_TIME)
    info.create_system = 3  # permissions are those of Unix
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    return info


def unpack(path: Path, folder: Path) -> UnpackedModel:
    """Copy an exported model to a private folder and verify it.

    :param path: an archive, or a directory to which one was unpacked
    :param folder: empty directory
    :raises FileNotFoundError: if there is no such file
    :raises ModelFileError: if anything in it is not as an export has it; nothing is written outside the folder then
    """
    copy = copy_parameters(path, folder, lambda _: None).path
    if copy.is_dir():
        root = copy
    else:
        root = folder / 'unpacked'
        root.mkdir()
        try:
            _extract(copy, root)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError, ValueError, struct.error) as exception:
            if isinstance(exception, ModelFileError):
                raise
            raise ModelFileError(f'{show(path)} is no zip archive, or damaged: {exception}') from exception
    if not (root / MANIFEST_FILE).is_file():
        raise ModelFileError(
            f'{show(path)} has no {MANIFEST_FILE}, so it is no exported model: name the parameter file itself, and '
            f'rename one that happens to end in {SUFFIX}'
        )
    manifest = Manifest.from_json((root / MANIFEST_FILE).read_bytes())
    _verify(root / PARAMETERS_DIRECTORY, manifest, root)
    return UnpackedModel(manifest, _member_paths(root / PARAMETERS_DIRECTORY, manifest))


def _extract(path: Path, root: Path) -> None:
    """Extract an archive whose entries have all been found harmless."""
    _check_end(path)
    with zipfile.ZipFile(path) as archive:
        entries = [info for info in archive.infolist() if not _is_folder(info)]
        check_names([info.filename for info in entries])
        if len({info.filename for info in entries}) != len(entries):
            raise ModelFileError('the archive has an entry twice: export the model anew')
        for info in entries:
            _check_entry(info)
        total = sum(info.file_size for info in entries)
        if total > MAX_BYTES + MAX_MANIFEST:
            raise ModelFileError(f'the archive would be {total / 1e9:.1f} GB, allowed are {MAX_BYTES / 1e9:g} GB')
        for info in entries:
            target = root / info.filename
            target.parent.mkdir(parents=True, exist_ok=True)
            left = info.file_size
            with archive.open(info) as source, target.open('xb') as copy:
                while block := source.read(_BLOCK):
                    left -= len(block)
                    if left < 0:
                        raise ModelFileError(f'{show(info.filename)} in the archive is larger than it says')
                    copy.write(block)


def _check_end(path: Path) -> None:
    """Refuse an archive whose table of contents alone would fill the memory: zipfile reads all of it at once."""
    size = path.stat().st_size
    with path.open('rb') as stream:
        stream.seek(max(0, size - _END_SIZE - 0xFFFF))
        tail = stream.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _END_SIZE:
        raise ModelFileError(f'{show(path.name)} is no zip archive, or the end of it is missing: get it again')
    number, length = struct.unpack_from('<HL', tail, at + 10)
    if tail[max(0, at - 20) : at].startswith(_END64) or number > MAX_FILES + 1 or length > MAX_FILES * _MAX_ENTRY:
        raise ModelFileError(f'the archive has too many entries, allowed are {MAX_FILES}: it is no exported model')


def _is_folder(info: zipfile.ZipInfo) -> bool:
    """Return whether an entry is a folder with nothing in it, as other programs write for every directory."""
    return info.filename == f'{PARAMETERS_DIRECTORY}/' and info.file_size == 0


def _check_entry(info: zipfile.ZipInfo) -> None:
    name, kind = info.filename, stat.S_IFMT(info.external_attr >> 16)
    if name != info.orig_filename or not (name == MANIFEST_FILE or name.startswith(f'{PARAMETERS_DIRECTORY}/')):
        raise ModelFileError(f'{show(info.orig_filename)} in the archive is no part of an exported model')
    if kind not in (0, stat.S_IFREG):
        raise ModelFileError(f'{show(name)} in the archive is a link or a device, not a file')
    if info.flag_bits & ~_HARMLESS_FLAGS:
        raise ModelFileError(f'{show(name)} in the archive is encrypted or of an unknown kind: export the model anew')
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ModelFileError(f'{show(name)} in the archive is compressed in an unknown way: pack it with deflate')
    if name == MANIFEST_FILE and info.file_size > MAX_MANIFEST:
        raise ModelFileError(f'{MANIFEST_FILE} in the archive is larger than {MAX_MANIFEST} bytes')
    if info.file_size > _RATIO_FROM and info.file_size > MAX_RATIO * max(info.compress_size, 1):
        raise ModelFileError(
            f'{show(name)} in the archive is {info.file_size} bytes in {info.compress_size}, which no parameters are: '
            'it is a zip bomb'
        )


def _verify(folder: Path, manifest: Manifest, root: Path) -> None:
    """Compare the files with the list of them, and each with its hash."""
    there = {path.relative_to(folder).as_posix(): path for path in folder.rglob('*') if path.is_file()}
    others = [path for path in root.iterdir() if path.name not in (MANIFEST_FILE, PARAMETERS_DIRECTORY)]
    wrong = sorted(set(there) ^ set(manifest.files)) + [path.name for path in others]
    if wrong:
        raise ModelFileError(f'the files are not those that {MANIFEST_FILE} lists: {show(wrong[0])}')
    for file, expected in manifest.files.items():
        found = sha256_of(there[file])
        if found != expected:
            raise ModelFileError(f'the file {show(file)} has sha256 {found}, expected {expected}: get the model again')


def _member_paths(folder: Path, manifest: Manifest) -> tuple[Path, ...]:
    """Return what to import: the file where there is one, else the directory; for a committee one each."""
    if not manifest.committee:
        return (_only_file(folder),)
    return tuple(_only_file(member) for member in sorted(folder.iterdir()))


def _only_file(folder: Path) -> Path:
    items = list(folder.iterdir())
    return items[0] if len(items) == 1 and items[0].is_file() else folder
