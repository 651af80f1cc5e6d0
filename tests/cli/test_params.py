"""What commands share: the storage of the profile, and sentences."""

from __future__ import annotations

import click
import pytest

from aiida_mlpotential.cli import params


def test_sentence() -> None:
    """A message gets one full stop."""
    assert params.sentence(ValueError('no.')) == params.sentence(ValueError(' no ')) == 'no.'


def test_storage_that_cannot_be_loaded(aiida_profile, monkeypatch) -> None:
    """What AiiDA says is passed on as one sentence."""
    from aiida.common.exceptions import StorageMigrationError
    from aiida.manage import get_manager

    def fail() -> None:
        raise StorageMigrationError('the schema is too old')

    monkeypatch.setattr(get_manager(), 'get_profile_storage', fail)
    with pytest.raises(click.ClickException, match='cannot be loaded: the schema is too old'):
        params.load_storage()
