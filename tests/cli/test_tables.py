"""Tables: cells as they are, aligned as asked."""

from __future__ import annotations

from aiida_mlpotential.cli.tables import format_table


def test_cells_are_not_reformatted() -> None:
    """Digits stay, which tabulate would otherwise cut or convert."""
    text = format_table([['a', '1.50000000'], ['bc', '-12.00']], ['name', 'energy'], right=(1,))
    header, line, first, second = text.splitlines()
    assert header.split() == ['name', 'energy']
    assert set(line) == {'-', ' '}
    assert first.endswith(' 1.50000000')
    assert second.endswith('     -12.00')


def test_names_and_values() -> None:
    """Without headers it is a list of names and values."""
    assert format_table([('Name', 'ANI-2x'), ('Members', 8)]).splitlines() == ['Name     ANI-2x', 'Members  8']


def test_empty() -> None:
    """No rows are no error."""
    assert format_table([], ['a', 'b']).splitlines()[0].split() == ['a', 'b']
