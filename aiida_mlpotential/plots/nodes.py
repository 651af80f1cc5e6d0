"""Which pictures there are of a node: a table of kinds, each with what it needs and how it is drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from aiida import orm

from aiida_mlpotential.data.results import ResultsData

from .figures import PlotError
from .reaction import reaction_figure
from .screening import energy_figure, spread_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Options:
    """What a user may say about a picture.

    :ivar temperature: of the levels of a reaction, K; by default the first
    :ivar threshold: spread over the square root of the atoms, eV, above which structures are marked
    """

    temperature: float | None = None
    threshold: float | None = None


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of picture.

    :ivar help: what it shows
    :ivar find: returns what it is made of, or ``None`` where the node does not have it
    :ivar draw: makes the figure of that
    """

    name: str
    help: str
    find: Callable[[orm.Node], Any]
    draw: Callable[[Any, Options], Figure]


def find_reaction(node: orm.Node) -> dict[str, Any] | None:
    """Return the content of the output ``reaction`` of a workflow, or of this node itself."""
    if isinstance(node, orm.ProcessNode):
        node = node.outputs.reaction if 'reaction' in node.outputs else node
    if not isinstance(node, orm.Dict):
        return None
    content: dict[str, Any] = node.get_dict()  # type: ignore[no-untyped-call]
    return content if {'equation', 'quantities', 'temperatures'} <= set(content) else None


def find_spreads(node: orm.Node) -> dict[str, ResultsData] | None:
    """Return the results with a spread of a calculation or workflow, by the label of the model, or of this node."""
    found: Mapping[str, Any] = {'': node}
    if isinstance(node, orm.ProcessNode):
        results: Any = node.outputs.results if 'results' in node.outputs else {}
        found = {'': results} if isinstance(results, orm.Node) else {name: results[name] for name in results}
    spreads = {name: item for name, item in found.items() if isinstance(item, ResultsData) and item.qbc is not None}
    return spreads or None


def _draw_energies(results: Mapping[str, ResultsData], options: Options) -> Figure:
    return energy_figure(results, threshold=options.threshold)


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            'reaction',
            'ΔE, ΔH and ΔG of a reaction with error bars, over temperature where there are several.',
            find_reaction,
            lambda content, options: reaction_figure(content, options.temperature),
        ),
        Kind(
            'spread',
            'Histogram of the spread over the members.',
            find_spreads,
            lambda results, options: spread_figure(results, options.threshold),
        ),
        Kind('energies', 'Energy above the lowest of its formula, against the spread.', find_spreads, _draw_energies),
    )
}


def kinds_of(node: orm.Node) -> list[Kind]:
    """Return the pictures that there are of a node, the most telling one first."""
    return [kind for kind in KINDS.values() if kind.find(node) is not None]


def draw(node: orm.Node, name: str | None = None, options: Options | None = None) -> Figure:
    """Return a picture of a node.

    :param name: a key of ``KINDS``, by default the first that there is
    :raises PlotError: if there is no such picture of the node, or matplotlib is not installed
    """
    kinds = {kind.name: kind for kind in kinds_of(node)}
    if not kinds:
        raise PlotError(
            f'there is no picture of node {node.pk}: name a reaction, a screening, or results of an ensemble'
        )
    if name is not None and name not in kinds:
        raise PlotError(f'there is no picture {name!r} of node {node.pk}: choose {" or ".join(kinds)}')
    kind = kinds[name] if name is not None else next(iter(kinds.values()))
    options = options or Options()
    if options.threshold is None:
        options = dataclasses.replace(options, threshold=threshold_of(node))
    return kind.draw(kind.find(node), options)


def threshold_of(node: orm.Node) -> float | None:
    """Return the spread (eV) above which a screening flagged structures, if the node is one that did."""
    limit = node.inputs.max_qbc if isinstance(node, orm.ProcessNode) and 'max_qbc' in node.inputs else None
    return None if limit is None else float(limit.value)
