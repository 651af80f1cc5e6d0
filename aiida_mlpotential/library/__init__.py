"""Models for the profile: pre-parameterised ones by name, from wherever they are found, and own ones from files."""

from __future__ import annotations

from .archives import is_export
from .core import fetch_parameters, find_model, get_model, list_models, resolve_name
from .imports import export_model, import_model
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
    'export_model',
    'fetch_parameters',
    'find_model',
    'get_model',
    'import_model',
    'is_export',
    'list_models',
    'model_directories',
    'resolve_name',
)
