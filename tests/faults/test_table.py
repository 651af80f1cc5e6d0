"""The fault table in the documentation is that of the tests beside this file: ``python tests/faults/test_table.py``.

That runs all of them and, if all pass, writes the table from what they found. Run as part of the tests, each test of a
fault compares its own row, and this module that no row is missing or left over, which takes no servers.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import pytest
from fault_harness import TABLE

HERE = Path(__file__).parent
HEADER = ('What breaks', 'How a test breaks it', 'What follows', 'Structures lost', 'Computed again')


def _faults() -> Iterator[tuple[FunctionType, dict[str, str]]]:
    """Yield the tests of faults, in the order in which they stand in their files, with what their marks say."""
    for path in sorted(HERE.glob('test_*.py')):
        if path.name == Path(__file__).name:
            continue
        spec = importlib.util.spec_from_file_location(f'faults_{path.stem}', path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for function in vars(module).values():
            for mark in getattr(function, 'pytestmark', ()):
                if isinstance(function, FunctionType) and mark.name == 'fault':
                    yield function, mark.kwargs


def _rows() -> list[list[str]]:
    """Return the rows of the table in the documentation."""
    lines = TABLE.read_text().splitlines()
    return [[cell.strip() for cell in re.split(r'(?<!\\)\|', line)[1:-1]] for line in lines[2:]]


def test_the_table_has_a_row_for_every_test_of_a_fault() -> None:
    """A test that is new, changed or gone shows, even where the tests themselves cannot run."""
    declared = [[fault['what'], fault['injected'], fault['then']] for _, fault in _faults()]
    assert [row[:3] for row in _rows()] == declared, 'run python tests/faults/test_table.py'


def test_nothing_is_lost() -> None:
    """What the issue is about; the tests behind the rows would fail if it were otherwise."""
    rows = _rows()
    assert len(rows) >= 15
    assert {row[3].split(' of ')[0] for row in rows} == {'0'}


@pytest.mark.parametrize(('function', 'fault'), list(_faults()), ids=lambda item: getattr(item, '__name__', ''))
def test_tests_of_faults_compare_results(function: FunctionType, fault: dict[str, str]) -> None:
    """Each test says three things for its row, and takes the fixture that compares results bit by bit."""
    assert sorted(fault) == ['injected', 'then', 'what']
    assert 'nothing_lost' in function.__code__.co_varnames[: function.__code__.co_argcount]


class _Writer:
    """Plugin of pytest that gathers the rows of the tests that passed."""

    def __init__(self) -> None:
        self.rows: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == 'teardown' and report.passed:
            self.rows += [value for name, value in report.user_properties if name == 'fault_table_row']


def main() -> int:
    """Run the tests of faults and write the table; return 0 if all of them passed."""
    os.environ['AIIDA_MLPOTENTIAL_WRITE_FAULT_TABLE'] = '1'
    writer, n_faults = _Writer(), len(list(_faults()))
    status = pytest.main(
        [str(HERE), f'--deselect={HERE.relative_to(Path.cwd())}/test_table.py', *sys.argv[1:]], [writer]
    )
    if status != 0 or len(writer.rows) != n_faults:
        print(f'{len(writer.rows)} of {n_faults} tests of faults passed: the table is left as it is')
        return 1
    lines = [f'| {" | ".join(HEADER)} |', '|' + ' --- |' * len(HEADER), *writer.rows]
    TABLE.write_text('\n'.join(lines) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
