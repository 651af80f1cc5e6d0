"""The sources of pre-parameterised models; each gives the canonical parameter file, or says why it cannot."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from aiida_mlpotential.worker.backends.torchani.convert import read_state_dict
from aiida_mlpotential.worker.backends.torchani.parameters import AniParameters, ParametersError
from aiida_mlpotential.worker.frames import sha256_of
from aiida_mlpotential.worker.registry import HUB_ORGANISATION, WHEEL_REQUIREMENT, WHEEL_SHA256, PretrainedModel

from .settings import cache_directory, model_directories

#: Takes a line of progress, such as ``print`` or ``click.echo``.
Report = Callable[[str], object]

#: Seconds to wait for the first answer of a server, and for a whole download.
CONNECT_TIMEOUT = 10
DOWNLOAD_TIMEOUT = 600
_MAX_MEMBER_BYTES = 1 << 26


class SourceError(Exception):
    """A source does not have the model, or what it has is not right; the others may be tried."""


class Source(Protocol):
    """Something that may have the parameters of a model."""

    #: What messages call it.
    name: str
    #: Whether what it gives should be kept in the cache.
    cacheable: bool

    def fetch(self, model: PretrainedModel, target: Path, report: Report) -> str:
        """Write the canonical parameter file and return where the parameters came from, in words.

        :raises SourceError: if that is not possible
        """
        ...  # pragma: no cover


def verify(path: Path, model: PretrainedModel, what: str) -> None:
    """Check a canonical parameter file against the registry.

    :raises SourceError: naming both hashes
    """
    found = sha256_of(path)
    if found != model.sha256:
        raise SourceError(f'{what} has sha256 {found}, expected {model.sha256} for {model.name}')


def _copy(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())


class DirectorySource:
    """Directories that the user named, with canonical ``.npz`` files or torchani's state dicts."""

    name = 'directory'
    cacheable = False

    def __init__(self, directories: Sequence[Path] | None = None) -> None:
        self._directories = directories

    def fetch(self, model: PretrainedModel, target: Path, report: Report) -> str:
        """Copy or convert the first file that is right; a wrong one is reported and passed over."""
        directories = model_directories() if self._directories is None else self._directories
        if not directories:
            raise SourceError('no directory is configured')
        reasons: list[str] = []
        for directory in directories:
            for file in (model.file, model.state_dict):
                path = Path(directory) / file
                if not path.is_file():
                    continue
                try:
                    return self._use(path, model, target, report)
                except (SourceError, ParametersError, OSError) as exception:
                    reason = f'{path}: {exception}'
                    report(f'Passed over {reason}')
                    reasons.append(reason)
        if not reasons:
            raise SourceError(_nothing_in(directories, model))
        raise SourceError('; '.join(reasons))

    def _use(self, path: Path, model: PretrainedModel, target: Path, report: Report) -> str:
        if path.suffix == '.npz':
            _copy(path, target)
            verify(target, model, 'it')
        else:
            report(f'Converting {path}')
            read_state_dict(path, model).write(target)
            verify(target, model, 'its canonical form')
        return f'file: {path.name}'


def _nothing_in(directories: Sequence[Path], model: PretrainedModel) -> str:
    """Return that a model is in none of some directories, and which of them do not exist."""
    there = [str(directory) for directory in directories if Path(directory).is_dir()]
    reasons = [f'neither {model.file} nor {model.state_dict} in {", ".join(there)}'] if there else []
    reasons += [f'{directory} is no directory' for directory in directories if not Path(directory).is_dir()]
    return '; '.join(reasons)


class CacheSource:
    """What was downloaded or converted before, verified again each time."""

    name = 'cache'
    cacheable = False

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory

    @property
    def directory(self) -> Path:
        """Return where the cache is."""
        return cache_directory() if self._directory is None else self._directory

    def fetch(self, model: PretrainedModel, target: Path, report: Report) -> str:
        """Copy the cached file; one that is damaged or outdated is reported and removed."""
        path = self.directory / model.file
        try:
            _copy(path, target)
        except (FileNotFoundError, NotADirectoryError):
            raise SourceError('empty') from None
        except OSError as exception:
            raise SourceError(f'{path} cannot be read: {exception.strerror}') from None
        try:
            verify(target, model, str(path))
        except SourceError as exception:
            report(f'The cached file is not the registered version and will be replaced: {exception}')
            self._discard(path, report)
            raise
        return self._read_origin(path)

    @staticmethod
    def _discard(path: Path, report: Report) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as exception:
            report(f'The old file could not be removed: {exception}')

    @staticmethod
    def _read_origin(path: Path) -> str:
        try:
            return path.with_suffix('.source').read_text(encoding='utf-8').strip() or 'cache'
        except (OSError, UnicodeDecodeError):
            return 'cache'

    def keep(self, model: PretrainedModel, source: Path, origin: str, report: Report) -> None:
        """Put a verified file into the cache, so that another process sees it whole or not at all."""
        path = self.directory / model.file
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            _replace(path, source.read_bytes())
            _replace(path.with_suffix('.source'), f'{origin}\n'.encode())
        except OSError as exception:
            report(f'The model is used but cannot be kept in {self.directory}: {exception.strerror}')


def _replace(path: Path, content: bytes) -> None:
    """Write a file under another name and rename it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        with os.fdopen(handle, 'wb') as stream:
            stream.write(content)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


class HubSource:
    """The Hugging Face hub, where torchani publishes its state dicts."""

    name = 'hub'
    cacheable = True

    def fetch(self, model: PretrainedModel, target: Path, report: Report) -> str:
        """Download and convert the state dict."""
        for library in ('torch', 'huggingface_hub'):
            if importlib.util.find_spec(library) is None:
                raise SourceError(f'needs {library}: pip install "aiida-mlpotential[torchani]"')
        repository = f'{HUB_ORGANISATION}/{model.state_dict.removesuffix("_state_dict.pt")}'
        report(f'Downloading {model.state_dict} of {repository} from the Hugging Face hub')
        with tempfile.TemporaryDirectory() as directory:
            path = self._download(repository, model.state_dict, Path(directory))
            try:
                read_state_dict(path, model).write(target)
            except (ParametersError, OSError) as exception:
                raise SourceError(str(exception)) from exception
        verify(target, model, 'the canonical form of the download')
        return f'Hugging Face hub: {repository}'

    @staticmethod
    def _download(repository: str, file: str, directory: Path) -> Path:
        """Download a file in a process of its own, because the library retries for longer than anyone waits."""
        script = (
            'import sys; from huggingface_hub import hf_hub_download; '
            'hf_hub_download(repo_id=sys.argv[1], filename=sys.argv[2], local_dir=sys.argv[3], etag_timeout=5)'
        )
        probe = 'import sys; from huggingface_hub import HfApi; HfApi().model_info(sys.argv[1], timeout=5)'
        try:
            _run_python(['-c', probe, repository], CONNECT_TIMEOUT)
        except SourceError as exception:
            raise SourceError(f'not reachable ({exception})') from None
        _run_python(['-c', script, repository, file, str(directory)], DOWNLOAD_TIMEOUT)
        return directory / file


class WheelSource:
    """The wheel of torchani 2.0 on PyPI, which carries the NeuroChem files of ANI-1x and ANI-1ccx."""

    name = 'PyPI'
    cacheable = True

    def fetch(self, model: PretrainedModel, target: Path, report: Report) -> str:
        """Download the wheel, check its hash, and convert the files of the model."""
        if not model.wheel_directory:
            raise SourceError('not in the wheel')
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            report(f'Downloading the wheel {WHEEL_REQUIREMENT} from PyPI')
            wheel = self._download(directory)
            found = sha256_of(wheel)
            if found != WHEEL_SHA256:
                raise SourceError(f'{wheel.name} has sha256 {found}, expected {WHEEL_SHA256}')
            try:
                extract_neurochem(wheel, model, directory / 'files')
                AniParameters.from_neurochem(directory / 'files', model).write(target)
            except (zipfile.BadZipFile, ValueError, OSError) as exception:
                raise SourceError(f'{wheel.name} does not hold {model.name}: {exception}') from exception
        verify(target, model, 'the canonical form of the wheel')
        return f'PyPI: {WHEEL_REQUIREMENT}'

    @staticmethod
    def _download(directory: Path) -> Path:
        quiet = ['--quiet', '--disable-pip-version-check', '--no-input', '--no-cache-dir']
        limits = ['--timeout', str(CONNECT_TIMEOUT), '--retries', '0']
        what = ['--no-deps', '--only-binary', ':all:', '--dest', str(directory), WHEEL_REQUIREMENT]
        _run_python(['-m', 'pip', 'download', *quiet, *limits, *what], DOWNLOAD_TIMEOUT)
        wheels = sorted(directory.glob('*.whl'))
        if len(wheels) != 1:
            raise SourceError(f'pip left {len(wheels)} wheels, expected one')
        return wheels[0]


def extract_neurochem(wheel: Path, model: PretrainedModel, target: Path) -> None:
    """Extract the weights of a model from the wheel, to paths that are made here, not taken from the archive.

    :raises ValueError: if a member is larger than any weights are
    """
    pattern = re.compile(
        rf'{re.escape(model.wheel_directory)}/train(\d{{1,3}})/networks/(ANN-[A-Z][a-z]?\.nnf-l\d{{1,2}}\.[wb]param)'
    )
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            match = pattern.fullmatch(info.filename)
            if match is None:
                continue
            if info.file_size > _MAX_MEMBER_BYTES:
                raise ValueError(f'{info.filename} is too large')
            path = target / f'train{int(match[1])}' / 'networks' / match[2]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.read(info))


def _run_python(arguments: Sequence[str], timeout: int) -> None:
    """Run this interpreter and turn any failure into the last line of what it said."""
    try:
        process = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise SourceError(f'no answer within {timeout} s') from None
    except OSError as exception:
        raise SourceError(f'{sys.executable} cannot be started: {exception.strerror}') from None
    if process.returncode != 0:
        lines = [line.strip() for line in process.stderr.splitlines() if line.strip()]
        raise SourceError(lines[-1][:300] if lines else f'failed with exit code {process.returncode}')


def default_sources() -> tuple[Source, ...]:
    """Return the sources in the order in which they are tried."""
    return DirectorySource(), CacheSource(), HubSource(), WheelSource()
