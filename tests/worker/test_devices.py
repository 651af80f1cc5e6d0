"""A GPU that breaks down ends the job with a name of its own, and no structure gets the blame."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk

from aiida_mlpotential.worker.devices import check_device, describe, is_device_failure
from aiida_mlpotential.worker.errors import FrameError, FrameStatus, WorkerError
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.tasks.evaluation import Evaluator

BROKEN = (
    'CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported',
    'CUDA error: uncorrectable ECC error encountered',
    'CUDA error: no kernel image is available for execution on the device',
    'Unexpected error from cudaGetDeviceCount(). cudaErrorSystemNotReady',
    'cuDNN error: CUDNN_STATUS_EXECUTION_FAILED',
    'CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`',
    'failed call to cuInit: CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected',
    'HIP error: invalid device function',
)


@pytest.mark.parametrize('text', BROKEN)
def test_what_a_broken_device_says(text):
    assert is_device_failure(RuntimeError(text))
    with pytest.raises(WorkerError) as caught:
        check_device(RuntimeError(text))
    assert caught.value.label == 'ERROR_DEVICE_FAILED'
    assert caught.value.message.startswith(text.splitlines()[0])
    assert 'device = cpu' in caught.value.message


@pytest.mark.parametrize('text', ['CUDA out of memory. Tried to allocate 2.00 GiB', 'singular matrix', ''])
def test_what_is_no_broken_device(text):
    assert not is_device_failure(RuntimeError(text))
    check_device(RuntimeError(text))


def test_the_first_line_is_enough():
    assert '\n' not in describe(RuntimeError(BROKEN[0]))


class Broken:
    """A backend whose device is broken; a calculator in between may have made it the failure of a frame."""

    n_members = 1

    def __init__(self, exception):
        self.exception, self.calls = exception, 0

    def evaluate(self, frames, request):
        self.calls += 1
        raise self.exception


@pytest.mark.parametrize(
    'exception', [RuntimeError(BROKEN[0]), FrameError(FrameStatus.BACKEND_FAILED, f'RuntimeError: {BROKEN[0]}')]
)
def test_no_frame_gets_the_blame(exception):
    backend = Broken(exception)
    frames = Frames.from_ase([bulk('Cu')] * 4)
    with pytest.raises(WorkerError, match='device-side assert'):
        Evaluator(backend, []).evaluate(frames, frozenset({'forces'}))
    assert backend.calls == 1, 'a batch must not be halved on a broken device'


def test_another_exception_is_that_of_the_frames():
    _, errors = Evaluator(Broken(RuntimeError('singular')), []).evaluate(
        Frames.from_ase([bulk('Cu')] * 2), frozenset({'forces'})
    )
    assert sorted(errors) == np.arange(2).tolist()
