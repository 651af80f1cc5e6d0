"""Pre-parameterised models by name: found in the profile, a directory, the cache, the hub or the wheel on PyPI."""

from __future__ import annotations

from .core import fetch_parameters, find_model, get_model, list_models, resolve_name
from .settings import MODELS_VARIABLE, LibraryError, cache_directory, config_file, model_directories
from .sources import (
    CacheSource,
    DirectorySource,
    HubSource,
    Report,
    Source,
    SourceError,
    WheelSource,
    default_sources,
)

__all__ = (
    'MODELS_VARIABLE',
    'CacheSource',
    'DirectorySource',
    'HubSource',
    'LibraryError',
    'Report',
    'Source',
    'SourceError',
    'WheelSource',
    'cache_directory',
    'config_file',
    'default_sources',
    'fetch_parameters',
    'find_model',
    'get_model',
    'list_models',
    'model_directories',
    'resolve_name',
)
