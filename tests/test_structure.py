"""The rules of the architecture that a machine can check; import contracts are checked by import-linter (setup.cfg)."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import aiida_mlpotential

PACKAGE = Path(aiida_mlpotential.__file__).parent
TESTS = Path(__file__).parent
SOURCES = sorted(path for path in PACKAGE.rglob('*.py') if '__pycache__' not in path.parts)
IDS = [path.relative_to(PACKAGE).as_posix() for path in SOURCES]

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 8
#: What must not be loaded by importing the package: backend libraries, and what only some users need.
HEAVY = (
    'torch',
    'torchani',
    'schnetpack',
    'sgdml',
    'tensorflow',
    'pinn',
    'pandas',
    'matplotlib',
    'huggingface_hub',
    'pymatgen',
    'spglib',
)

#: Modules without a test file of their own name, and why.
UNTESTED_BY_NAME: dict[str, str] = {
    'calculations/base.py': 'abstract, tested through its subclass in calculations/test_single_point.py',
    'data/formulas.py': 'attributes of StructureSetData, tested in data/test_structures.py',
    'data/frame_result.py': 'what ResultsData.frame() returns, tested in data/test_results.py',
    'data/statistics.py': 'attributes of ResultsData, tested in data/test_results.py',
    'parsers/base.py': 'abstract, tested through its subclass in parsers/test_single_point.py',
    'worker/backends/base.py': 'abstract, tested through worker/test_testing.py and every backend',
    'worker/backends/torchani/aev.py': 'part of the engine, compared with torchani in test_engine.py',
    'worker/backends/torchani/networks.py': 'part of the engine, compared with torchani in test_engine.py',
    'worker/tasks/base.py': 'abstract, tested through worker/tasks/test_single_point.py',
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, Function):
            yield node


def _modules(*, below: str = '') -> list[str]:
    """Return the dotted names of the modules of the package, without those that run something when imported."""
    names = []
    for path in SOURCES:
        parts = (PACKAGE.name, *path.relative_to(PACKAGE).with_suffix('').parts)
        parts = parts[:-1] if parts[-1] == '__init__' else parts
        name = '.'.join(parts)
        if name.startswith(f'{PACKAGE.name}{below}'):
            names.append(name)
    return names


def _run(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    process = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.parametrize('path', SOURCES, ids=IDS)
def test_sizes(path: Path) -> None:
    """Files and functions stay small, and functions take few parameters."""
    assert len(path.read_text().splitlines()) < MAX_FILE_LINES
    for function in _functions(path):
        assert function.end_lineno is not None
        lines = function.end_lineno - function.lineno + 1
        assert lines < MAX_FUNCTION_LINES, f'{function.name} has {lines} lines'
        arguments = function.args
        names = [item.arg for item in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        count = len([name for name in names if name not in ('self', 'cls')])
        assert count <= MAX_PARAMETERS, f'{function.name} takes {count} parameters'


@pytest.mark.parametrize('path', SOURCES, ids=IDS)
def test_docstrings_and_honesty(path: Path) -> None:
    """Every module says what it is for, and nothing is left for later."""
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), 'the module has no docstring'
    for word in ('TODO', 'FIXME', 'XXX', 'raise NotImplementedError'):
        assert word not in text, f'{word} in {path.name}'


def test_package_init_imports_nothing() -> None:
    """``import aiida_mlpotential`` gives the version and costs nothing."""
    tree = ast.parse((PACKAGE / '__init__.py').read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert aiida_mlpotential.__version__.count('.') >= 2


def test_worker_needs_no_aiida() -> None:
    """Every module of the worker can be imported where ``import aiida`` and its dependencies raise."""
    modules = _modules(below='.worker')
    assert 'aiida_mlpotential.worker.__main__' in modules
    output = _run(f"""
import importlib, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('aiida', 'plumpy', 'kiwipy', 'click', 'sqlalchemy', 'pandas'):
            raise ImportError(f'{{name}} is blocked')
sys.meta_path.insert(0, Blocker())
try:
    import aiida
except ImportError:
    pass
else:
    raise SystemExit('the blocker does not work')
for name in {modules!r}:
    importlib.import_module(name)
print('imported', len({modules!r}))
""")
    assert output.split() == ['imported', str(len(modules))]


def test_nothing_heavy_at_import_time() -> None:
    """Importing every module of the package loads no backend library."""
    modules = _modules()
    output = _run(f"""
import importlib, sys
for name in {modules!r}:
    importlib.import_module(name)
print('loaded:', *[name for name in {HEAVY!r} if name in sys.modules])
""")
    assert output.split() == ['loaded:']


def test_thread_variables_are_set_before_numpy_is_loaded() -> None:
    """The worker's entry point must not import numpy: OMP_NUM_THREADS is read when numpy is loaded."""
    output = _run('import sys, aiida_mlpotential.worker.__main__; print("numpy" in sys.modules)')
    assert output.strip() == 'False'


def _entry_points() -> list[importlib.metadata.EntryPoint]:
    return [
        point
        for point in importlib.metadata.distribution('aiida-mlpotential').entry_points
        if point.group.startswith('aiida.') or point.group == 'console_scripts'
    ]


@pytest.mark.parametrize('point', _entry_points(), ids=lambda point: f'{point.group}:{point.name}')
def test_entry_points_load(point: importlib.metadata.EntryPoint) -> None:
    """What ``pyproject.toml`` announces is there, under the prefix that belongs to this plugin."""
    prefix = 'aiida-mlpotential' if point.group == 'console_scripts' else 'mlpotential.'
    assert point.name.startswith(prefix)
    assert callable(point.load())


def test_all_groups_of_entry_points() -> None:
    """The list that the test above runs over is not empty for want of an installation."""
    groups = {point.group for point in _entry_points()}
    assert groups == {
        'aiida.data',
        'aiida.calculations',
        'aiida.calculations.monitors',
        'aiida.parsers',
        'aiida.workflows',
        'console_scripts',
    }


def _needs_test(path: Path) -> bool:
    return path.name not in ('__init__.py', '__main__.py')


@pytest.mark.parametrize(
    'name', [name for name, path in zip(IDS, SOURCES, strict=True) if _needs_test(path)], ids=lambda name: name
)
def test_tests_mirror_the_package(name: str) -> None:
    """Each module has a test file of its name, in the folder of its name, or stands in the table with a reason."""
    module = Path(name)
    expected = TESTS / module.parent / f'test_{module.name.lstrip("_")}'
    if name in UNTESTED_BY_NAME:
        assert not expected.exists(), f'{name} has a test file now: take it out of the table'
    else:
        assert expected.is_file(), f'{expected.relative_to(TESTS)} is missing'


def test_table_of_exceptions_is_true() -> None:
    """The table names only modules that exist, each with a reason."""
    assert set(UNTESTED_BY_NAME) <= set(IDS)
    assert all(len(reason) > 10 for reason in UNTESTED_BY_NAME.values())
