"""A reaction as a diagram: levels of energy, enthalpy and Gibbs energy with error bars, and ΔG over temperature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from aiida_mlpotential.worker.units import KCAL_PER_MOL

from .figures import COLOURS, GREY, PlotError, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Quantities that have a level of their own, with their colours.
LEVELS = {'energy': COLOURS[0], 'enthalpy': COLOURS[1], 'gibbs_energy': COLOURS[2]}
_UNIT = 'kcal/mol'
#: As the numbers of the axis have it.
MINUS = '\N{MINUS SIGN}'
#: Width of a level and of what is between two of them.
_WIDTH, _GAP = 0.8, 0.45


def reaction_figure(reaction: Mapping[str, Any], temperature: float | None = None) -> Figure:
    """Return the diagram of a reaction, and its Gibbs energy over temperature if there are several temperatures.

    :param reaction: what ``compute_reaction`` stores: the content of the output ``reaction``
    :param temperature: of the levels, K; one of those of the reaction, by default the first
    :raises PlotError: if the reaction does not have this temperature, or matplotlib is not installed
    """
    temperatures = [float(value) for value in reaction['temperatures']]
    column = _column(temperatures, temperature)
    several = len(temperatures) > 1
    figure, axes = new_figure(9.5 if several else 5.5, 4.2, 2 if several else 1)
    _draw_levels(axes[0], reaction, column)
    if several:
        _draw_temperatures(axes[1], reaction, temperatures, column)
    text = f'{reaction["equation"]}\n{reaction["model_name"]}'
    if reaction['n_members'] > 1:
        text += f', ± spread of {reaction["n_members"]} members'
    figure.suptitle(text, fontsize='medium')
    return figure


def _column(temperatures: list[float], temperature: float | None) -> int:
    """Return which of the temperatures is meant."""
    if temperature is None:
        return 0
    found = np.flatnonzero(np.isclose(temperatures, temperature, rtol=0, atol=1e-3))
    if not len(found):
        known = ', '.join(f'{value:g}' for value in temperatures)
        raise PlotError(f'the reaction was not computed at {temperature:g} K: choose one of {known}')
    return int(found[0])


def _numbers(reaction: Mapping[str, Any], name: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    """Return values and spread of a quantity at all temperatures, kcal/mol."""
    item = reaction['quantities'][name]
    std = item['std']
    return np.array(item['value']) / KCAL_PER_MOL, None if std is None else np.array(std) / KCAL_PER_MOL


def _draw_levels(axes: Axes, reaction: Mapping[str, Any], column: int) -> None:
    """Draw the educts at zero, and a level for each quantity of the products."""
    axes.axhline(0, color=GREY, linewidth=0.6, linestyle=':', zorder=0)
    axes.plot([0, _WIDTH], [0, 0], color='black', linewidth=2.5, solid_capstyle='butt')
    axes.annotate('educts', (_WIDTH / 2, 0), xytext=(0, 5), textcoords='offset points', ha='center', va='bottom')
    for number, (name, colour) in enumerate(LEVELS.items(), 1):
        values, spreads = _numbers(reaction, name)
        value, left = float(values[column]), number * (_WIDTH + _GAP)
        axes.plot([left, left + _WIDTH], [value, value], color=colour, linewidth=2.5, solid_capstyle='butt')
        axes.plot([left - _GAP, left], [0, value], color=colour, linewidth=0.8, linestyle='--')
        if number > 1:  # the line of the educts goes on below or above the levels before
            axes.plot([_WIDTH, left - _GAP], [0, 0], color=GREY, linewidth=0.8)
        text, sign = f'{value:+.2f}'.replace('-', MINUS), 1 if value >= 0 else -1
        end = value
        if spreads is not None:
            spread = float(spreads[column])
            axes.errorbar(left + _WIDTH / 2, value, yerr=spread, color=colour, capsize=4, linewidth=1.3)
            text, end = f'{text}\n± {spread:.2f}', value + sign * spread
        symbol = reaction['quantities'][name]['symbol']
        axes.annotate(
            f'{symbol}\n{text}',
            (left + _WIDTH / 2, end),
            xytext=(0, 5 * sign),  # away from the line of the educts
            textcoords='offset points',
            ha='center',
            va='bottom' if sign > 0 else 'top',
            color=colour,
            fontsize='small',
        )
    axes.margins(y=0.35)
    axes.set_xticks([])
    axes.spines['bottom'].set_visible(False)
    axes.set_ylabel(f'products {MINUS} educts ({_UNIT})')
    axes.set_title(f'{reaction["temperatures"][column]:g} K, {reaction["gas_pressure"] / 1e5:g} bar', fontsize='small')


def _draw_temperatures(axes: Axes, reaction: Mapping[str, Any], temperatures: list[float], column: int) -> None:
    """Draw enthalpy and Gibbs energy over temperature, with the spread as a band."""
    order = np.argsort(temperatures)
    kelvins = np.array(temperatures)[order]
    for name in ('enthalpy', 'gibbs_energy'):
        values, spreads = _numbers(reaction, name)
        label = reaction['quantities'][name]['symbol']
        axes.plot(kelvins, values[order], color=LEVELS[name], marker='o', markersize=3, label=label)
        if spreads is not None:
            band = (values - spreads)[order], (values + spreads)[order]
            axes.fill_between(kelvins, *band, color=LEVELS[name], alpha=0.18, linewidth=0)
    low, high = axes.get_ylim()
    if low < 0 < high:
        axes.axhline(0, color=GREY, linewidth=0.6, linestyle=':', zorder=0)
    axes.axvline(temperatures[column], color=GREY, linewidth=0.6, linestyle=':', zorder=0)
    axes.set_xlabel('temperature (K)')
    axes.set_ylabel(f'ΔH, ΔG ({_UNIT})')
    axes.legend(frameon=False)
