"""Own models into the profile, and out of it as one file to pass on."""

from __future__ import annotations

import dataclasses
import tempfile
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from aiida_mlpotential.data.model import DEFAULT_INFO, ModelData, ModelInfo
from aiida_mlpotential.data.model_files import plain_name, show
from aiida_mlpotential.data.model_info import AUTO, parse_elements
from aiida_mlpotential.worker.backends import BACKENDS
from aiida_mlpotential.worker.backends.base import ModelFileError

from .archives import SUFFIX, is_export, unpack, write_archive
from .manifest import MANIFEST_FILE, Manifest


def import_model(
    paths: str | Path | Sequence[str | Path],
    *,
    backend: str | None = None,
    name: str | None = None,
    elements: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    info: ModelInfo = DEFAULT_INFO,
    trusted: bool = False,
) -> ModelData:
    """Return an unstored node of a parameter file, of several (a committee), or of an exported model.

    :param paths: a file or directory, several of one backend, or what :func:`export_model` wrote; none for a backend
        whose package has a model in it, and for ``ase`` with the options ``calculator`` and ``kwargs``
    :param backend: such as ``sgdml``; an exported model knows it
    :param name: defaults to the name of the file, or that in the exported model
    :param elements: chemical symbols in the order of the model, also as a text such as ``H C O``
    :param options: JSON values for the backend
    :param info: units, source, licence, method and DOI; what it leaves out is taken from an exported model
    :param trusted: that whoever made the files may run code on the computer of the job; never taken from an export
    :raises FileNotFoundError: if there is no such file
    :raises ValueError: if something else is not valid; one sentence says what
    """
    given = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
    if not given:
        return _import_calculator(backend, name, elements, options or {}, info)
    exports = [path for path in given if is_export(path)]
    claims: dict[str, Any] = {
        'name': name,
        'elements': parse_elements(elements),
        'options': dict(options or {}),
        'info': info,
        'trusted': trusted,
    }
    if exports:
        if len(given) > 1:
            raise ModelFileError(f'{show(exports[0])} is an exported model: import it alone')
        return _import_export(given[0], backend, claims)
    if backend is None:
        raise ValueError('say with `backend` which library the model is for: a parameter file does not')
    if len(given) == 1:
        return ModelData.from_file(given[0], backend=backend, **claims)
    return ModelData.from_members(given, backend=backend, **claims)


def _import_calculator(
    backend: str | None,
    name: str | None,
    elements: Sequence[str] | None,
    options: Mapping[str, Any],
    info: ModelInfo,
) -> ModelData:
    """Return the node of an ASE calculator that needs no file."""
    entry = BACKENDS.get(backend or '')
    if entry is None or entry.module != 'ase':
        raise ValueError('name at least one parameter file')
    others = dict(options)
    calculator = others.pop('calculator', None) if entry.family is None else backend
    if calculator is None:
        raise ValueError('name a parameter file, or the option `calculator`, the import path of an ASE calculator')
    kwargs = others.pop('kwargs', {})
    if not isinstance(kwargs, dict):
        raise ValueError(f'the option `kwargs` must be an object of keyword arguments, not {kwargs!r}')
    return ModelData.from_ase_calculator(calculator, kwargs, name=name, elements=elements, options=others, info=info)


def _import_export(path: Path, backend: str | None, claims: dict[str, Any]) -> ModelData:
    """Return the node of an exported model: what it says is less than the user's word, and is checked with the file."""
    with tempfile.TemporaryDirectory(prefix='aiida-mlpotential-') as folder:
        unpacked = unpack(path, Path(folder))
        manifest = unpacked.manifest
        if backend not in (None, manifest.backend):
            raise ModelFileError(f'{show(path)} is a model of the backend {manifest.backend}, not {backend}')
        claimed: ModelInfo = claims['info']
        settings = {
            **claims,
            'backend': manifest.backend,
            'name': manifest.name if claims['name'] is None else claims['name'],
            'elements': manifest.elements if claims['elements'] is None else claims['elements'],
            'options': {**manifest.options, **claims['options']},
            'info': _merge_info(claimed, manifest),
        }
        if manifest.committee:
            node = ModelData.from_members(unpacked.paths, **settings)
        else:
            node = ModelData.from_file(unpacked.paths[0], ensemble_size=manifest.ensemble_size, **settings)
        if node.files != manifest.files:
            raise ModelFileError(f'the files of {show(path)} are not those that the backend {manifest.backend} needs')
        _check_units(node, claimed, manifest)
        node.base.attributes.set('original_names', manifest.original_names)
        return node


def _merge_info(claimed: ModelInfo, manifest: Manifest) -> ModelInfo:
    """Return the user's word, else the export's; a unit that the export has of the file is asked of the file again."""
    values = {
        field.name: getattr(claimed, field.name) or getattr(manifest, field.name)
        for field in dataclasses.fields(ModelInfo)
        if not field.name.endswith('_unit')
    }
    for kind in ('energy', 'distance'):
        unit = getattr(claimed, f'{kind}_unit')
        if unit == AUTO and manifest.units_from[kind] == 'user':
            unit = getattr(manifest, f'{kind}_unit')
        values[f'{kind}_unit'] = unit
    return ModelInfo(**values)


def _check_units(node: ModelData, claimed: ModelInfo, manifest: Manifest) -> None:
    """Refuse an export whose units are not those that its own file, or the backend, gives."""
    for kind in ('energy', 'distance'):
        key = f'{kind}_unit'
        found, said = getattr(node, key), getattr(manifest, key)
        if getattr(claimed, key) == AUTO and (found, node.units_from[kind]) != (said, manifest.units_from[kind]):
            raise ModelFileError(
                f'{MANIFEST_FILE} has the {kind} unit {said} ({manifest.units_from[kind]}), but it is {found} '
                f'({node.units_from[kind]}): say with `--{kind}-unit` which is right'
            )


def export_model(node: ModelData, path: str | Path | None = None, *, overwrite: bool = False) -> Path:
    """Write a model with its facts to one zip archive, and return where it is; equal models are equal archives.

    :param path: the archive, or an existing directory for it; by default ``NAME.zip`` in the working directory
    :param overwrite: replace what is there
    :raises FileExistsError: if there is something of that name
    :raises ValueError: if the model has no parameter files, or they are damaged
    """
    if not node.files:
        calculator, kwargs = node.options.get('calculator'), node.options.get('kwargs')
        raise ValueError(
            f'{node.name} has no parameter files to export: it is the ASE calculator {calculator} with the arguments '
            f'{kwargs}, to be made anew with ModelData.from_ase_calculator'
        )
    file = f'{plain_name(node.name)}{SUFFIX}'
    target = Path(file) if path is None else Path(path)
    if target.is_dir():
        target /= file
    if target.suffix.lower() != SUFFIX:
        raise ValueError(f'an exported model is a zip archive: let the name of {show(target)} end in {SUFFIX}')
    if not target.parent.is_dir():
        raise FileNotFoundError(f'there is no directory {show(target.parent)}: make it first')
    with _replacing(target) if overwrite else _new_file(target) as stream:
        write_archive(node, stream)
    return target


@contextmanager
def _new_file(target: Path) -> Iterator[IO[bytes]]:
    """Give a file that was not there before, not even as a link; one that fails half-way is removed."""
    try:
        stream = target.open('xb')
    except FileExistsError:
        raise FileExistsError(f'{show(target)} is there already: add `--force` to replace it') from None
    yield from _write(stream, target)


@contextmanager
def _replacing(target: Path) -> Iterator[IO[bytes]]:
    """Give a file that takes the place of another one when it is complete."""
    temporary = target.with_name(f'.{target.name[:100]}.{uuid.uuid4().hex}')
    yield from _write(temporary.open('xb'), temporary, lambda: temporary.replace(target))


def _write(
    stream: IO[bytes], path: Path, finish: Callable[[], object] = lambda: None
) -> Generator[IO[bytes], None, None]:
    try:
        with stream:
            yield stream
        finish()
    except BaseException:
        path.unlink(missing_ok=True)
        raise
