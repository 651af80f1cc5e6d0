"""Tests of the sources of models, one by one."""

import importlib.util
import subprocess
import sys
import time
import zipfile

import pytest

from aiida_mlpotential.library import sources
from aiida_mlpotential.library.sources import (
    CacheSource,
    DirectorySource,
    HubSource,
    SourceError,
    WheelSource,
    default_sources,
    extract_neurochem,
)
from aiida_mlpotential.worker.frames import sha256_of
from aiida_mlpotential.worker.registry import PRETRAINED


@pytest.fixture
def target(tmp_path):
    return tmp_path / 'target.npz'


@pytest.fixture
def lines():
    return []


def test_order():
    assert [source.name for source in default_sources()] == ['directory', 'cache', 'hub', 'PyPI']


def test_directory_with_canonical_file(sample, tmp_path, target, lines):
    sample.put(tmp_path / 'b')
    origin = DirectorySource([tmp_path / 'a', tmp_path / 'b']).fetch(sample.model, target, lines.append)
    assert origin == 'file: anitest.npz'
    assert target.read_bytes() == sample.content
    assert lines == []


def test_directory_of_the_variable(sample, tmp_path, target, lines, monkeypatch):
    with pytest.raises(SourceError, match='no directory is configured'):
        DirectorySource().fetch(sample.model, target, lines.append)
    monkeypatch.setenv('AIIDA_MLPOTENTIAL_MODELS', f'{tmp_path / "b"}:{tmp_path / "gone"}')
    with pytest.raises(SourceError, match=r'^\S*/b is no directory; \S*/gone is no directory$'):
        DirectorySource().fetch(sample.model, target, lines.append)
    (tmp_path / 'b').mkdir()
    with pytest.raises(SourceError, match=r'neither anitest\.npz nor anitest_state_dict\.pt in \S*/b; \S*/gone is no'):
        DirectorySource().fetch(sample.model, target, lines.append)
    sample.put(tmp_path / 'b')
    DirectorySource().fetch(sample.model, target, lines.append)
    assert target.read_bytes() == sample.content


def test_directory_with_wrong_file(sample, tmp_path, target, lines):
    """The message has both hashes; a right file further on is still found."""
    sample.put(tmp_path / 'a', sample.content[:-1] + b'\0\0')
    with pytest.raises(SourceError, match=f'has sha256 [0-9a-f]{{64}}, expected {sample.model.sha256} for ANI-test'):
        DirectorySource([tmp_path / 'a']).fetch(sample.model, target, lines.append)
    sample.put(tmp_path / 'b')
    DirectorySource([tmp_path / 'a', tmp_path / 'b']).fetch(sample.model, target, lines.append)
    assert target.read_bytes() == sample.content
    assert all(line.startswith(f'Passed over {tmp_path / "a"}') for line in lines)
    assert len(lines) == 2


def test_directory_with_damaged_state_dict(sample, tmp_path, target, lines):
    pytest.importorskip('torch')
    (tmp_path / sample.model.state_dict).write_bytes(b'damaged')
    with pytest.raises(SourceError, match='is damaged or holds more than tensors'):
        DirectorySource([tmp_path]).fetch(sample.model, target, lines.append)


@pytest.mark.parametrize('name', ['ANI-2x', 'ANI-1ccx', 'ANI-1x'])
def test_directory_with_published_state_dict(name, shared_data, target, lines):
    pytest.importorskip('torch')
    source = DirectorySource([shared_data / 'models' / 'torchani'])
    model = PRETRAINED[name]
    assert source.fetch(model, target, lines.append) == f'file: {model.state_dict}'
    sources.verify(target, model, 'it')


def test_cache_keeps_and_gives_back(sample, tmp_path, target, lines, own_home):
    cache = CacheSource()
    with pytest.raises(SourceError, match='empty'):
        cache.fetch(sample.model, target, lines.append)
    cache.keep(sample.model, sample.put(tmp_path / 'x'), 'PyPI: x==1', lines.append)
    directory = own_home / 'cache' / 'aiida-mlpotential' / 'models'
    assert sorted(path.name for path in directory.iterdir()) == ['anitest.npz', 'anitest.source']
    assert cache.fetch(sample.model, target, lines.append) == 'PyPI: x==1'
    assert target.read_bytes() == sample.content
    (directory / 'anitest.source').unlink()
    assert cache.fetch(sample.model, target, lines.append) == 'cache'
    assert lines == []


def test_damaged_cache_is_noticed_and_removed(sample, tmp_path, target, lines):
    path = sample.put(tmp_path, sample.content[:-5])
    with pytest.raises(SourceError, match='has sha256'):
        CacheSource(tmp_path).fetch(sample.model, target, lines.append)
    assert not path.exists()
    assert len(lines) == 1
    assert lines[0].startswith('The cached file is not the registered version and will be replaced')


def test_cache_is_written_whole_or_not_at_all(sample, tmp_path, lines, monkeypatch):
    """A write that fails leaves what was there, and no litter."""
    cache = CacheSource(tmp_path / 'cache')
    old = sample.put(tmp_path / 'cache', b'old')

    def fail(self, other):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('pathlib.Path.replace', fail)
    cache.keep(sample.model, sample.put(tmp_path / 'x'), 'somewhere', lines.append)
    assert old.read_bytes() == b'old'
    assert [path.name for path in old.parent.iterdir()] == [old.name]
    assert 'No space left on device' in lines[0]


def test_cache_that_is_no_directory(sample, tmp_path, target, lines):
    (tmp_path / 'file').touch()
    cache = CacheSource(tmp_path / 'file')
    with pytest.raises(SourceError, match='empty'):
        cache.fetch(sample.model, target, lines.append)
    cache.keep(sample.model, sample.put(tmp_path / 'x'), 'somewhere', lines.append)
    assert 'cannot be kept' in lines[0]


def fake_download(content, name='torchani-2.0-py3-none-any.whl'):
    """Return what stands in for WheelSource._download."""

    def download(directory):
        (directory / name).write_bytes(content)
        return directory / name

    return staticmethod(download)


def test_wheel(sample, tmp_path, target, lines, monkeypatch):
    monkeypatch.setattr(WheelSource, '_download', fake_download(sample.wheel))
    assert WheelSource().fetch(sample.model, target, lines.append) == 'PyPI: torchani==2.0'
    assert target.read_bytes() == sample.content
    assert lines == ['Downloading the wheel torchani==2.0 from PyPI']


def test_wheel_is_checked_before_it_is_read(sample, target, lines, monkeypatch):
    monkeypatch.setattr(WheelSource, '_download', fake_download(sample.wheel + b'x'))
    monkeypatch.setattr(sources, 'extract_neurochem', lambda *_: pytest.fail('an unverified wheel was read'))
    with pytest.raises(SourceError, match=r'\.whl has sha256 [0-9a-f]{64}, expected [0-9a-f]{64}'):
        WheelSource().fetch(sample.model, target, lines.append)


def test_wheel_without_the_model(sample, target, lines, monkeypatch):
    with pytest.raises(SourceError, match='not in the wheel'):
        WheelSource().fetch(PRETRAINED['ANI-2x'], target, lines.append)
    content = b'no zip file'
    monkeypatch.setattr(sources, 'WHEEL_SHA256', sha256_of(content))
    monkeypatch.setattr(WheelSource, '_download', fake_download(content))
    with pytest.raises(SourceError, match='does not hold ANI-test'):
        WheelSource().fetch(sample.model, target, lines.append)


def test_only_weights_are_extracted(sample, tmp_path):
    """Members with .. in their names, or of no weights, stay in the archive."""
    wheel = tmp_path / 'a' / 'x.whl'
    wheel.parent.mkdir()
    wheel.write_bytes(sample.wheel)
    files = tmp_path / 'a' / 'b' / 'files'
    extract_neurochem(wheel, sample.model, files)
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob('*') if path.is_file()}
    stems = [f'a/b/files/train{member}/networks/ANN-H.nnf-l{index}' for member in (0, 1) for index in (1, 2)]
    assert found == {'a/x.whl'} | {f'{stem}.{kind}param' for stem in stems for kind in 'wb'}


def test_huge_member_is_refused(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, '_MAX_MEMBER_BYTES', 10)
    (tmp_path / 'x.whl').write_bytes(sample.wheel)
    with pytest.raises(ValueError, match='is too large'):
        extract_neurochem(tmp_path / 'x.whl', sample.model, tmp_path / 'files')


def test_pip_is_called_for_one_wheel(sample, tmp_path, target, lines, monkeypatch):
    calls = []
    monkeypatch.setattr(sources, '_run_python', lambda arguments, timeout: calls.append((arguments, timeout)))
    with pytest.raises(SourceError, match='pip left 0 wheels, expected one'):
        WheelSource().fetch(sample.model, target, lines.append)
    ((arguments, timeout),) = calls
    assert arguments[:3] == ['-m', 'pip', 'download']
    assert {'--no-deps', '--only-binary', ':all:', 'torchani==2.0'} <= set(arguments)
    assert arguments[arguments.index('--retries') + 1] == '0'
    assert timeout == sources.DOWNLOAD_TIMEOUT


def test_hub(sample, shared_data, target, lines, monkeypatch):
    """The state dict is converted and verified, whatever the hub sent."""
    pytest.importorskip('torch')
    model = PRETRAINED['ANI-1ccx']
    content = (shared_data / 'models' / 'torchani' / model.state_dict).read_bytes()

    def download(repository, file, directory):
        assert (repository, file) == ('roitberg-group/ani1ccx', 'ani1ccx_state_dict.pt')
        (directory / file).write_bytes(content)
        return directory / file

    monkeypatch.setattr(HubSource, '_download', staticmethod(download))
    assert HubSource().fetch(model, target, lines.append) == 'Hugging Face hub: roitberg-group/ani1ccx'
    sources.verify(target, model, 'it')
    content = content[:-100]
    with pytest.raises(SourceError, match='is damaged'):
        HubSource().fetch(model, target, lines.append)


def test_hub_that_does_not_answer(sample, target, lines, monkeypatch):
    for library in ('torch', 'huggingface_hub'):
        pytest.importorskip(library)
    monkeypatch.setattr(sources, 'CONNECT_TIMEOUT', 0.01)
    start = time.perf_counter()
    with pytest.raises(SourceError, match=r'^not reachable \(no answer within 0\.01 s\)$'):
        HubSource().fetch(sample.model, target, lines.append)
    assert time.perf_counter() - start < 30


def test_hub_asks_before_it_downloads(sample, tmp_path, monkeypatch):
    """The quick question has a short limit, the download a long one."""
    calls = []
    monkeypatch.setattr(sources, '_run_python', lambda arguments, timeout: calls.append(timeout))
    assert HubSource._download('a/b', 'c.pt', tmp_path) == tmp_path / 'c.pt'
    assert calls == [sources.CONNECT_TIMEOUT, sources.DOWNLOAD_TIMEOUT]


@pytest.mark.parametrize('library', ['torch', 'huggingface_hub'])
def test_hub_without_its_libraries(library, sample, target, lines, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == library else real('json'))
    with pytest.raises(SourceError, match=rf'needs {library}: pip install "aiida-mlpotential\[torchani\]"'):
        HubSource().fetch(sample.model, target, lines.append)


def test_failures_of_a_subprocess_are_one_line(monkeypatch):
    script = 'import sys; sys.stderr.write("long\\ntrace\\nERROR: the cause\\n\\n"); sys.exit(1)'
    with pytest.raises(SourceError, match=r'^ERROR: the cause$'):
        sources._run_python(['-c', script], 60)
    with pytest.raises(SourceError, match='failed with exit code 3'):
        sources._run_python(['-c', 'raise SystemExit(3)'], 60)
    with pytest.raises(SourceError, match='no answer within 1 s'):
        sources._run_python(['-c', 'import time; time.sleep(60)'], 1)
    monkeypatch.setattr(sys, 'executable', '/nowhere/python')
    with pytest.raises(SourceError, match='cannot be started'):
        sources._run_python(['-c', ''], 1)


def test_import_does_no_work():
    """Neither torch nor the network is touched by the import."""
    script = 'import sys, socket; socket.socket.connect = None; import aiida_mlpotential.library; print(*sys.modules)'
    result = subprocess.run([sys.executable, '-c', script], check=True, timeout=60, capture_output=True, text=True)
    loaded = set(result.stdout.split())
    assert 'aiida_mlpotential.library' in loaded
    assert not {'torch', 'torchani', 'huggingface_hub', 'ase', 'pandas'} & loaded


@pytest.mark.slow
@pytest.mark.parametrize('name', ['ANI-1ccx', 'ANI-1x'])
def test_wheel_of_pypi(name, target, lines):
    model = PRETRAINED[name]
    try:
        origin = WheelSource().fetch(model, target, lines.append)
    except SourceError as exception:
        if 'sha256' in str(exception) or 'does not hold' in str(exception):
            raise
        pytest.skip(f'PyPI does not answer: {exception}')
    assert origin == 'PyPI: torchani==2.0'
    sources.verify(target, model, 'it')
    assert zipfile.is_zipfile(target)
