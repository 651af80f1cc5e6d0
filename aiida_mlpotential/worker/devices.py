"""Tell that a GPU broke down from what its libraries say: then nothing is wrong with the structures at hand."""

from __future__ import annotations

from .errors import WorkerError

#: What CUDA, its libraries, and those of AMD put into the text of errors; the types of the exceptions tell nothing.
_MARKS = (
    'CUDA error',
    'CUDA_ERROR_',
    'CUDA driver',
    'CUDA-capable device',
    'cudaError',
    'CUDNN_STATUS_',
    'cuDNN error',
    'CUBLAS_STATUS_',
    'CUSOLVER_STATUS_',
    'HIP error',
    'hipError',
)


def is_device_failure(exception: BaseException) -> bool:
    """Return whether an exception says that the device failed, and not the computation."""
    text = str(exception)
    return any(mark in text for mark in _MARKS)


def check_device(exception: BaseException) -> None:
    """Let the whole job end if an exception says that the device failed: no other structure would fare better.

    :raises WorkerError: with what the device said
    """
    if is_device_failure(exception):
        raise WorkerError('ERROR_DEVICE_FAILED', describe(exception)) from exception


def describe(exception: BaseException) -> str:
    """Return the first line of an exception and what to do."""
    return f'{str(exception).strip().splitlines()[0]}; run the job on another node, or with device = cpu'
