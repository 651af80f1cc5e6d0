"""Tests of the inert values: tensors are read with all bounds checked, and no file makes reading them endless."""

from __future__ import annotations

from typing import Any

import pytest

from aiida_mlpotential.worker.torchfile import values
from aiida_mlpotential.worker.torchfile.values import (
    DTYPES,
    ITEM_SIZES,
    Instance,
    StorageRef,
    TensorRef,
    TorchFileError,
    walk,
)

NUMBERS = bytes(range(64))


def tensor(
    shape: tuple[int, ...] = (2,), stride: tuple[int, ...] = (1,), kind: str = 'torch.FloatStorage', size: int = 16
) -> TensorRef:
    return TensorRef(DTYPES.get(kind, ''), shape, stride, 0, StorageRef(kind, '0', size, lambda _: NUMBERS))


def test_unreadable_tensors_are_refused_when_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tensor().key == '0'
    assert tensor().numpy().tolist() == memoryview(NUMBERS).cast('f')[:2].tolist()
    with pytest.raises(TorchFileError, match='has 64 bytes, expected 60'):
        tensor(size=15).numpy()
    with pytest.raises(TorchFileError, match='BFloat16'):
        tensor(kind='torch.BFloat16Storage').numpy()
    with pytest.raises(TorchFileError, match='too large'):
        tensor((2**31, 2**31), (0, 0)).numpy()
    monkeypatch.setattr(values, 'MAX_TENSOR_BYTES', 63)
    with pytest.raises(TorchFileError, match='too large'):
        tensor().numpy()


def test_numbers_are_not_repeated_without_end() -> None:
    """Many tensors of a gigabyte, each the same number over and over, would be a small file."""
    assert tensor((300, 200), (0, 0)).numpy().shape == (300, 200)
    with pytest.raises(TorchFileError, match='repeats its 16 numbers too often'):
        tensor((300, 300), (0, 0)).numpy()


def test_sizes_of_all_types() -> None:
    torch = pytest.importorskip('torch')
    for name, size in ITEM_SIZES.items():
        storage = getattr(torch, name.removeprefix('torch.'))
        assert (1 if storage is torch.UntypedStorage else torch.empty(0, dtype=storage.dtype).element_size()) == size


def test_a_laugh_for_every_atom_of_the_universe_is_walked_in_no_time() -> None:
    # Each value holds the one before it twice: 2^200 values for whoever follows them without looking back.
    root: Any = []
    for _ in range(100):
        root = Instance('x', (root, root), state=[root, root])
    assert sum(isinstance(value, Instance) for value in walk(root)) == 100
