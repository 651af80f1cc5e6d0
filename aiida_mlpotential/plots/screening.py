"""What a screening found: how uncertain the model is, and whether that concerns the structures of low energy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from aiida_mlpotential.data.formulas import formulas_of
from aiida_mlpotential.data.results import ResultsData, Structures
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.units import KCAL_PER_MOL

from .figures import COLOURS, GREY, PlotError, add_legend, new_figure, set_log, set_whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]

#: Formulas that have a colour of their own; the others are grey.
MAX_FORMULAS = 6
_BINS = 60
_SPREAD = 'std/√atoms over the members (meV)'
#: From this ratio of the largest to the smallest spread on an axis is logarithmic.
_WIDE = 30.0


def spread_figure(results: Mapping[str, ResultsData], threshold: float | None = None) -> Figure:
    """Return the histogram of the spread over the square root of the atoms, of one model or several.

    :param results: by the label of the model, of ensembles
    :param threshold: eV; what is above it is counted and marked
    :raises PlotError: if there is no spread, or matplotlib is not installed
    """
    spreads = {label: 1000 * values for label, values in ((label, _spreads(node)) for label, node in results.items())}
    every, names = np.concatenate(list(spreads.values())), _names(results)
    figure, (axes,) = new_figure(6, 4)
    bins = _bins(every)
    for colour, (label, values) in zip(COLOURS, spreads.items(), strict=False):
        name = f'{names[label]} ({len(values)}{_above(values, threshold)})'
        axes.hist(values, bins=bins.tolist(), color=colour, alpha=0.6, label=name)
    if threshold is not None:
        _draw_threshold(axes, threshold)
    if _is_wide(every):
        set_log(axes)
    set_whole_numbers(axes)
    axes.set_xlabel(_SPREAD)
    axes.set_ylabel('structures')
    add_legend(figure, axes)
    return figure


def energy_figure(
    results: ResultsData | Mapping[str, ResultsData],
    structures: Structures | None = None,
    threshold: float | None = None,
) -> Figure:
    """Return the energy above the lowest of the same formula, against the spread over √atoms.

    :param results: of an ensemble, or of several by their labels, of which each has a picture beside the others
    :param structures: those of the results, by default those of the job that made them
    :param threshold: eV; what is above it is counted and marked
    :raises PlotError: if there is no spread, or matplotlib is not installed
    """
    models = {'': results} if isinstance(results, ResultsData) else results
    names = _names(models)
    figure, all_axes = new_figure(5.6 * len(models) + 0.6, 4.6, len(models))
    for axes, (label, node) in zip(all_axes, models.items(), strict=True):
        _draw_energies(axes, node, structures, threshold)
        axes.set_title(names[label], fontsize='small')
    all_axes[0].set_ylabel('energy above the lowest of its formula (kcal/mol)')
    add_legend(figure, all_axes[0])
    return figure


def _draw_energies(axes: Axes, results: ResultsData, structures: Structures | None, threshold: float | None) -> None:
    """Draw the energies and the spread of a model; formulas have the colours that they have beside it."""
    qbc = results.qbc
    frames = results.get_structures() if structures is None else _frames(results, structures)
    good = np.asarray(results.status) == FrameStatus.OK
    if qbc is None or not good.any():
        raise PlotError(_nothing(results))
    formulas, _ = formulas_of(frames)
    relative = relative_energies(np.where(good, results.energies, np.nan), formulas) / KCAL_PER_MOL
    names, counts = np.unique(formulas, return_counts=True)
    shown = names[np.argsort(-counts, kind='stable')][:MAX_FORMULAS].tolist()
    groups = [(name, good & (formulas == name), colour) for name, colour in zip(shown, COLOURS, strict=False)]
    rest = ~np.isin(formulas, shown)
    groups += [('others', good & rest, '#BBBBBB')] if rest.any() else []
    spread = 1000 * qbc
    for name, chosen, colour in groups:
        label = f'{name} ({np.count_nonzero(chosen)})'
        below = 1.0 if name in shown else 0.9  # what has no colour of its own covers nothing
        axes.scatter(spread[chosen], relative[chosen], s=_size(good), color=colour, label=label, zorder=below, **_LOOK)
    if threshold is not None:
        _draw_threshold(axes, threshold)
    if _is_wide(spread[good]):
        set_log(axes)
    axes.set_xlabel(f'{_SPREAD}{_above(spread[good], threshold)}')


#: Very many points would make a file of vectors very large.
_LOOK: dict[str, Any] = {'alpha': 0.6, 'linewidths': 0, 'rasterized': True}


def relative_energies(energies: Array, formulas: Array) -> Array:
    """Return how far each energy is above the lowest of the same formula, ``(n,)``, in the unit of the energies.

    :param energies: ``(n,)``, NaN where there is none
    :param formulas: ``(n,)``
    """
    names, groups = np.unique(formulas, return_inverse=True)
    lowest = np.full(len(names), np.inf)
    there = np.isfinite(energies)
    np.minimum.at(lowest, groups[there], energies[there])
    return np.asarray(energies - lowest[groups])


def _draw_threshold(axes: Axes, threshold: float) -> None:
    """Mark a spread (eV)."""
    axes.axvline(1000 * threshold, color=GREY, linestyle='--', linewidth=1, label=f'{1000 * threshold:g} meV')


def _above(spreads: Array, threshold: float | None) -> str:
    """Return how many spreads (meV) are above the threshold (eV), to go on with after a number or a text."""
    return '' if threshold is None else f', {np.count_nonzero(spreads > 1000 * threshold)} above {1000 * threshold:g}'


def _names(results: Mapping[str, ResultsData]) -> dict[str, str]:
    """Return the names of the models by their labels, which stand for names that two models share."""
    names = {label: str(node.base.attributes.get('model_name', label)) for label, node in results.items()}
    shared = [name for name in names.values() if list(names.values()).count(name) > 1]
    return {label: label if label and name in shared else name for label, name in names.items()}


def _frames(results: ResultsData, structures: Structures) -> Any:
    from aiida_mlpotential.worker.frames import Frames

    return structures if isinstance(structures, Frames) else results.frames_of(structures)


def _size(good: Array) -> float:
    """Return how large a point is: small where there are many."""
    return float(np.clip(4000 / max(int(np.count_nonzero(good)), 1), 2, 24))


def _spreads(results: ResultsData) -> Array:
    """Return the spread over the square root of the atoms of what was evaluated, eV."""
    qbc = results.qbc
    found = np.zeros(0) if qbc is None else qbc[(np.asarray(results.status) == FrameStatus.OK) & np.isfinite(qbc)]
    if not len(found):
        raise PlotError(_nothing(results))
    return np.asarray(found)


def _nothing(results: ResultsData) -> str:
    if results.qbc is None:
        name = results.base.attributes.get('model_name', 'the model')
        return f'results {results.pk} have no spread: {name} has one member; take a model that is an ensemble'
    return f'results {results.pk} have no structure that was evaluated: there is nothing to draw'


def _is_wide(values: Array) -> bool:
    positive = values[values > 0]
    return bool(len(positive)) and bool(positive.max() > _WIDE * np.percentile(positive, 1))


def _bins(values: Array) -> Array:
    """Return the edges of the bins, of equal width on the axis that will be drawn."""
    if _is_wide(values):
        positive = values[values > 0]
        return np.geomspace(positive.min(), positive.max(), _BINS + 1)
    return np.asarray(np.histogram_bin_edges(values, bins='auto' if len(values) < 1000 else _BINS))
