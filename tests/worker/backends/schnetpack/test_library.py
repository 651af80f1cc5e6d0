"""Tests of importing SchNetPack and of loading a model safely."""

from __future__ import annotations

import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiida_mlpotential.worker.backends.schnetpack.library import import_schnetpack, load_model
from aiida_mlpotential.worker.errors import WorkerError


def hostile(source: Path, target: Path, written: Path) -> Path:
    """Return a copy of a model whose first action is to write a file."""
    command = f'touch {written}'.encode()
    evil = b'cposix\nsystem\nX' + len(command).to_bytes(4, 'little') + command + b'\x85R0'
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, 'w') as new:
        for info in old.infolist():
            data = old.read(info)
            if info.filename.endswith('data.pkl'):
                data = data[:2] + evil + data[2:]
            new.writestr(info.filename, data)
    return target


def test_trained_model(library: Any, best_model: Path) -> None:
    model, notes = load_model(best_model, trusted=False)
    assert type(model) is library.model.NeuralNetworkPotential
    assert notes == ()
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_trust_is_not_used_where_it_is_not_needed(
    library: Any, best_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    seen = []
    load = torch.load
    monkeypatch.setattr(
        torch, 'load', lambda *args, **kwargs: seen.append(kwargs['weights_only']) or load(*args, **kwargs)
    )
    assert load_model(best_model, trusted=True)[1] == ()
    assert seen == [True]


def test_hostile_model_is_refused_and_runs_nothing(library: Any, best_model: Path, tmp_path: Path) -> None:
    written = tmp_path / 'written'
    path = hostile(best_model, tmp_path / 'best_model', written)
    with pytest.raises(WorkerError, match=r'posix\.system.*--trust') as caught:
        load_model(path, trusted=False)
    assert caught.value.label == 'ERROR_MODEL_UNSUPPORTED'
    assert not written.exists()
    # The same file with trust: what a person decided, and the results say so.
    _, notes = load_model(path, trusted=True)
    assert written.exists()
    assert 'because it is trusted' in notes[0]
    assert 'posix.system' in notes[0]


def test_torch_guards_the_second_door(
    library: Any, best_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were our own reading deceived, torch would still let no other name pass."""
    written = tmp_path / 'written'
    path = hostile(best_model, tmp_path / 'best_model', written)
    monkeypatch.setattr('aiida_mlpotential.worker.backends.schnetpack.library.reason_for_trust', lambda file: '')
    with pytest.raises(WorkerError, match='cannot be loaded: UnpicklingError'):
        load_model(path, trusted=False)
    assert not written.exists()


def test_class_of_a_user_needs_trust(make_model: Callable[..., Any], tmp_path: Path, monkeypatch: Any) -> None:
    import torch

    module = types.ModuleType('my_layers')
    module.Special = type('Special', (torch.nn.Identity,), {'__module__': 'my_layers'})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, 'my_layers', module)
    model = make_model()
    model.input_modules.append(module.Special())
    torch.save(model, tmp_path / 'm')
    with pytest.raises(WorkerError, match=r'my_layers\.Special.*--trust'):
        load_model(tmp_path / 'm', trusted=False)
    assert type(load_model(tmp_path / 'm', trusted=True)[0]) is type(model)


@pytest.mark.parametrize('kind', ['SchNet', 'PaiNN', 'SO3net', 'FieldSchNet'])
def test_every_architecture_is_loaded_whole(make_model: Callable[..., Any], tmp_path: Path, kind: str) -> None:
    import torch

    model = make_model(kind)
    torch.save(model, tmp_path / 'm')
    loaded, _ = load_model(tmp_path / 'm', trusted=False)
    expected, found = model.state_dict(), loaded.state_dict()
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name].numpy(), tensor.numpy())


def test_model_from_before_2_1(library: Any, make_model: Callable[..., Any], tmp_path: Path) -> None:
    import torch

    model = make_model()
    del model.representation.electronic_embeddings
    torch.save(model, tmp_path / 'm')
    assert len(load_model(tmp_path / 'm', trusted=False)[0].representation.electronic_embeddings) == 0


def test_other_files_are_refused(library: Any, tmp_path: Path) -> None:
    import torch

    torch.save({'w': torch.zeros(2)}, tmp_path / 'state')
    with pytest.raises(WorkerError, match='state dict') as caught:
        load_model(tmp_path / 'state', trusted=False)
    assert caught.value.label == 'ERROR_MODEL_UNSUPPORTED'
    torch.save(library.nn.Dense(1, 1), tmp_path / 'layer')
    with pytest.raises(WorkerError, match='holds a Dense, only a NeuralNetworkPotential'):
        load_model(tmp_path / 'layer', trusted=False)


def test_damaged_storage(library: Any, best_model: Path, tmp_path: Path) -> None:
    data = bytearray(best_model.read_bytes())
    with zipfile.ZipFile(best_model) as archive:
        start = archive.getinfo('best_model/data/5').header_offset
    data[start + 2 : start + 4] = b'xx'
    (tmp_path / 'm').write_bytes(data)
    with pytest.raises(WorkerError) as caught:
        load_model(tmp_path / 'm', trusted=False)
    assert caught.value.label == 'ERROR_MODEL_CORRUPT'


def _stand_in(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    module = types.ModuleType('schnetpack')
    module.__version__ = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, 'schnetpack', module)


def test_old_name_in_torch_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """SchNetPack 2.1.1 imports ``T_co``, which torch 2.13 calls ``_T_co``."""
    pytest.importorskip('torch')
    from torch.utils.data import dataloader

    _stand_in(monkeypatch, '2.1.1')
    monkeypatch.setattr(dataloader, '_T_co', object(), raising=False)
    monkeypatch.delattr(dataloader, 'T_co', raising=False)
    import_schnetpack()
    assert dataloader.T_co is dataloader._T_co


def test_old_name_that_is_there_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('torch')
    from torch.utils.data import dataloader

    _stand_in(monkeypatch, '2.1.1')
    there = object()
    monkeypatch.setattr(dataloader, 'T_co', there, raising=False)
    import_schnetpack()
    assert dataloader.T_co is there


def test_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('torch')
    monkeypatch.setitem(sys.modules, 'schnetpack', None)
    with pytest.raises(WorkerError, match='aiida-mlpotential backends install schnetpack') as caught:
        import_schnetpack()
    assert caught.value.label == 'ERROR_BACKEND_MISSING'
    _stand_in(monkeypatch, '1.0.1')
    with pytest.raises(WorkerError, match=r'SchNetPack 1\.0\.1 is installed, 2 is needed'):
        import_schnetpack()
