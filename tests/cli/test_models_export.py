"""``models export``: one file, never over another."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.worker.backends.base import FileFacts


@pytest.fixture
def model(aiida_profile_clean, file_facts, tmp_path: Path) -> ModelData:
    """Return a stored model with a file that needs trust."""
    (tmp_path / 'x.npz').write_text('1')
    file_facts['x.npz'] = FileFacts(needs_trust='it is a pickle')
    return ModelData.from_file(tmp_path / 'x.npz', backend='sgdml', trusted=True).store()


def test_export(model: ModelData, invoke, tmp_path: Path, monkeypatch) -> None:
    """To the working directory, or where it is told to; an existing file needs a word."""
    monkeypatch.chdir(tmp_path)
    result = invoke('models', 'export', model.pk)
    assert result.exit_code == 0, result.output
    assert 'wrote x to x.zip.' in result.output
    assert 'Loading it may run code: it is a pickle. To import it again takes `--trust`.' in result.output
    first = Path('x.zip').read_bytes()
    result = invoke('models', 'export', model.uuid, 'x.zip')
    assert result.exit_code == 1
    assert "Error: 'x.zip' is there already: add `--force` to replace it." in result.output
    Path('x.zip').write_text('old')
    assert invoke('models', 'export', model.pk, 'x.zip', '--force').exit_code == 0
    assert Path('x.zip').read_bytes() == first


def test_what_cannot_be_exported(emt: ModelData, invoke, tmp_path: Path) -> None:
    """One sentence each."""
    result = invoke('models', 'export', emt.pk, tmp_path)
    assert (result.exit_code, 'EMT has no parameter files to export' in result.output) == (1, True)
    result = invoke('models', 'export', 'ANI-2x', tmp_path)
    assert result.exit_code == 1
    assert 'ANI-2x is not in the profile: get it with `aiida-mlpotential models install ANI-2x`.' in result.output
    result = invoke('models', 'export', '99999', tmp_path)
    assert (result.exit_code, "there is no model '99999'" in result.output) == (1, True)
    assert list(tmp_path.glob('*.zip')) == []
