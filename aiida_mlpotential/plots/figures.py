"""What all pictures share: a figure that needs no display, colours that most people can tell apart, and saving."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe and Ito's palette, made to be told apart also by the colour-blind.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#F0E442', '#000000')
GREY = '#666666'
#: Pixels of an inch in formats of pixels.
DPI = 200
#: From this width (inch) on more columns of a legend fit.
_WIDE = 8.0
#: Area of a point in a legend, as matplotlib measures it.
_MARKER = 30.0
_MISSING = "pictures need matplotlib: pip install 'aiida-mlpotential[plots]'"


class PlotError(ValueError):
    """There is nothing to draw, or no way to draw it; one sentence says why and what to do."""


def new_figure(width: float, height: float, columns: int = 1, **kwargs: Any) -> tuple[Figure, list[Axes]]:
    """Return a figure that is no part of pyplot's state, and its axes side by side.

    :param width: inch
    :param height: inch
    :raises PlotError: if matplotlib is not installed
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise PlotError(_MISSING) from None
    figure = Figure(figsize=(width, height), layout='constrained')
    axes = figure.subplots(1, columns, squeeze=False, **kwargs)
    for item in axes[0]:
        item.spines[['top', 'right']].set_visible(False)
    return figure, list(axes[0])


def set_log(axes: Axes) -> None:
    """Make the horizontal axis logarithmic, with numbers as people write them: 2, 5, 10, and not 10¹."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale('log')
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
    axes.xaxis.set_minor_formatter(NullFormatter())


def set_whole_numbers(axes: Axes) -> None:
    """Give the vertical axis no numbers between whole ones: it counts."""
    from matplotlib.ticker import MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def add_legend(figure: Figure, axes: Axes) -> None:
    """Write what colours and lines mean above a figure, where nothing is covered."""
    from matplotlib.collections import PathCollection

    handles, labels = axes.get_legend_handles_labels()
    columns = 1 if len(labels) == 1 else min(len(labels), 3 if figure.get_figwidth() < _WIDE else 6)
    legend = figure.legend(handles, labels, loc='outside upper center', ncols=columns, frameon=False, fontsize='small')
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):  # points, which are small where there are many
            handle.set_sizes([_MARKER])


def formats() -> tuple[str, ...]:
    """Return the file formats that pictures can be saved in, as suffixes without the point.

    :raises PlotError: if matplotlib is not installed
    """
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        raise PlotError(_MISSING) from None

    return tuple(sorted(FigureCanvasBase.get_supported_filetypes()))


def check_suffix(path: str | Path) -> None:
    """Raise a :class:`PlotError` unless the suffix of a file is a format, or if matplotlib is not installed."""
    suffix = Path(path).suffix.lstrip('.').lower()
    if suffix not in formats():
        given = f'{Path(path).suffix!r} is none' if suffix else 'there is none'
        text = f'the suffix of {Path(path).name!r} says the format, but {given}'
        raise PlotError(f'{text}: take one of {", ".join(formats())}')


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure; the suffix says in which format.

    :raises PlotError: if there is no such format, or the file cannot be written
    """
    check_suffix(path)
    try:
        figure.savefig(path, dpi=DPI)
    except OSError as exception:
        raise PlotError(f'{path} cannot be written ({exception.strerror or exception}): name another file') from None
