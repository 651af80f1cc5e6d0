"""What the backends on torch share: the device is the one asked for, or the job says so."""

from __future__ import annotations

import sys

import pytest

from aiida_mlpotential.worker.backends.base import Settings
from aiida_mlpotential.worker.backends.torch_device import (
    choose_device,
    free_memory,
    import_torch,
    memory_errors,
    out_of_memory,
)
from aiida_mlpotential.worker.errors import OutOfMemory, WorkerError


class Cuda:
    def __init__(self, number: int) -> None:
        self.number = number
        self.emptied = False

    def is_available(self) -> bool:
        return self.number > 0

    def device_count(self) -> int:
        return self.number

    def empty_cache(self) -> None:
        self.emptied = True


class Torch:
    """As much of torch as the choice of a device needs."""

    def __init__(self, number: int, built: str | None = '13.0') -> None:
        self.cuda = Cuda(number)
        self.version = type('Version', (), {'cuda': built})


@pytest.fixture
def torch(monkeypatch):
    def install(number: int, built: str | None = '13.0') -> Torch:
        fake = Torch(number, built)
        monkeypatch.setitem(sys.modules, 'torch', fake)
        return fake

    return install


def test_a_gpu_is_taken_where_nobody_says_otherwise(torch):
    torch(2)
    assert choose_device(Settings()) == ('cuda', ())
    assert choose_device(Settings(device='cpu')) == ('cpu', ())
    assert choose_device(Settings(device='cuda:1')) == ('cuda:1', ())
    torch(0)
    assert choose_device(Settings()) == ('cpu', ())


def test_a_gpu_that_is_not_there_is_an_error(torch):
    torch(2)
    with pytest.raises(WorkerError, match='cuda:2 was asked for, but there are 2 GPUs: ask the scheduler') as caught:
        choose_device(Settings(device='cuda:2'))
    assert caught.value.label == 'ERROR_DEVICE_MISSING'


def test_a_torch_without_cuda_is_named(torch):
    torch(0, built=None)
    with pytest.raises(WorkerError, match='built without CUDA'):
        choose_device(Settings(device='cuda'))


def test_the_cpu_may_take_over_and_says_so(torch):
    torch(0)
    device, notes = choose_device(Settings(device='cuda', device_fallback=True))
    assert device == 'cpu'
    assert notes == ('cuda was asked for, but there are 0 GPUs: computed on the CPU',)


def test_a_missing_torch_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch', None)
    with pytest.raises(WorkerError, match='aiida-mlpotential backends install schnetpack') as caught:
        import_torch('schnetpack')
    assert caught.value.label == 'ERROR_BACKEND_MISSING'


def test_the_store_of_a_gpu_is_emptied_and_that_of_the_cpu_left_alone(torch):
    fake = torch(1)
    free_memory('cpu')
    assert not fake.cuda.emptied
    free_memory('cuda:0')
    assert fake.cuda.emptied


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes", True),
        ('CUDA out of memory. Tried to allocate 20.00 MiB', True),
        ('std::bad_alloc', True),
        ('mat1 and mat2 shapes cannot be multiplied', False),
    ],
)
def test_exhausted_memory_is_told_from_other_errors(text, expected):
    assert out_of_memory(RuntimeError(text)) is expected


def test_only_errors_for_want_of_memory_become_ours():
    with pytest.raises(OutOfMemory, match='could not allocate'), memory_errors('cpu'):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    with pytest.raises(RuntimeError, match='something else'), memory_errors('cpu'):
        raise RuntimeError('something else')
