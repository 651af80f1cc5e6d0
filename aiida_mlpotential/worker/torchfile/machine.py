"""A small machine for the pickles of torch that builds inert values: nothing is imported, and nothing is called.

Only the table of opcodes of ``pickletools`` is used. Objects become :class:`Instance`, names become :class:`Global`,
tensors become :class:`TensorRef`; dicts, lists, tuples, sets, texts and numbers are themselves. An opcode that torch
does not write is refused before its argument is read.
"""

from __future__ import annotations

import pickletools
import re
import struct
from collections.abc import Callable
from typing import IO, Any

from .values import DTYPES, ITEM_SIZES, Global, Instance, StorageRef, TensorRef, TorchFileError

#: Values on the stack, open marks and remembered values: far more than any model needs.
MAX_DEPTH = 100_000
MAX_MEMO = 2_000_000

_NAME = re.compile(r'[A-Za-z_]\w*(\.[A-Za-z_]\w*)*', re.ASCII)
#: Names of Python 2, which protocol 2 writes.
_RENAMED = {'__builtin__': 'builtins', 'copy_reg': 'copyreg'}


class Machine:
    """Runs one pickle after the other of a stream, symbolically.

    :ivar globals: every name that was met, whether or not it is in the result
    :ivar instances: every object that was made or call that was recorded, whether or not it is in the result
    """

    def __init__(
        self,
        stream: IO[bytes],
        read_storage: Callable[[str], bytes],
        size_of_storage: Callable[[str], int] | None = None,
    ) -> None:
        """Begin at the position of a stream.

        :param read_storage: returns the bytes of a storage
        :param size_of_storage: returns how many there are, for each storage to be compared with what is said of it
        """
        self.globals: set[str] = set()
        self.instances: list[Instance] = []
        self._stream = stream
        self._read_storage = read_storage
        self._size_of_storage = size_of_storage
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Return the value of the next pickle of the stream.

        :raises TorchFileError: if it is damaged, or does what no file of torch does
        """
        self._stack, self._marks, self._memo = [], [], {}
        try:
            while True:
                code = self._stream.read(1)
                opcode = _OPCODES.get(code.decode('latin-1'))
                if opcode is None:
                    raise TorchFileError('the pickle is cut short' if not code else f'unknown opcode {code!r}')
                if opcode.name == 'STOP':
                    return self._stack.pop()
                self._step(opcode)
                if len(self._stack) + len(self._marks) > MAX_DEPTH or len(self._memo) > MAX_MEMO:
                    raise TorchFileError('the pickle is nested too deeply, or remembers too much')
        except TorchFileError:
            raise
        except (IndexError, KeyError) as exception:  # an empty stack, an index that was not remembered
            raise TorchFileError(f'the pickle is damaged ({type(exception).__name__})') from None
        except (ValueError, TypeError, struct.error, OverflowError) as exception:  # an argument that is cut short
            raise TorchFileError(f'the pickle is damaged: {exception}') from None

    def _step(self, opcode: pickletools.OpcodeInfo) -> None:
        handler, constant = _HANDLERS.get(opcode.name), _CONSTANTS.get(opcode.name)
        reader = opcode.arg.reader if opcode.arg is not None else None
        if opcode.name == 'GLOBAL':
            # Read here: pickletools would decode escapes, which unpicklers do not.
            module, name = (self._stream.readline(1000).decode('ascii').removesuffix('\n') for _ in range(2))
            self._global(module, name)
        elif handler is not None:
            handler(self, reader(self._stream) if reader is not None else None)
        elif constant is not None:
            self._stack.append(constant[0])
        elif reader is not None and opcode.name in _VALUES:
            self._stack.append(reader(self._stream))
        elif opcode.name in ('PROTO', 'FRAME'):
            self._stream.read(1 if opcode.name == 'PROTO' else 8)
        else:
            raise TorchFileError(f'the opcode {opcode.name} occurs in no file that torch writes')

    def _global(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise TorchFileError('a name that is no text')
        if not (_NAME.fullmatch(module) and _NAME.fullmatch(name)):
            raise TorchFileError(f'{module[:80]!r} and {name[:80]!r} are no names')
        found = Global(f'{_RENAMED.get(module, module)}.{name}')
        self.globals.add(found.name)
        self._stack.append(found)

    def _stack_global(self, _: None) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._global(module, name)

    def _mark(self, _: None) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _pop_mark(self, _: None = None) -> list[Any]:
        items = self._stack
        self._stack = self._marks.pop()
        return items

    def _pop(self, _: None) -> None:
        self._stack.pop()

    def _get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def _put(self, index: int) -> None:
        if index > MAX_MEMO:  # for which torch's C++ reader would make a table
            raise TorchFileError('the pickle is nested too deeply, or remembers too much')
        self._memo[index] = self._stack[-1]

    def _memoize(self, _: None) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _empty(self, factory: Callable[[], Any]) -> None:
        self._stack.append(factory())

    def _tuple(self, number: int | None) -> None:
        if number is None:
            items = self._pop_mark()
        else:
            if len(self._stack) < number:
                raise TorchFileError('the pickle is damaged: a tuple of values that are not there')
            items = [self._stack.pop() for _ in range(number)][::-1]
        self._stack.append(tuple(items))

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, Instance):
            target.items.extend(items)
        else:
            raise TorchFileError(f'something is appended to a {type(target).__name__}')

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if len(items) % 2:
            raise TorchFileError('a key without a value')
        pairs = list(zip(items[::2], items[1::2], strict=True))
        if isinstance(target, dict):
            target.update((_hashable(key), value) for key, value in pairs)
        elif isinstance(target, Instance):
            target.items.extend(pairs)
        else:
            raise TorchFileError(f'items are set in a {type(target).__name__}')

    def _add_items(self, _: None) -> None:
        items, target = self._pop_mark(), self._stack[-1]
        if not isinstance(target, set):
            raise TorchFileError(f'items are added to a {type(target).__name__}')
        target.update(_hashable(item) for item in items)

    def _call(self, simplify: bool) -> None:
        args, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, Global) or not isinstance(args, tuple):
            raise TorchFileError('something that is no class or function is called')
        instance = Instance(function.name, args)
        result = _simplified(instance) if simplify else instance
        if result is instance:
            self.instances.append(instance)
        self._stack.append(result)

    def _build(self, _: None) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, Instance):
            if target.state is not None:
                raise TorchFileError(f'the state of {target.type} is set twice')
            target.state = state
        elif not isinstance(target, dict):  # the attributes of an OrderedDict say nothing of a model
            raise TorchFileError(f'a state is given to a {type(target).__name__}')

    def _persistent(self, _: None) -> None:
        match self._stack.pop():
            case ('storage', Global(kind), str(key), str(), int(size), *_) if type(size) is int and size >= 0:
                self._check_storage(kind, key, size)
                self._stack.append(StorageRef(kind, key, size, self._read_storage))
            case ('module', Global() as kind, *_):  # a class with its source text, in the format before torch 1.6
                self._stack.append(kind)
            case _:
                raise TorchFileError('a persistent value that is no storage')

    def _check_storage(self, kind: str, key: str, size: int) -> None:
        """Refuse a storage that is said to be larger than it is: TorchScript would read and write beyond its end."""
        if kind not in ITEM_SIZES:
            raise TorchFileError(f'{kind[:80]!r} is no type of a storage')
        if self._size_of_storage is not None and size:
            expected, found = size * ITEM_SIZES[kind], self._size_of_storage(key)
            if expected != found:
                raise TorchFileError(f'storage {key[:80]!r} has {found} bytes, expected {expected}')


def _hashable(key: Any) -> Any:
    """Return a key whose hash cannot be chosen: many keys of one hash would keep us busy for days."""
    if isinstance(key, (str, bytes, float, Global, Instance, StorageRef, TensorRef)) or key is None:
        return key
    if isinstance(key, int) and abs(key) < 1 << 60:
        return key
    parts = key if isinstance(key, tuple) and len(key) <= 4 else (key,)
    if isinstance(key, tuple) and all(isinstance(p, str) or (isinstance(p, int) and 0 <= p < 1000) for p in parts):
        return key
    raise TorchFileError(f'a {type(key).__name__} as key of a dict or item of a set')


def _simplified(call: Instance) -> Any:
    """Return what a known function would have returned; any other call stays the record that it is."""
    match call.type, call.args:
        case 'torch._utils._rebuild_tensor_v2' | 'torch._utils._rebuild_tensor', (StorageRef() as storage, *rest):
            return _tensor(storage, rest)
        case 'torch._utils._rebuild_tensor_v2' | 'torch._utils._rebuild_tensor', _:
            raise TorchFileError('a tensor that is made of something else than a storage')
        case (
            'torch._utils._rebuild_parameter' | 'torch._utils._rebuild_parameter_with_state',
            (TensorRef() as data, *_),
        ):
            return data
        case 'collections.OrderedDict', ():
            return {}
        case 'builtins.set' | 'builtins.frozenset', (list() as items,):
            return {_hashable(item) for item in items}
        case 'torch.Size', (tuple() as shape,):
            return shape
        case 'torch.jit._pickle.restore_type_tag', (value, str()):
            return value
        case name, (list() as items,) if name.startswith('torch.jit._pickle.build_'):
            return items
        case '_codecs.encode', (str() as text, 'latin1' | 'latin-1'):
            return text.encode('latin-1')
    return call


def _tensor(storage: StorageRef, rest: list[Any]) -> TensorRef:
    """Return a tensor, after making sure that it lies within its storage."""
    match rest:
        case (int(offset), tuple() as shape, tuple() as stride, *_):
            numbers = (offset, *shape, *stride)
            if len(shape) != len(stride) or len(shape) > 32 or not all(type(n) is int and n >= 0 for n in numbers):
                raise TorchFileError('a tensor whose shape and strides do not make sense')
            last = offset + sum((length - 1) * step for length, step in zip(shape, stride, strict=True))
            if (0 not in shape and last >= storage.size) or offset > storage.size:
                raise TorchFileError(f'a tensor that reaches beyond its storage {storage.key!r}')
            return TensorRef(DTYPES.get(storage.type, ''), shape, stride, offset, storage)
    raise TorchFileError('a tensor whose shape and strides do not make sense')


_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
#: Opcodes whose argument is the value; the reader of each is bounded by what is left of the stream.
_VALUES = (
    *('BININT', 'BININT1', 'BININT2', 'LONG1', 'BINFLOAT'),
    *('BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8', 'BINSTRING', 'SHORT_BINSTRING'),
    *('BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8', 'BYTEARRAY8'),
)
_CONSTANTS: dict[str, tuple[Any]] = {'NONE': (None,), 'NEWTRUE': (True,), 'NEWFALSE': (False,), 'EMPTY_TUPLE': ((),)}
_HANDLERS: dict[str, Callable[[Machine, Any], Any]] = {
    'STACK_GLOBAL': Machine._stack_global,
    'MARK': Machine._mark,
    'POP_MARK': Machine._pop_mark,
    'POP': Machine._pop,
    'BINGET': Machine._get,
    'LONG_BINGET': Machine._get,
    'BINPUT': Machine._put,
    'LONG_BINPUT': Machine._put,
    'MEMOIZE': Machine._memoize,
    'EMPTY_LIST': lambda machine, _: machine._empty(list),
    'EMPTY_DICT': lambda machine, _: machine._empty(dict),
    'EMPTY_SET': lambda machine, _: machine._empty(set),
    'TUPLE': Machine._tuple,
    'TUPLE1': lambda machine, _: machine._tuple(1),
    'TUPLE2': lambda machine, _: machine._tuple(2),
    'TUPLE3': lambda machine, _: machine._tuple(3),
    'APPEND': lambda machine, _: machine._append([machine._stack.pop()]),
    'APPENDS': lambda machine, _: machine._append(machine._pop_mark()),
    'SETITEM': lambda machine, _: machine._set_items([machine._stack.pop(), machine._stack.pop()][::-1]),
    'SETITEMS': lambda machine, _: machine._set_items(machine._pop_mark()),
    'ADDITEMS': Machine._add_items,
    'REDUCE': lambda machine, _: machine._call(simplify=True),
    'NEWOBJ': lambda machine, _: machine._call(simplify=False),
    'BUILD': Machine._build,
    'BINPERSID': Machine._persistent,
}
