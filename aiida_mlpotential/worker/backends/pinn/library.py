"""Finding TensorFlow and PiNN (the right one), and choosing the device: in a process that may hold neither yet."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
from pathlib import Path
from typing import Any

from ...errors import WorkerError
from ..base import Settings

_REMEDY = 'run `aiida-mlpotential backends install pinn`'
#: Packages inside the PiNN of Teoroo-CMC; another project of that name on PyPI has none of them.
_PARTS = ('networks', 'models', 'layers')


def import_libraries() -> tuple[Any, Any]:
    """Return the modules ``tensorflow`` and ``pinn``.

    :raises WorkerError: if one is missing, of another project, or does not fit the others
    """
    _check_pinn()
    if importlib.util.find_spec('tensorflow') is None:
        raise WorkerError('ERROR_BACKEND_MISSING', f'TensorFlow is not installed: {_REMEDY}')
    _choose_keras()
    # Warnings and errors only; a person who wants more has set it already.
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    try:
        tensorflow, pinn = importlib.import_module('tensorflow'), importlib.import_module('pinn')
    except (ImportError, AttributeError) as exception:  # numpy 2 under an old TensorFlow is an AttributeError
        reason = ' '.join(str(exception).split())[:200]
        raise WorkerError('ERROR_BACKEND_MISSING', f'PiNN cannot be imported ({reason}): {_REMEDY}') from exception
    # A keras.json in the home directory, or TF32 on a GPU, would quietly make another model of it.
    tensorflow.keras.backend.set_floatx('float32')
    tensorflow.config.experimental.enable_tensor_float_32_execution(False)
    return tensorflow, pinn


def _check_pinn() -> None:
    """Look at the package without importing it: whose code it is decides."""
    spec = importlib.util.find_spec('pinn')
    if spec is None:
        raise WorkerError('ERROR_BACKEND_MISSING', f'PiNN is not installed: {_REMEDY}')
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    if not any(all((folder / part).is_dir() for part in _PARTS) for folder in folders):
        raise WorkerError(
            'ERROR_BACKEND_MISSING',
            'the installed package pinn is another project of that name: uninstall it and install PiNN of Teoroo-CMC '
            'with `aiida-mlpotential backends install pinn`',
        )


def _choose_keras() -> None:
    """Make ``tf.keras`` the second Keras, for which PiNN is written.

    TensorFlow comes with Keras 3 from 2.16 on and takes the second one from tf-keras if ``TF_USE_LEGACY_KERAS`` is set
    before it is imported; where tf-keras is absent the variable only breaks the older TensorFlow that needs neither.
    """
    if importlib.util.find_spec('tf_keras') is not None:
        os.environ['TF_USE_LEGACY_KERAS'] = '1'
        return
    os.environ.pop('TF_USE_LEGACY_KERAS', None)
    try:
        version = importlib.metadata.version('keras')
    except importlib.metadata.PackageNotFoundError:
        version = '0'
    if int(version.partition('.')[0]) >= 3:
        raise WorkerError(
            'ERROR_BACKEND_MISSING',
            f'PiNN needs Keras 2 and TensorFlow came with Keras {version}: install tf-keras of the version of '
            f'TensorFlow, or {_REMEDY}',
        )


def choose_device(tensorflow: Any, settings: Settings) -> tuple[str, tuple[str, ...]]:
    """Return the device to compute on, with a remark where it is not the one that was asked for.

    :raises WorkerError: if a GPU is asked for and absent, and nobody allowed the CPU instead
    """
    kind, _, index = settings.device.partition(':')
    number = 0 if kind == 'cpu' else len(tensorflow.config.list_physical_devices('GPU'))
    if kind != 'cuda':
        return ('cuda' if number and not settings.device else 'cpu'), ()
    if int(index or 0) < number:
        return settings.device, ()
    built = '' if tensorflow.test.is_built_with_cuda() else ', and this TensorFlow was built without CUDA'
    message = f'{settings.device} was asked for, but there are {number} GPUs{built}'
    if settings.device_fallback:
        return 'cpu', (f'{message}: computed on the CPU',)
    raise WorkerError('ERROR_DEVICE_MISSING', f'{message}: ask the scheduler for one, or set device_fallback')


def choose_threads(settings: Settings) -> int:
    """Return the number of threads to hand to TensorFlow, which itself looks neither at the job nor at OpenMP's."""
    if settings.num_threads is not None:
        return settings.num_threads
    for name in ('TF_NUM_INTRAOP_THREADS', 'OMP_NUM_THREADS'):
        value = os.environ.get(name, '')
        if value.isdigit() and int(value) > 0:
            return int(value)
    return len(os.sched_getaffinity(0))


def session_config(tensorflow: Any, device: str, threads: int) -> Any:
    """Return the configuration of a session: the one device, its memory taken as it is needed, and the threads."""
    config = tensorflow.compat.v1.ConfigProto(
        intra_op_parallelism_threads=threads, inter_op_parallelism_threads=1, allow_soft_placement=True
    )
    kind, _, index = device.partition(':')
    if kind == 'cpu':
        config.device_count['GPU'] = 0
    else:
        config.gpu_options.visible_device_list = index or '0'
        config.gpu_options.allow_growth = True
    return config
