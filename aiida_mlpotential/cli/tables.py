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


def format_columns(texts: Sequence[str], width: int = 100, gap: str = '   ') -> str:
    """Return texts of equal length side by side, read line by line.

    :param width: characters that a line may have
    """
    per_line = max(1, (width + len(gap)) // (max(map(len, texts), default=0) + len(gap)))
    lines = (gap.join(texts[start : start + per_line]) for start in range(0, len(texts), per_line))
    return '\n'.join(line.rstrip() for line in lines)
