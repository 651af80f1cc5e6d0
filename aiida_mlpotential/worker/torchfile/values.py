"""What a torch file holds, as inert values: records of objects and calls, names, and tensors still in the file."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

#: Bytes of a tensor that is read: parameters that one looks at while importing a file are small.
MAX_TENSOR_BYTES = 1 << 30
#: Types of a storage as numpy writes them; bfloat16 and quantized types have no counterpart.
DTYPES = {
    'torch.DoubleStorage': 'f8',
    'torch.FloatStorage': 'f4',
    'torch.HalfStorage': 'f2',
    'torch.LongStorage': 'i8',
    'torch.IntStorage': 'i4',
    'torch.ShortStorage': 'i2',
    'torch.CharStorage': 'i1',
    'torch.ByteStorage': 'u1',
    'torch.BoolStorage': 'b1',
    'torch.ComplexFloatStorage': 'c8',
    'torch.ComplexDoubleStorage': 'c16',
}
#: Bytes of a number in a storage of each type; torch's C++ reader believes whatever the pickle says of them.
ITEM_SIZES = {
    **{name: int(dtype[1:]) for name, dtype in DTYPES.items()},
    **{'torch.BFloat16Storage': 2, 'torch.QInt32Storage': 4, 'torch.UntypedStorage': 1},
    **{f'torch.{name}Storage': 1 for name in ('QInt8', 'QUInt8', 'QUInt4x2', 'QUInt2x4')},
}
#: A tensor that repeats its storage may have so many numbers; a small file could otherwise fill the memory.
_MAX_REPEATED = 1 << 16


class TorchFileError(ValueError):
    """A file is no torch file, or damaged, or hostile; the message says which."""


@dataclasses.dataclass(frozen=True)
class Global:
    """The name of a class or function, which is not looked up."""

    name: str


@dataclasses.dataclass(eq=False)
class Instance:
    """An object as it was written.

    :ivar type: module and name of its class, or of the function that would have made it
    :ivar args: what the class or function would have been called with
    :ivar state: its ``__dict__``, mostly
    :ivar items: what was appended to it, or pairs of key and value that were set
    """

    type: str
    args: tuple[Any, ...] = dataclasses.field(default=(), repr=False)
    state: Any = dataclasses.field(default=None, repr=False)
    items: list[Any] = dataclasses.field(default_factory=list, repr=False)


@dataclasses.dataclass(frozen=True, eq=False)
class StorageRef:
    """The numbers of one or more tensors: ``size`` of them, under ``key`` in the file."""

    type: str
    key: str
    size: int
    read: Callable[[str], bytes] = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, eq=False)
class TensorRef:
    """A tensor whose numbers are still in the file; ``dtype`` is empty where numpy has no such type."""

    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    storage: StorageRef = dataclasses.field(repr=False)

    @property
    def key(self) -> str:
        """Return the name of the storage in the file."""
        return self.storage.key

    def numpy(self) -> npt.NDArray[Any]:
        """Read the numbers.

        :raises TorchFileError: if they are not there, not as many as the file says, or of a type that numpy lacks
        """
        if not self.dtype:
            raise TorchFileError(f'a tensor of type {self.storage.type} cannot be read')
        boolean = self.dtype == 'b1'
        dtype = np.dtype('u1' if boolean else f'<{self.dtype}')
        if max(math.prod(self.shape), self.storage.size) * dtype.itemsize > MAX_TENSOR_BYTES:
            raise TorchFileError(f'a tensor of shape {self.shape} is too large to be read')
        if math.prod(self.shape) > max(self.storage.size, _MAX_REPEATED):
            raise TorchFileError(f'a tensor of shape {self.shape} repeats its {self.storage.size} numbers too often')
        data = self.storage.read(self.key)
        if len(data) != self.storage.size * dtype.itemsize:
            raise TorchFileError(
                f'storage {self.key!r} has {len(data)} bytes, expected {self.storage.size * dtype.itemsize}'
            )
        # The offset and the strides were checked against the size of the storage when the file was read.
        flat = np.frombuffer(data, dtype)[self.offset :]
        strides = tuple(step * dtype.itemsize for step in self.stride)
        array = np.array(np.lib.stride_tricks.as_strided(flat, self.shape, strides, writeable=False))
        return array != 0 if boolean else array


def walk(root: Any) -> Iterator[Any]:
    """Visit every value once, however deep, shared or cyclic; a hostile file may repeat one value without end."""
    seen: set[int] = set()
    todo = [root]
    while todo:
        value = todo.pop()
        if isinstance(value, (dict, list, tuple, set, frozenset, Instance)):
            if id(value) in seen:
                continue
            seen.add(id(value))
        yield value
        if isinstance(value, dict):
            todo.extend(value.keys())
            todo.extend(value.values())
        elif isinstance(value, (list, tuple, set, frozenset)):
            todo.extend(value)
        elif isinstance(value, Instance):
            todo.extend((value.args, value.state, value.items))
