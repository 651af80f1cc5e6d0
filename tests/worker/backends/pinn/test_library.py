"""Finding the right PiNN and TensorFlow, device and threads; most of it with packages made up for the test."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from aiida_mlpotential.worker.backends.base import Settings
from aiida_mlpotential.worker.backends.pinn import library
from aiida_mlpotential.worker.errors import WorkerError


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Return a function that makes packages, which hide any that are installed."""

    def loaded() -> list[str]:
        return [key for key in sys.modules if key.partition('.')[0] in ('pinn', 'tensorflow', 'tf_keras')]

    for module in loaded():
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv('TF_USE_LEGACY_KERAS', '1')

    def make(**sources: str) -> None:
        for name, text in sources.items():
            path = tmp_path.joinpath(*name.split('__'))
            path.mkdir(parents=True, exist_ok=True)
            (path / '__init__.py').write_text(text)
        importlib.invalidate_caches()

    yield make
    for module in loaded():  # those made up, which no other test shall take for installed ones
        del sys.modules[module]


RIGHT = {'pinn': '', 'pinn__networks': '', 'pinn__models': '', 'pinn__layers': ''}
TENSORFLOW = """
from types import SimpleNamespace as N
seen = []
keras = N(backend=N(set_floatx=seen.append))
config = N(experimental=N(enable_tensor_float_32_execution=seen.append))
"""


def _missing(*words: str) -> None:
    with pytest.raises(WorkerError) as caught:
        library.import_libraries()
    assert caught.value.label == 'ERROR_BACKEND_MISSING'
    for word in (*words, 'aiida-mlpotential backends install pinn'):
        assert word in caught.value.message


def _hide(monkeypatch, *names: str) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name in names else real(name))


def test_pinn_is_missing(monkeypatch):
    _hide(monkeypatch, 'pinn')
    _missing('PiNN is not installed')


@pytest.mark.parametrize('text', ['', 'def get_network(): pass', 'raise SystemExit("imported")'])
def test_the_other_project_of_that_name_is_told_apart_without_running_it(packages, text):
    packages(pinn=text, pinn__api='')
    _missing('the installed package pinn is another project of that name: uninstall it', 'Teoroo-CMC')


def test_a_module_of_that_name(tmp_path, packages):
    (tmp_path / 'pinn.py').write_text('')
    importlib.invalidate_caches()
    _missing('another project')


def test_tensorflow_is_missing(packages, monkeypatch):
    packages(**RIGHT)
    _hide(monkeypatch, 'tensorflow')
    _missing('TensorFlow is not installed')


def test_a_library_that_cannot_be_imported(packages):
    packages(**RIGHT, tensorflow='raise ImportError("libfoo.so is missing")', tf_keras='')
    _missing('cannot be imported (libfoo.so is missing)')


def test_keras_3_without_the_second_one(packages, monkeypatch):
    packages(**RIGHT, tensorflow=TENSORFLOW)
    _hide(monkeypatch, 'tf_keras')
    monkeypatch.setattr(importlib.metadata, 'version', lambda _: '3.15.1')
    _missing('needs Keras 2', 'tf-keras')


def test_the_second_keras_is_chosen(packages):
    packages(**RIGHT, tensorflow=TENSORFLOW + 'import os\nkind = os.environ["TF_USE_LEGACY_KERAS"]', tf_keras='')
    tensorflow, pinn = library.import_libraries()
    assert tensorflow.kind == '1'
    assert pinn.__name__ == 'pinn'
    assert tensorflow.seen == ['float32', False]  # single precision throughout, and no TF32


def test_an_old_tensorflow_is_not_sent_after_a_keras_that_it_does_not_have(packages, monkeypatch):
    packages(**RIGHT, tensorflow=TENSORFLOW)
    _hide(monkeypatch, 'tf_keras')
    monkeypatch.setattr(importlib.metadata, 'version', lambda _: '2.15.0')
    library.import_libraries()
    assert 'TF_USE_LEGACY_KERAS' not in os.environ


def _tensorflow(gpus: int):
    return SimpleNamespace(
        config=SimpleNamespace(list_physical_devices=lambda _: ['gpu'] * gpus),
        test=SimpleNamespace(is_built_with_cuda=lambda: gpus > 0),
    )


def test_the_device_that_is_asked_for():
    assert library.choose_device(_tensorflow(2), Settings(device='cuda:1')) == ('cuda:1', ())
    assert library.choose_device(_tensorflow(2), Settings(device='')) == ('cuda', ())
    assert library.choose_device(_tensorflow(2), Settings(device='cpu')) == ('cpu', ())
    assert library.choose_device(_tensorflow(0), Settings(device='')) == ('cpu', ())


def test_a_missing_gpu_is_an_error():
    with pytest.raises(WorkerError, match='there are 2 GPUs') as caught:
        library.choose_device(_tensorflow(2), Settings(device='cuda:2'))
    assert caught.value.label == 'ERROR_DEVICE_MISSING'
    with pytest.raises(WorkerError, match='without CUDA'):
        library.choose_device(_tensorflow(0), Settings(device='cuda'))


def test_a_missing_gpu_is_replaced_if_that_is_allowed():
    device, notes = library.choose_device(_tensorflow(0), Settings(device='cuda', device_fallback=True))
    assert device == 'cpu'
    assert 'computed on the CPU' in notes[0]


def test_threads(monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '3')
    monkeypatch.delenv('TF_NUM_INTRAOP_THREADS', raising=False)
    assert library.choose_threads(Settings(num_threads=2)) == 2
    assert library.choose_threads(Settings()) == 3
    monkeypatch.setenv('TF_NUM_INTRAOP_THREADS', '5')
    assert library.choose_threads(Settings()) == 5
    for name in ('OMP_NUM_THREADS', 'TF_NUM_INTRAOP_THREADS'):
        monkeypatch.setenv(name, '')
    assert library.choose_threads(Settings()) == len(os.sched_getaffinity(0))


def test_the_session_gets_device_and_threads(libraries):
    config = library.session_config(libraries[0], 'cpu', 3)
    assert (config.intra_op_parallelism_threads, config.inter_op_parallelism_threads) == (3, 1)
    assert config.device_count['GPU'] == 0
    config = library.session_config(libraries[0], 'cuda:1', 3)
    assert config.gpu_options.visible_device_list == '1'
    assert config.gpu_options.allow_growth


def test_tensorflow_keeps_to_the_threads_of_the_job(libraries, model):
    """In a process of its own, as TensorFlow takes the number once: OMP_NUM_THREADS alone does not reach it."""
    code = f"""
import os
from pathlib import Path
from aiida_mlpotential.worker.backends.base import Settings
from aiida_mlpotential.worker.backends.pinn import PinnBackend
from aiida_mlpotential.worker.schema import ModelSpec
path = Path({str(model)!r})
files = {{f'model/{{name}}': '' for name in PinnBackend.inspect(path).files}}
spec = ModelSpec('m', 'pinn', '', files)
backend = PinnBackend.load(spec, path.parent, Settings(device='cpu', num_threads=int(os.environ['ASKED'])))
print(backend.num_threads, len(os.listdir('/proc/self/task')))
"""
    seen = {}
    for asked in (1, 7):
        environment = {**os.environ, 'ASKED': str(asked), 'OMP_NUM_THREADS': '2'}
        output = subprocess.run(
            [sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=True
        )
        threads, tasks = map(int, output.stdout.split())
        assert threads == asked
        seen[asked] = tasks
    assert seen[7] == seen[1] + 6
