"""Tests of reading ``best_model`` without its library: what it says, what is refused, and that nothing is run."""

from __future__ import annotations

import pickle
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiida_mlpotential.worker.backends.base import ModelFileError
from aiida_mlpotential.worker.backends.schnetpack.files import (
    ALLOWED,
    CLASSES,
    FUNCTIONS,
    inspect_file,
    read_file,
    reason_for_trust,
)
from aiida_mlpotential.worker.torchfile import read_torch_file

LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({'little_endian': True}, 2)


def archive(path: Path, payload: bytes) -> Path:
    with zipfile.ZipFile(path, 'w') as target:
        target.writestr('m/data.pkl', payload)
        target.writestr('m/data/0', bytes(4))
    return path


def edited(source: Path, target: Path, change: Callable[[bytes], bytes]) -> Path:
    """Return a copy of a model with another pickle."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, 'w') as new:
        for info in old.infolist():
            data = old.read(info)
            new.writestr(info.filename, change(data) if info.filename.endswith('data.pkl') else data)
    return target


def test_trained_model(best_model: Path) -> None:
    facts = inspect_file(best_model)
    assert facts.elements == ('H', 'C', 'O')
    assert facts.cutoff == 5.0
    assert (facts.energy_unit, facts.distance_unit) == (None, None)
    assert facts.needs_trust == ''
    assert any('kcal/mol and angstrom' in remark for remark in facts.remarks)


def test_no_library_is_imported(best_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('torch', 'schnetpack'):
        monkeypatch.setitem(sys.modules, name, None)
    assert inspect_file(best_model).elements == ('H', 'C', 'O')


def test_model_without_reference_energies(best_model: Path, tmp_path: Path) -> None:
    # The module is left, under another name: as in a model that was trained without reference energies.
    path = edited(best_model, tmp_path / 'm', lambda data: data.replace(b'AddOffsets', b'ScaleProperty'))
    facts = inspect_file(path)
    assert facts.elements is None
    assert any('--elements' in remark for remark in facts.remarks)


def _module(name: str, **members: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    for key, value in members.items():
        value.__module__, value.__qualname__ = name, key
        setattr(module, key, value)
    return module


@pytest.fixture
def version_1(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Return the pickle of something like a model of SchNetPack 1."""
    module = _module('schnetpack.atomistic.model', AtomisticModel=type('AtomisticModel', (), {}))
    for name, value in {'schnetpack': types.ModuleType('schnetpack'), 'schnetpack.atomistic.model': module}.items():
        monkeypatch.setitem(sys.modules, name, value)
    monkeypatch.setitem(sys.modules, 'schnetpack.atomistic', types.ModuleType('schnetpack.atomistic'))
    return pickle.dumps(module.AtomisticModel(), 2)


@pytest.mark.parametrize('legacy', [False, True])
def test_version_1_is_recognised(version_1: bytes, tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / 'best_model'
    if legacy:
        path.write_bytes(LEGACY + version_1)
    else:
        archive(path, version_1)
    with pytest.raises(ModelFileError, match=r'SchNetPack 1.*train it again.*copy the weights'):
        inspect_file(path)


TENSOR = (
    b'ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000'
    b'X\x03\x00\x00\x00cpuK\x01tQK\x00K\x01\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR'
)


@pytest.mark.parametrize(
    ('payload', 'message'),
    [
        (pickle.dumps({'state_dict': {}, 'epoch': 3}, 2), 'checkpoint of the training: import the file `best_model`'),
        (
            b'\x80\x02}X\x01\x00\x00\x00w' + TENSOR + b's.',
            'state dict, the weights alone: import the file `best_model`',
        ),
        (pickle.dumps([1, 2], 2), 'no model of SchNetPack'),
        (b'\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81.', 'no model of SchNetPack'),
        (b'', 'cannot be read'),
    ],
)
def test_other_torch_files(tmp_path: Path, payload: bytes, message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        inspect_file(archive(tmp_path / 'file', payload))


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / 'text').write_text('no model')
    with pytest.raises(ModelFileError, match='text cannot be read'):
        inspect_file(tmp_path / 'text')
    with pytest.raises(ModelFileError, match='directory: give the file'):
        inspect_file(tmp_path)


def test_foreign_names_need_trust(best_model: Path, tmp_path: Path) -> None:
    path = edited(best_model, tmp_path / 'm', lambda data: data.replace(b'ctorch.nn.functional\nsilu', b'cos\nsystem'))
    facts = inspect_file(path)
    assert 'it refers to os.system' in facts.needs_trust
    # A class of SchNetPack that would make directories is foreign, too.
    path = edited(
        best_model,
        tmp_path / 'n',
        lambda data: data.replace(
            b'schnetpack.transform.casting\nCastTo64', b'schnetpack.transform\nCachedNeighborList'
        ),
    )
    assert 'CachedNeighborList' in inspect_file(path).needs_trust


STATE = b'}X\x0e\x00\x00\x00_forward_hooks}K\x01ctorch.nn.functional\nsilu\nssb.'


@pytest.mark.parametrize(
    ('payload', 'reason'),
    [
        (b'cschnetpack.nn.base\nDense\nK\x01K\x02\x86\x81.', 'calls schnetpack.nn.base.Dense'),
        (b'cschnetpack.nn.base\nDense\nK\x01K\x02\x86R.', 'calls schnetpack.nn.base.Dense'),
        (b'ctorch.nn.functional\nsilu\n)R0cschnetpack.nn.base\nDense\n)\x81}b.', 'calls torch.nn.functional.silu'),
        (b'cschnetpack.nn.base\nDense\n)\x81}b.', ''),
        (b'cschnetpack.nn.base\nDense\n)\x81}X\x01\x00\x00\x00actorch.nn.init\nzeros_\n)Rsb.', 'calls torch.nn.init'),
        (b'cschnetpack.nn.base\nDense\n)\x81K\x05b.', 'a state that'),
        (b'cschnetpack.nn.base\nDense\n)\x81' + STATE, 'functions attached to it'),
    ],
)
def test_unusual_use_of_allowed_names_needs_trust(tmp_path: Path, payload: bytes, reason: str) -> None:
    found = reason_for_trust(read_torch_file(archive(tmp_path / 'm', b'\x80\x02' + payload)))
    assert reason in found
    assert bool(found) == bool(reason)


def test_the_list_is_of_things_that_only_compute(library: Any) -> None:
    """Every entry exists in the library, and is a module of a network or a function of the kind it says."""
    import importlib

    import torch

    for module, names in CLASSES.items():
        for name in names:
            cls = getattr(importlib.import_module(module), name)
            assert issubclass(cls, torch.nn.Module)
            # What unpickling may call: nothing of its own.
            assert cls.__new__ is object.__new__
            assert cls.__setstate__ is torch.nn.Module.__setstate__
    for module, names in FUNCTIONS.items():
        for name in names:
            assert callable(getattr(importlib.import_module(module), name))
    assert not [name for name in ALLOWED if 'neighborlist' in name or 'data' in name.split('.')[1]]


@pytest.mark.parametrize('kind', ['SchNet', 'PaiNN', 'SO3net', 'FieldSchNet'])
def test_every_architecture_passes(make_model: Callable[..., Any], library: Any, tmp_path: Path, kind: str) -> None:
    import torch

    torch.save(make_model(kind), tmp_path / 'best_model')
    assert reason_for_trust(read_file(tmp_path / 'best_model')) == ''
    assert inspect_file(tmp_path / 'best_model').cutoff == 4.0
