"""Where models lie on this machine: an environment variable, a configuration file and the cache, all without AiiDA."""

from __future__ import annotations

import json
import os
from pathlib import Path

#: Directories with parameter files, separated as in ``PATH``.
MODELS_VARIABLE = 'AIIDA_MLPOTENTIAL_MODELS'
_NAME = 'aiida-mlpotential'


class LibraryError(ValueError):
    """A pre-parameterised model cannot be had; the message says why and what to do."""


def config_file() -> Path:
    """Return the user's configuration file, JSON such as ``{"models": ["/path/to/models"]}``; it need not exist."""
    return _home('XDG_CONFIG_HOME', '.config') / 'config.json'


def cache_directory() -> Path:
    """Return the directory of downloaded and converted parameters; it need not exist."""
    return _home('XDG_CACHE_HOME', '.cache') / 'models'


def _home(variable: str, default: str) -> Path:
    # the XDG specification has relative paths ignored
    value = os.environ.get(variable, '')
    return (Path(value) if Path(value).is_absolute() else Path.home() / default) / _NAME


def model_directories() -> list[Path]:
    """Return the directories to look for models in: those of the environment variable, then of the configuration.

    :raises LibraryError: if the configuration file is not valid
    """
    directories = [item for item in os.environ.get(MODELS_VARIABLE, '').split(os.pathsep) if item]
    directories.extend(_configured_directories(config_file()))
    return list(dict.fromkeys(Path(item).expanduser() for item in directories))


def _configured_directories(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding='utf-8')
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, UnicodeDecodeError) as exception:
        raise LibraryError(f'the configuration file {path} cannot be read: {exception}') from None
    try:
        content = json.loads(text)
    except ValueError as exception:
        raise LibraryError(f'the configuration file {path} is not valid JSON: {exception}') from None
    models = content.get('models', []) if isinstance(content, dict) else None
    if isinstance(models, str):
        models = [models]
    if not isinstance(models, list) or not all(isinstance(item, str) for item in models):
        raise LibraryError(f'the configuration file {path} must be like {{"models": ["/path/to/a/directory"]}}')
    return models
