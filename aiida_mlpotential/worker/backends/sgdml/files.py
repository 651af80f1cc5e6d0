"""Reads the ``.npz`` of an sGDML model and checks all of it before the library sees it: that one ends the process.

Object arrays, which are pickles, are in every such file (``f_err``, ``e_err``, ``md5_test``); none of them is read.
"""

from __future__ import annotations

import dataclasses
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...frames import FloatArray, IntArray, clean_label
from ..base import ModelFileError

#: Limits on the archive: members, bytes unpacked, and how much more that may be than the file where it is large.
MAX_MEMBERS = 100
MAX_BYTES = 4 << 30
MAX_RATIO = 100
SMALL_BYTES = 64 << 20
MAX_HEADER = 10000
MAX_TEXT_BYTES = 4096
#: More atoms have no sGDML model: the kernel matrix would have this times three times the training points as rows.
MAX_ATOMS = 1000

_MEMBER = re.compile(r'[A-Za-z0-9_-]{1,100}\.npy')
#: What files of type ``t`` and ``d`` are.
_OTHER_TYPES = {'t': 'a training task', 'd': 'a data set'}
#: Spellings of the units that the package has, in lower case without blanks.
_ENERGY_SPELLINGS = {
    'eV': ('ev', 'electronvolt', 'electronvolts'),
    'Hartree': ('hartree', 'hartrees', 'hartree/particle', 'ha', 'eh', 'e_h', 'a.u.', 'au', 'atomicunits'),
    'kcal/mol': ('kcal/mol', 'kcal/mole', 'kcalmol-1', 'kcalmol^-1', 'kcal*mol^-1', 'kcalmol**-1', 'kcalmol', 'kcal'),
    'kJ/mol': ('kj/mol', 'kj/mole', 'kjmol-1', 'kjmol^-1', 'kj*mol^-1', 'kjmol**-1', 'kjmol', 'kj'),
}
_DISTANCE_SPELLINGS = {
    'angstrom': ('ang', 'angs', 'angstrom', 'angstroms', 'angström', 'ångström', 'ångstrom', 'å', 'a', '\u212b'),
    'bohr': ('bohr', 'bohrs', 'bohrradius', 'a0', 'a_0', 'a.u.', 'au', 'atomicunits'),
}
#: Units that the package does not have: a default in their place would be wrong without a word.
_FOREIGN = ('mev', 'mha', 'mhartree', 'ry', 'rydberg', 'cm-1', 'cm^-1', '1/cm', 'k', 'j', 'j/mol', 'nm', 'pm', 'm')


@dataclasses.dataclass(frozen=True)
class SgdmlModel:
    """A checked model of N atoms with T training points and K permutations, in the units of the file.

    :ivar numbers: atomic numbers in the order of the model, ``(N,)``
    :ivar descriptors: inverse distances of the training points, ``(T, N (N - 1) / 2)``; pairs as in :func:`pairs`
    :ivar permutations: orders of the atoms among which the model does not distinguish, ``(K, N)``
    :ivar arrays: what the library needs, by the names it uses
    :ivar texts: what the file says in words
    :ivar relative: whether it was trained without energies, which then have no zero
    """

    numbers: IntArray
    descriptors: FloatArray
    permutations: IntArray
    arrays: Mapping[str, Any]
    texts: Mapping[str, str]
    relative: bool


def pairs(n_atoms: int) -> tuple[IntArray, IntArray]:
    """Return the two atoms of each entry of a descriptor, ``(N (N - 1) / 2,)`` each: the lower triangle by rows."""
    first, second = np.tril_indices(n_atoms, -1)
    return first.astype(np.int64), second.astype(np.int64)


def descriptor_orders(orders: IntArray) -> IntArray:
    """Return for orders of atoms, ``(K, N)``, the orders of the descriptor's entries, ``(K, N (N - 1) / 2)``."""
    n_atoms = orders.shape[1]
    first, second = pairs(n_atoms)
    table = np.zeros((n_atoms, n_atoms), dtype=np.int64)
    table[first, second] = table[second, first] = np.arange(len(first))
    return table[orders[:, first], orders[:, second]]


def read_model(path: Path) -> SgdmlModel:
    """Read and check a model file.

    :raises ModelFileError: if it is damaged, hostile, or not a model that can be used
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = _check_archive(archive, path.stat().st_size)
            return _check_model(_Members(archive, members))
    except (ModelFileError, FileNotFoundError, MemoryError):
        raise
    except Exception as exception:  # a broken zip raises a dozen different types
        message = f'not an .npz file of sGDML ({type(exception).__name__}: {exception}): copy it again'
        raise ModelFileError(message) from exception


def energy_unit(model: SgdmlModel) -> str | None:
    """Return the energy unit that the file states, as a key of ``units.ENERGY_UNITS``, or ``None``."""
    return _unit(model.texts.get('e_unit', ''), _ENERGY_SPELLINGS, 'energy')


def distance_unit(model: SgdmlModel) -> str | None:
    """Return the distance unit that the file states, as a key of ``units.DISTANCE_UNITS``, or ``None``."""
    return _unit(model.texts.get('r_unit', ''), _DISTANCE_SPELLINGS, 'distance')


def _unit(text: str, spellings: Mapping[str, tuple[str, ...]], what: str) -> str | None:
    plain = ''.join(text.split()).lower()
    for unit, known in spellings.items():
        if plain in known:
            return unit
    if plain in _FOREIGN:
        raise ModelFileError(
            f'the {what} unit of the file is {text!r}, which is none of {", ".join(spellings)}: '
            'convert the data set and train the model again'
        )
    return None


def _check_archive(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Return the members by the names of their arrays; nothing is unpacked yet."""
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise ModelFileError(f'{len(infos)} members are more than an sGDML model has: it is not one')
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename
        if not _MEMBER.fullmatch(name):
            raise ModelFileError(
                f'the member {clean_label(name)!r} is not the name of an array: do not trust this file'
            )
        if name in members:
            raise ModelFileError(f'the member {name} is there twice: do not trust this file')
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ModelFileError(f'the member {name} is packed as numpy never does it: do not trust this file')
        members[name] = info
    unpacked = sum(info.file_size for info in infos)
    if unpacked > MAX_BYTES or (unpacked > SMALL_BYTES and unpacked > MAX_RATIO * size):
        raise ModelFileError(f'it unpacks from {size} to {unpacked} bytes, more than a model can: do not trust it')
    return {name.removesuffix('.npy'): info for name, info in members.items()}


class _Members:
    """The arrays of an archive, each read only when asked for and only after its header was found harmless."""

    def __init__(self, archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo]) -> None:
        self._archive, self._members = archive, members

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def array(self, name: str, kinds: str, dimensions: int) -> npt.NDArray[Any]:
        """Return an array whose dtype is of one of the kinds, as in ``numpy.dtype.kind``."""
        if name not in self:
            raise ModelFileError(
                f'it lacks {name!r}: it is damaged or was made by another version of sGDML, train it again with 1.0'
            )
        info = self._members[name]
        self._check_header(name, info, kinds, dimensions)
        with self._archive.open(info) as stream:
            array: npt.NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False, max_header_size=MAX_HEADER)
        if array.dtype.kind == 'f' and not np.isfinite(array).all():
            raise ModelFileError(f'{name!r} has numbers that are not finite: the training failed, train it again')
        return array

    def _check_header(self, name: str, info: zipfile.ZipInfo, kinds: str, dimensions: int) -> None:
        """Compare what the header promises with what is there: numpy would reserve the memory first."""
        with self._archive.open(info) as stream:
            version = np.lib.format.read_magic(stream)
            readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            if version not in readers:
                raise ModelFileError(
                    f'{name!r} is written in version {version} of the format: save it with numpy again'
                )
            shape, _, dtype = readers[version](stream, max_header_size=MAX_HEADER)
            begin = stream.tell()
        if dtype.hasobject:
            raise ModelFileError(f'{name!r} is a pickled object, which may run anything: it is not loaded')
        if dtype.kind not in kinds or len(shape) != dimensions:
            raise ModelFileError(f'{name!r} is {dtype} of shape {shape}, which no sGDML model has: it is damaged')
        values = 1
        for length in shape:
            values *= int(length)
        if values * dtype.itemsize + begin != info.file_size:
            raise ModelFileError(f'{name!r} is shorter or longer than its header says: it is damaged, copy it again')
        if dtype.kind in 'SU' and dtype.itemsize > MAX_TEXT_BYTES:
            raise ModelFileError(f'the text {name!r} has {dtype.itemsize} bytes: do not trust this file')

    def floats(self, name: str, shape: tuple[int, ...]) -> FloatArray:
        """Return real numbers; -1 in the shape stands for any length but zero."""
        array = self.array(name, 'fiu', len(shape)).astype(np.float64)
        if any(
            length != expected and (expected != -1 or length == 0)
            for length, expected in zip(array.shape, shape, strict=True)
        ):
            raise ModelFileError(f'{name!r} has shape {array.shape}, expected {shape}: the file is damaged')
        return array

    def text(self, name: str) -> str:
        """Return a text on one line; an empty one where it is missing."""
        if name not in self:
            return ''
        value = self.array(name, 'SU', 0).item()
        return clean_label(value.decode(errors='replace') if isinstance(value, bytes) else value)


def _check_model(members: _Members) -> SgdmlModel:
    kind = members.text('type')
    if kind != 'm':
        what = _OTHER_TYPES.get(kind, 'no file of sGDML')
        raise ModelFileError(f'this is {what}, not a trained model: import what `sgdml train` or `sgdml all` made')
    if 'lattice' in members:
        raise ModelFileError(
            'the model is of a periodic system (it has a lattice): only models of molecules can be used'
        )
    numbers = members.array('z', 'ui', 1).astype(np.int64)
    if not 2 <= len(numbers) <= MAX_ATOMS or numbers.min() < 1 or numbers.max() > 118:
        raise ModelFileError(f"'z' is not the atomic numbers of 2 to {MAX_ATOMS} atoms: the file is damaged")
    n_pairs = len(numbers) * (len(numbers) - 1) // 2
    descriptors = members.floats('R_desc', (n_pairs, -1))
    if descriptors.min() <= 0:
        raise ModelFileError("'R_desc' has inverse distances that are not positive: the file is damaged")
    n_train = descriptors.shape[1]
    permutations, linear = _check_permutations(members, numbers)
    arrays: dict[str, Any] = {
        'type': 'm',
        'z': numbers,
        'R_desc': descriptors,
        'R_d_desc_alpha': members.floats('R_d_desc_alpha', (n_train, n_pairs)),
        'c': members.floats('c', ()).item(),
        'sig': members.floats('sig', ()).item(),
        'std': members.floats('std', ()).item() if 'std' in members else 1.0,
        'perms': permutations,
        'tril_perms_lin': linear,
    }
    if arrays['sig'] <= 0 or arrays['std'] <= 0:
        raise ModelFileError("'sig' and 'std' must be positive: the file is damaged")
    if 'alphas_E' in members:  # of a model trained with energy constraints
        arrays['alphas_E'] = members.floats('alphas_E', (n_train,))
    relative = 'use_E' in members and not bool(members.array('use_E', 'b', 0))
    names = ('code_version', 'dataset_name', 'dataset_theory', 'e_unit', 'r_unit')
    texts = {name: members.text(name) for name in names}
    return SgdmlModel(numbers, np.ascontiguousarray(descriptors.T), permutations, arrays, texts, relative)


def _check_permutations(members: _Members, numbers: IntArray) -> tuple[IntArray, IntArray]:
    """Return the permutations and what the library makes of them, whose every entry it uses as an index unchecked."""
    permutations = members.array('perms', 'ui', 2).astype(np.int64)
    sound = permutations.shape[1] == len(numbers) and len(permutations) > 0
    if not sound or np.any(np.sort(permutations, axis=1) != np.arange(len(numbers))):
        raise ModelFileError("'perms' are not permutations of the atoms: the file is damaged")
    if np.any(numbers[permutations] != numbers):
        raise ModelFileError("'perms' exchange atoms of different elements: the file is damaged")
    linear = members.array('tril_perms_lin', 'ui', 1).astype(np.int64)
    # Before the orders are made, which are N / 2 times as many numbers as the permutations.
    if linear.size != len(permutations) * (len(numbers) * (len(numbers) - 1) // 2):
        raise ModelFileError("'tril_perms_lin' does not belong to 'perms': the file is damaged")
    orders = descriptor_orders(permutations)
    expected = (orders + np.arange(len(orders))[:, None] * orders.shape[1]).T.ravel()
    if not np.array_equal(linear, expected):
        raise ModelFileError("'tril_perms_lin' does not belong to 'perms': the file is damaged")
    return permutations, linear
