"""The directory of a PiNN model: ``params.yml`` and the TensorFlow checkpoint, read and checked without TensorFlow.

PiNN itself reads the parameters with a YAML loader that runs what is in them, and predicts with random weights where
there is no checkpoint; so both are settled here, on AiiDA's side at import and again in the job.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...units import HARTREE
from ..base import ModelFileError
from .networks import NETWORKS, check_network, elements_of

PARAMETERS_FILE = 'params.yml'
CHECKPOINT_FILE = 'checkpoint'
#: Bytes of ``params.yml`` and of ``checkpoint``; the largest real ones, with symmetry functions, have some 100 kB.
MAX_TEXT = 1 << 20
#: The last bytes of every ``.index`` file (tensorflow/core/lib/io/format.h, kTableMagicNumber, little-endian).
INDEX_MAGIC = bytes.fromhex('57fb808b247547db')
_MAX_NESTING = 20
#: Characters of one value: yaml takes half a minute for a number of a million digits to the base 60.
_MAX_SCALAR = 1000

_LATEST = re.compile(r'^\s*model_checkpoint_path\s*:\s*"([^"\n]*)"', re.MULTILINE)
_SAFE_NAME = re.compile(r'[A-Za-z0-9_][A-Za-z0-9._+=-]*')
_SHARD = re.compile(r'\.data-(\d{5})-of-(\d{5})')


class PinnFileError(ModelFileError):
    """The directory is no usable PiNN model; ``label`` is the exit code of a job that meets it."""

    def __init__(self, message: str, label: str = 'ERROR_MODEL_CORRUPT') -> None:
        super().__init__(message)
        self.label = label


@dataclasses.dataclass(frozen=True)
class PinnModel:
    """What the files say: enough to build the network and to turn its output into energies.

    The energy of a frame is ``(sum of the network's outputs / scale + sum of dress[Z]) * unit``.

    :ivar network: name of the network, key of ``NETWORKS``
    :ivar parameters: its arguments
    :ivar elements: chemical symbols in the network's order; ``None`` where it takes any
    :ivar cutoff: in the model's unit of distance
    :ivar dress: energy of each atomic number, added after scaling
    :ivar scale: by which the training multiplied energies
    :ivar unit: the parameter ``e_unit``
    :ivar checkpoint: name of the checkpoint, without directory and suffixes
    :ivar files: all files that are needed
    """

    network: str
    parameters: Mapping[str, Any]
    elements: tuple[str, ...] | None
    cutoff: float
    dress: Mapping[int, float]
    scale: float
    unit: float
    checkpoint: str
    files: tuple[str, ...]

    def remarks(self) -> tuple[str, ...]:
        """Return what whoever imports the model should know."""
        from ase.data import chemical_symbols

        found = [_remark_on_unit(self.unit)]
        dressed = {chemical_symbols[number] for number in self.dress}
        undressed = [symbol for symbol in self.elements or () if symbol not in dressed]
        if not self.dress:
            found.append('params.yml has no e_dress: energies are relative.')
        elif undressed:
            found.append(f'e_dress of params.yml has no energy for {", ".join(undressed)}: it counts as 0.')
        if self.network == 'PiNet2' and self.parameters.get('rank') == 5:
            found.append('PiNet2 of rank 5 is not invariant: energies depend on how a structure is turned in space.')
        if self.network == 'BPNN':
            # The variables are named by their order; PiNN trains in that of its input and writes the numbers sorted.
            found.append(
                'nn_spec in params.yml must list the elements in the order of the training, which PiNN sorts when it '
                'writes the file: compare with the input of the training.'
            )
        return tuple(found)


def _remark_on_unit(unit: float) -> str:
    if math.isclose(unit, HARTREE, rel_tol=1e-4):
        return (
            f'e_unit in params.yml is {unit:.8g}, which turns Hartree into eV: eV is right unless the training '
            'data were not in Hartree; then give the energy unit.'
        )
    return (
        f'e_unit in params.yml is {unit:.8g}: energies come in that many times the unit of the training data, which no '
        'file names: give the energy unit unless that is eV.'
    )


def read_model(directory: Path) -> PinnModel:
    """Read and check the files of a model.

    :raises PinnFileError: if they are no PiNN potential, damaged, hostile or incomplete
    """
    if not directory.is_dir():
        raise PinnFileError(
            f'{directory.name} is not a directory: a PiNN model is the directory with {PARAMETERS_FILE}'
        )
    content = _read_yaml(directory / PARAMETERS_FILE)
    model, network = _section(content, 'model'), _section(content, 'network')
    if model['name'] != 'potential_model':
        raise PinnFileError(
            f'{PARAMETERS_FILE} describes a {model["name"]!r}, which gives no potential energy: only a '
            "'potential_model' can be used",
            'ERROR_MODEL_UNSUPPORTED',
        )
    name, arguments = network['name'], network['params']
    message = check_network(name, arguments)
    if message:
        raise PinnFileError(f'{PARAMETERS_FILE}: {message}', 'ERROR_MODEL_UNSUPPORTED')
    checkpoint, files = find_checkpoint(directory)
    numbers = {key: _number(model['params'], key, 1.0) for key in ('e_scale', 'e_unit')}
    return PinnModel(
        network=name,
        parameters=arguments,
        elements=elements_of(name, arguments),
        cutoff=_number(arguments, 'rc', NETWORKS[name].cutoff),
        dress=_dress(model['params'].get('e_dress') or {}),
        scale=numbers['e_scale'],
        unit=numbers['e_unit'],
        checkpoint=checkpoint,
        files=(PARAMETERS_FILE, CHECKPOINT_FILE, *files),
    )


def find_checkpoint(directory: Path) -> tuple[str, tuple[str, ...]]:
    """Return the name of the latest checkpoint and its files; they must be in the directory, whatever path is written.

    :raises PinnFileError: if there is none, or a part of it is missing or cut off
    """
    remedy = 'copy the whole training directory; without a checkpoint PiNN would predict with random weights'
    state = directory / CHECKPOINT_FILE
    if not state.is_file():
        raise PinnFileError(f'the file {CHECKPOINT_FILE} is missing: {remedy}', 'ERROR_MODEL_MISSING')
    match = _LATEST.search(_read_text(state))
    name = re.split(r'[/\\]', match.group(1))[-1] if match else ''
    if not _SAFE_NAME.fullmatch(name):
        raise PinnFileError(f'the file {CHECKPOINT_FILE} names no usable checkpoint ({name!r}): {remedy}')
    index = directory / f'{name}.index'
    if not index.is_file():
        raise PinnFileError(f'{index.name} is missing: {remedy}', 'ERROR_MODEL_MISSING')
    with index.open('rb') as handle:
        handle.seek(max(0, index.stat().st_size - len(INDEX_MAGIC)))
        if handle.read() != INDEX_MAGIC:
            raise PinnFileError(f'{index.name} is cut off or no TensorFlow checkpoint: copy it again')
    found = {}
    for path in directory.glob(f'{name}.data-*'):
        shard = _SHARD.fullmatch(path.name[len(name) :])
        if shard:
            found[int(shard.group(1)), int(shard.group(2))] = path
    total = max((number for _, number in found), default=1)
    for position in range(total):
        part = found.get((position, total))
        if part is None or not part.is_file():
            missing = f'{name}.data-{position:05d}-of-{total:05d}'
            raise PinnFileError(f'{missing} is missing: {remedy}', 'ERROR_MODEL_MISSING')
        if not part.stat().st_size:
            raise PinnFileError(f'{part.name} is empty: copy it again')
    return name, (index.name, *(found[position, total].name for position in range(total)))


def _read_text(path: Path) -> str:
    with path.open('rb') as handle:
        data = handle.read(MAX_TEXT + 1)
    if len(data) > MAX_TEXT:
        raise PinnFileError(f'{path.name} has more than {MAX_TEXT >> 10} kB: it is not a file that PiNN wrote')
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise PinnFileError(f'{path.name} is not text: it is not a file that PiNN wrote') from None


def _read_yaml(path: Path) -> dict[str, Any]:
    """Return plain values: no tag that makes an object, no alias that makes a small file an endless one."""
    import yaml

    if not path.is_file():
        raise PinnFileError(f'the file {path.name} is missing: give the directory of the model', 'ERROR_MODEL_MISSING')
    text = _read_text(path)
    try:
        _check_events(path.name, yaml.parse(text, Loader=yaml.SafeLoader))
        content = yaml.safe_load(text)
    except yaml.constructor.ConstructorError as exception:
        raise PinnFileError(
            f'{path.name} has a YAML tag for more than plain values ({exception.problem}), which could run code and is '
            'not read: replace it by numbers, texts and lists'
        ) from None
    except PinnFileError:
        raise
    except (yaml.YAMLError, ValueError) as exception:  # of its numbers and dates yaml lets the ValueError through
        reason = ' '.join(str(exception).split())[:200]
        raise PinnFileError(f'{path.name} is not valid YAML: {type(exception).__name__}: {reason}') from None
    if not isinstance(content, dict):
        raise PinnFileError(f'{path.name} holds no parameters of a PiNN model')
    return content


def _check_events(name: str, events: Iterator[Any]) -> None:
    """Refuse aliases and deep nesting as soon as they come: the time that yaml takes grows with the square of both."""
    import yaml

    depth = 0
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise PinnFileError(f'{name} has YAML aliases, which PiNN never writes: write the values out')
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > _MAX_SCALAR:
            raise PinnFileError(f'{name} is not valid YAML of PiNN: a value has more than {_MAX_SCALAR} characters')
        if depth > _MAX_NESTING:
            raise PinnFileError(f'{name} is not valid YAML of PiNN: it is nested more than {_MAX_NESTING} deep')


def _section(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return ``name`` and ``params`` of the model or the network."""
    section = content.get(key)
    if not isinstance(section, dict) or not isinstance(section.get('name'), str):
        raise PinnFileError(f'{PARAMETERS_FILE} does not name its {key}: it is no file of a PiNN model')
    parameters = section.get('params') or {}
    if not isinstance(parameters, dict):
        raise PinnFileError(f'{PARAMETERS_FILE}: the parameters of the {key} are not a mapping')
    return {'name': section['name'], 'params': parameters}


def _number(parameters: Mapping[str, Any], key: str, default: float) -> float:
    value = parameters.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (0 < value < math.inf):
        raise PinnFileError(f'{PARAMETERS_FILE}: {key} = {value!r:.60} is not a positive number')
    return float(value)


def _dress(values: Any) -> dict[int, float]:
    """Return the energy of each atomic number."""
    plain = isinstance(values, dict) and all(
        type(key) is int and 0 < key <= 118 and type(value) in (int, float) and math.isfinite(value)
        for key, value in values.items()
    )
    if not plain:
        raise PinnFileError(f'{PARAMETERS_FILE}: e_dress is not a list of atomic numbers with their energies')
    return {number: float(value) for number, value in values.items()}
