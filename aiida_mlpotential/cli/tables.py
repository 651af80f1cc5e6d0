"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def format_table(rows: Sequence[Sequence[Any]], headers: Sequence[str] = (), right: Sequence[int] = ()) -> str:
    """Return rows as a table; cells are printed as they are.

    :param headers: one for each column; without them the first column is that of the names
    :param right: columns to align to the right
    """
    from tabulate import tabulate

    width = max((len(row) for row in rows), default=len(headers))
    alignment = ['right' if column in right else 'left' for column in range(width)]
    table: str = tabulate(
        [[str(cell) for cell in row] for row in rows],
        headers=headers,
        tablefmt='simple' if headers else 'plain',
        disable_numparse=True,
        colalign=alignment if rows else None,
    )
    return table
