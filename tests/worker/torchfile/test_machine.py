"""Tests of the symbolic pickle machine: hostile pickles are refused or become inert, and nothing is ever run."""

from __future__ import annotations

import collections
import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from aiida_mlpotential.worker.torchfile import machine
from aiida_mlpotential.worker.torchfile.machine import Machine
from aiida_mlpotential.worker.torchfile.values import Global, Instance, StorageRef, TensorRef, TorchFileError, walk

NUMBERS = bytes(range(64))


def run(payload: bytes) -> Any:
    return Machine(io.BytesIO(payload), lambda key: NUMBERS).run()


class Writes:
    """When unpickled, writes a file; the test looks whether it did."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.system, (f'touch {self.target}',)


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_plain_values(protocol: int) -> None:
    value = {
        'a': [1, -5, 2**40, 2.5, None, True, False],
        'tuple': ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        'text': 'é' * 300,
        'nested': [{'b': 'c'}, {}],
        'pair': {(1, 6): 'HC'},
        'long': 2**100,
    }
    assert run(pickle.dumps(value, protocol)) == value


def test_shared_and_cyclic_values() -> None:
    value: list[Any] = [1]
    value.extend([value, {'again': value}])
    found = run(pickle.dumps(value, 2))
    assert found[1] is found
    assert found[2]['again'] is found
    assert [item for item in walk(found) if item == 1] == [1]


@pytest.mark.parametrize('protocol', [2, 4])
def test_objects_are_records_and_nothing_is_called(tmp_path: Path, protocol: int) -> None:
    target = tmp_path / 'written'
    payload = pickle.dumps({'model': Writes(target)}, protocol)
    record = Machine(io.BytesIO(payload), lambda key: b'')
    found = record.run()['model']
    assert isinstance(found, Instance)
    assert (found.type, found.args) == ('posix.system', (f'touch {target}',))
    assert record.globals == {'posix.system'}
    assert not target.exists()
    pickle.loads(payload)
    assert target.exists(), 'the pickle of this test is not hostile'


class Plain:
    """An ordinary object."""


def test_state_and_items() -> None:
    plain = Plain()
    plain.x, plain.y = 1, [2]  # type: ignore[attr-defined]
    found = run(pickle.dumps(plain, 2))
    assert found.type.endswith('.Plain')
    assert found.state == {'x': 1, 'y': [2]}
    counter = run(pickle.dumps(collections.defaultdict(list, {'k': 1}), 2))
    assert (counter.type, counter.args) == ('collections.defaultdict', (Global('builtins.list'),))
    assert counter.items == [('k', 1)]
    assert run(pickle.dumps(collections.deque([1, 2]), 2)).items == [1, 2]


def test_known_functions_become_what_they_return() -> None:
    assert run(pickle.dumps(collections.OrderedDict(a=1, b=2), 2)) == {'a': 1, 'b': 2}
    assert run(pickle.dumps({1, 'x'}, 2)) == {1, 'x'}
    assert run(pickle.dumps({1, 'x'}, 4)) == {1, 'x'}
    assert run(pickle.dumps(b'\x00\xff', 2)) == b'\x00\xff'
    assert run(b'\x80\x02ctorch.jit._pickle\nbuild_intlist\n](K\x01K\x02e\x85R.') == [1, 2]
    assert run(b'\x80\x02ctorch\nSize\nK\x02K\x03\x86\x85R.') == (2, 3)


def storage(kind: str = 'FloatStorage', size: int = 16) -> bytes:
    return b'(X\x07\x00\x00\x00storagectorch\n%s\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK%ctQ' % (kind.encode(), size)


def tensor(offset: bytes = b'K\x00', shape: bytes = b'K\x02\x85', stride: bytes = b'K\x01\x85', **kwargs: Any) -> bytes:
    return (
        b'\x80\x02ctorch._utils\n_rebuild_tensor_v2\n('
        + storage(**kwargs)
        + offset
        + shape
        + stride
        + b'\x89ccollections\nOrderedDict\n)RtR.'
    )


def test_tensor() -> None:
    found = run(tensor(b'K\x01', b'K\x02K\x03\x86', b'K\x01K\x02\x86'))
    assert isinstance(found, TensorRef)
    assert (found.dtype, found.shape, found.stride, found.offset, found.key) == ('f4', (2, 3), (1, 2), 1, '0')
    floats = memoryview(NUMBERS).cast('f')
    assert found.numpy().tolist() == [[floats[1], floats[3], floats[5]], [floats[2], floats[4], floats[6]]]
    assert run(tensor(kind='LongStorage', size=8)).numpy().dtype == 'i8'
    assert run(tensor(kind='BoolStorage', size=64)).numpy().tolist() == [False, True]
    assert run(tensor(shape=b'K\x00\x85')).numpy().shape == (0,)
    parameter = b'\x80\x02ctorch._utils\n_rebuild_parameter\n' + tensor()[2:-1] + b'\x88)\x87R.'
    assert isinstance(run(parameter), TensorRef)
    assert isinstance(run(b'\x80\x02' + storage() + b'.'), StorageRef)


@pytest.mark.parametrize(
    'payload',
    [
        tensor(b'K\x0f'),  # its end lies outside
        tensor(b'K\x11', b'K\x00\x85'),
        tensor(b'J\xff\xff\xff\xff'),
        tensor(stride=b'J\xff\xff\xff\xff\x85'),
        tensor(shape=b'J\xff\xff\xff\xff\x85'),
        tensor(stride=b'K\x01K\x01\x86'),
        tensor(shape=b'X\x01\x00\x00\x00a\x85'),
        tensor(shape=b'\x88\x85'),
        tensor(shape=b'K\x02', stride=b'K\x01'),
        b'\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(' + storage() + b'K\x00tR.',
    ],
)
def test_tensors_beyond_their_storage_are_refused(payload: bytes) -> None:
    with pytest.raises(TorchFileError, match='tensor'):
        run(payload)


REFUSED = {
    'empty': b'',
    'cut short': pickle.dumps(['abc'] * 5, 2)[:-8],
    'cut short in a number': b'\x80\x02J\x01',
    'cut short in a text': b'\x80\x02X\xff\xff\xff\x7fabc.',
    'a text longer than memory': b'\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc.',
    'stop without a value': b'\x80\x02.',
    'unknown opcode': b'\x80\x02\xff.',
    'text opcode with a number that takes hours': b'I' + b'9' * 100000 + b'\n.',
    'instance opcode': b'(ios\nsystem\n.',
    'object opcode': b'(cos\nsystem\no.',
    'extension registry': b'\x80\x02\x82\x01.',
    'text persistent id': b'Pstorage\n.',
    'get what was not put': b'\x80\x02h\x07.',
    'stack global of no texts': b'\x80\x04K\x01K\x02\x93.',
    'stack global with a path': b'\x80\x04\x8c\x05../os\x8c\x06system\x93.',
    'stack global with a dunder trick': b'\x80\x04\x8c\x02os\x8c\x0csystem.x y z\x93.',
    'a name with a line break': b'\x80\x04\x8c\x05os\nxx\x8c\x06system\x93.',
    'a name of other letters': 'c\u043es\nsystem\n.'.encode(),
    'a name without end': b'c' + b'o' * 5000 + b'\nsystem\n.',
    'calling a text': b'\x80\x02X\x02\x00\x00\x00os)R.',
    'calling the result of a call': b'\x80\x02cbuiltins\ngetattr\n)R)R.',
    'calling without a tuple': b'\x80\x02cos\nsystem\nK\x01R.',
    'calling with a class for arguments': b'\x80\x02cos\nsystem\ncos\nsystem\nR.',
    'state of a list': b'\x80\x02]}b.',
    'state of a tensor': tensor()[:-1] + b'}b.',
    'a second state': b'\x80\x02cos\nx\n)\x81}b}b.',
    'append to a text': b'\x80\x02X\x01\x00\x00\x00aK\x01a.',
    'set an item of a list': b'\x80\x02]K\x01K\x02s.',
    'a key without a value': b'\x80\x02}(K\x01u.',
    'add to a list': b'\x80\x04](K\x01\x90.',
    'a list as key': b'\x80\x02}]K\x01s.',
    'a tuple of lists as key': b'\x80\x02}]\x85K\x01s.',
    'a number as key whose hash was chosen': b'\x80\x02}\x8a\x09' + (2**61 - 1 << 5).to_bytes(9, 'little') + b'K\x01s.',
    'persistent value of another kind': b'\x80\x02(X\x04\x00\x00\x00fileX\x01\x00\x00\x000tQ.',
    'storage with a negative size': storage()[:-4] + b'J\xff\xff\xff\xfftQ.',
    'tuple of nothing': b'\x80\x02\x87.',
    'mark that was not set': b'\x80\x02K\x01t.',
}


@pytest.mark.parametrize('name', REFUSED)
def test_refused(name: str) -> None:
    with pytest.raises(TorchFileError):
        run(REFUSED[name])


def test_stack_global_is_seen_however_its_texts_were_made() -> None:
    # The texts come out of the memo, in another order than they are used.
    payload = b'\x80\x04\x8c\x06system\x94\x8c\x02os\x94\x8c\x01x000h\x01h\x00\x93\x8c\x02id\x85R.'
    record = Machine(io.BytesIO(payload), lambda key: b'')
    found = record.run()
    assert (found.type, found.args) == ('os.system', ('id',))
    assert record.globals == {'os.system'}


def test_calls_whose_result_is_thrown_away_are_recorded() -> None:
    # The first value of the key is replaced by the second: the call is nowhere in the result.
    payload = b'\x80\x02}(X\x01\x00\x00\x00acos\nsystem\n)RX\x01\x00\x00\x00aK\x01u.'
    record = Machine(io.BytesIO(payload), lambda key: b'')
    assert record.run() == {'a': 1}
    assert [instance.type for instance in record.instances] == ['os.system']


def test_depth_is_bounded() -> None:
    with pytest.raises(TorchFileError, match='deep'):
        run(b'\x80\x02' + b'(' * (machine.MAX_DEPTH + 10))
    with pytest.raises(TorchFileError, match='deep'):
        run(b'\x80\x02' + b'N' * (machine.MAX_DEPTH + 10))
    nested = run(b'\x80\x02)' + b'\x85' * 200_000 + b'.')
    assert sum(1 for _ in walk(nested)) == 200_001  # no RecursionError


def test_memo_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, 'MAX_MEMO', 100)
    with pytest.raises(TorchFileError, match='remembers'):
        run(b'\x80\x02N' + b''.join(b'r' + number.to_bytes(4, 'little') for number in range(200)) + b'.')
    with pytest.raises(TorchFileError, match='remembers'):  # of which torch would make a table of 64 GB
        run(b'\x80\x02Nr\xff\xff\xff\xff.')


def test_a_tensor_is_made_of_a_storage() -> None:
    """What torch makes of anything else nobody checks."""
    for function in (b'_rebuild_tensor_v2', b'_rebuild_tensor'):
        with pytest.raises(TorchFileError, match='something else than a storage'):
            run(b'\x80\x02ctorch._utils\n' + function + b'\n(]K\x00K\x02\x85K\x01\x85tR.')


def test_several_pickles_of_one_stream() -> None:
    stream = io.BytesIO(pickle.dumps([1], 2) + pickle.dumps({'a': 2}, 2))
    record = Machine(stream, lambda key: b'')
    assert (record.run(), record.run()) == ([1], {'a': 2})
