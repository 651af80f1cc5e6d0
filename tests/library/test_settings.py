"""Tests of where models are looked for."""

import os
from pathlib import Path

import pytest

from aiida_mlpotential.library.settings import LibraryError, cache_directory, config_file, model_directories


def write_config(text):
    config_file().parent.mkdir(parents=True, exist_ok=True)
    config_file().write_text(text)


def test_directories(own_home, monkeypatch):
    assert config_file() == own_home / 'config' / 'aiida-mlpotential' / 'config.json'
    assert cache_directory() == own_home / 'cache' / 'aiida-mlpotential' / 'models'
    monkeypatch.setenv('XDG_CACHE_HOME', 'relative/is/ignored')
    assert cache_directory() == Path.home() / '.cache' / 'aiida-mlpotential' / 'models'
    monkeypatch.delenv('XDG_CONFIG_HOME')
    assert config_file() == Path.home() / '.config' / 'aiida-mlpotential' / 'config.json'


def test_nothing_is_set():
    assert model_directories() == []


def test_variable_comes_before_configuration(monkeypatch):
    monkeypatch.setenv('AIIDA_MLPOTENTIAL_MODELS', os.pathsep.join(['/a', '', '~/b']))
    write_config('{"models": ["/c", "/a"]}')
    assert model_directories() == [Path('/a'), Path.home() / 'b', Path('/c')]


def test_configuration_with_one_directory():
    write_config('{"models": "/c", "other": 1}')
    assert model_directories() == [Path('/c')]
    write_config('{}')
    assert model_directories() == []


@pytest.mark.parametrize('text', ['{', '[]', '{"models": 1}', '{"models": [1]}', 'null'])
def test_invalid_configuration(text):
    write_config(text)
    with pytest.raises(LibraryError, match=r'config\.json (is not valid JSON|must be like)'):
        model_directories()


def test_unreadable_configuration():
    config_file().mkdir(parents=True)
    with pytest.raises(LibraryError, match='cannot be read'):
        model_directories()
