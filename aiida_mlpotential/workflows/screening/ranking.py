"""Ranking of structures: relative energies within each formula, their spread, and which are too uncertain."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from aiida import orm
from aiida.engine import calcfunction

from aiida_mlpotential.data.formulas import formulas_of
from aiida_mlpotential.data.results import ResultsData
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.frames import BoolArray, FloatArray, IntArray
from aiida_mlpotential.worker.units import KCAL_PER_MOL

from .summary import MAX_NAMED, summarize

#: Spread over the square root of the number of atoms (eV) above which active learning asked for a reference
#: calculation: 0.23 kcal/mol, Smith et al., J. Chem. Phys. 148 (2018) 241733, DOI 10.1063/1.5023802.
ANI_CRITERION = 0.23 * KCAL_PER_MOL


@dataclasses.dataclass(frozen=True)
class Relative:
    """Energies of n structures relative to the lowest one of the same formula, eV.

    :ivar energies: NaN where there is none, ``(n,)``
    :ivar std: sample standard deviation (ddof = 1) over the members of these differences, ``(n,)``; NaN without members
    :ivar lowest: number of the structure that each is compared with, -1 where there is none, ``(n,)``
    """

    energies: FloatArray
    std: FloatArray
    lowest: IntArray

    @classmethod
    def of(cls, energies: FloatArray, members: FloatArray | None, groups: IntArray, ok: BoolArray) -> Relative:
        """Compare the structures of each group; differences are taken member by member, so that shared errors cancel.

        :param energies: means over the members, eV, ``(n,)``
        :param members: eV, ``(m, n)``; ``None`` for a single model
        :param groups: which structures have a formula in common, numbered from 0, ``(n,)``
        :param ok: which structures have an energy, ``(n,)``
        """
        chosen = np.flatnonzero(ok)
        order = chosen[np.lexsort((energies[chosen], groups[chosen]))]
        first = order[np.unique(groups[order], return_index=True)[1]] if len(order) else order
        lowest_of = np.full(int(groups.max()) + 1, -1, dtype=np.int64)
        lowest_of[groups[first]] = first
        lowest = np.where(ok, lowest_of[groups], -1)
        relative = np.where(ok, energies - energies[lowest], np.nan)
        if members is None or len(members) < 2:
            return cls(relative, np.full(len(energies), np.nan), lowest)
        differences = members[:, lowest]
        np.subtract(members, differences, out=differences)
        std = np.std(differences, axis=0, ddof=1)
        return cls(relative, np.where(ok, std, np.nan), lowest)


@calcfunction
def rank_structures(structures: StructureSetData, settings: orm.Dict, **results: ResultsData) -> dict[str, orm.Data]:
    """Rank structures by their energy within each formula, and flag those that a model is not sure of.

    :param structures: the whole set
    :param settings: ``max_qbc``: largest spread over the square root of the number of atoms, eV, or ``None``;
        ``slices``: how many there were, were reused, and are missing, for the summary; ``unoptimized``: how the
        optimization of structures ended, by number, where it did not end well: their energies are not those of
        minima, and have no place
    :param results: those of each model, by its label
    :return: ``summary``, see :func:`.summary.summarize`, and ``ranking`` with arrays over the n structures, and over
        the k models in the order of the attribute ``models``: ``order`` (numbers of the structures, by formula and
        energy of the first model; those without an energy last), ``formula``, ``relative_energy`` and
        ``relative_energy_std`` ``(k, n)``, eV, ``qbc`` ``(k, n)``, eV, ``status`` ``(k, n)``, ``flagged`` ``(n,)``,
        ``uncertainty`` ``(n,)``, eV: the largest ``qbc`` of all models
    """
    max_qbc = settings.get_dict()['max_qbc']
    formulas, composition = formulas_of(structures.get_frames())
    groups = np.unique(composition, axis=0, return_inverse=True)[1].reshape(-1)
    unoptimized = {int(index): str(name) for index, name in settings.get_dict().get('unoptimized', {}).items()}
    arrays = _rank(results, groups, list(unoptimized))
    arrays['formula'] = formulas
    arrays['flagged'] = np.zeros(len(formulas), bool) if max_qbc is None else arrays['uncertainty'] > max_qbc
    node = orm.ArrayData()
    for name, values in arrays.items():
        node.set_array(name, values)
    node.base.attributes.set('models', sorted(results))
    node.base.attributes.set('max_qbc', max_qbc)
    node.base.attributes.set('n_flagged', int(arrays['flagged'].sum()))
    summary = summarize(arrays, max_qbc, settings.get_dict()['slices'], results)
    summary['n_unoptimized'] = len(unoptimized)
    summary['unoptimized'] = {str(index): unoptimized[index] for index in sorted(unoptimized)[:MAX_NAMED]}
    return {'ranking': node, 'summary': orm.Dict(summary)}


def _rank(
    results: Mapping[str, ResultsData], groups: IntArray, left_out: Sequence[int] = ()
) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of the ranking that do not depend on settings."""
    is_minimum = np.ones(len(groups), dtype=bool)
    is_minimum[list(left_out)] = False
    rows: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in ('energy', 'std', 'qbc', 'status')}
    for label in sorted(results):
        node = results[label]
        ok = node.status == FrameStatus.OK
        relative = Relative.of(node.energies, node.member_energies, groups, ok & is_minimum)
        rows['energy'].append(relative.energies)
        rows['std'].append(relative.std)
        rows['qbc'].append(np.full(len(groups), np.nan) if node.qbc is None else np.where(ok, node.qbc, np.nan))
        rows['status'].append(node.status)
    qbc = np.array(rows['qbc'])
    there = np.isfinite(qbc).any(axis=0)
    uncertainty = np.where(there, np.max(qbc, axis=0, where=np.isfinite(qbc), initial=-np.inf), np.nan)
    energies = rows['energy'][0]
    return {
        'order': np.lexsort((energies, groups, ~np.isfinite(energies))),
        'relative_energy': np.array(rows['energy']),
        'relative_energy_std': np.array(rows['std']),
        'qbc': qbc,
        'status': np.array(rows['status']),
        'uncertainty': uncertainty,
    }
