"""The documentation is true: its Python runs and prints what it says, its commands exist, its tables are generated.

A page may begin with comments for this runner: ``% requires: models`` (published parameters), ``% requires: pandas``,
``% requires: fixtures`` (the small models of the tests lie in the working directory).
A ``text`` block right after a ``python`` block is what that block prints; ``...`` stands for anything.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib.util
import io
import logging
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import click
import pytest

from aiida_mlpotential.worker.registry import PRETRAINED

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / 'docs'
PAGES = sorted(path for path in DOCS.rglob('*.md') if not {'generated', 'measured', '_build'} & set(path.parts))
EXECUTED = [path for path in PAGES if '```python' in path.read_text()] + [ROOT / 'README.md']

_BLOCK = re.compile(r'^```(\w+)\n(.*?)^```$', re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A fenced block, with what it prints if the page says so."""

    language: str
    text: str
    line: int
    output: str | None


def _blocks(path: Path) -> list[Block]:
    text = path.read_text()
    matches = list(_BLOCK.finditer(text))
    blocks = []
    for index, match in enumerate(matches):
        output = None
        if index + 1 < len(matches):
            following = matches[index + 1]
            if following[1] == 'text' and not text[match.end() : following.start()].strip():
                output = following[2]
        blocks.append(Block(match[1], match[2], text.count('\n', 0, match.start()) + 2, output))
    return blocks


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture
def code(aiida_profile_clean: object) -> Iterator[None]:
    """Set up what the pages take for granted: a profile in which ``aiida-mlpotential setup`` was run."""
    from aiida_mlpotential.cli import codes

    computer, _ = codes.get_or_make_computer(codes.COMPUTER_LABEL, poll_interval=0.1)
    codes.get_or_make_code(computer, codes.CODE_LABEL)
    yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the log out of what a block prints: AiiDA writes it to standard output once a command has been run."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.slow
@pytest.mark.parametrize('path', EXECUTED, ids=_name)
def test_python_blocks(
    path: Path, code: None, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Execute the Python blocks of a page one after the other, in one namespace and an empty directory."""
    if '% requires: pandas' in path.read_text():
        pytest.importorskip('pandas')
    if '% requires: models' in path.read_text() or path.name == 'README.md':
        data: Path = request.getfixturevalue('shared_data')
        monkeypatch.setenv('AIIDA_MLPOTENTIAL_MODELS', str(data / 'models' / 'torchani'))
    if '% requires: fixtures' in path.read_text():
        shutil.copytree(ROOT / 'tests' / 'fixtures', tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('COLUMNS', '200')
    namespace: dict[str, object] = {'__name__': 'docs'}
    blocks = [block for block in _blocks(path) if block.language == 'python']
    assert blocks
    checker = doctest.OutputChecker()
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    for block in blocks:
        printed = io.StringIO()
        source = '\n' * (block.line - 1) + block.text  # so that a traceback shows the line of the page
        with contextlib.redirect_stdout(printed), _quiet():
            exec(compile(source, str(path), 'exec'), namespace)
        if block.output is not None:
            assert checker.check_output(block.output, printed.getvalue(), flags), (
                f'{_name(path)}:{block.line} printed\n{printed.getvalue()}\nand not\n{block.output}'
            )


def _commands() -> list[tuple[str, str]]:
    """Return the calls of our command line in the documentation, with the page."""
    found = []
    for path in (*PAGES, ROOT / 'README.md'):
        for block in _blocks(path):
            if block.language in ('bash', 'console'):
                lines = block.text.replace('\\\n', ' ').splitlines()
                parts = [part.strip() for line in lines for part in line.split('&&')]
                found += [(_name(path), part) for part in parts if part.startswith('aiida-mlpotential ')]
    return found


@pytest.mark.parametrize(('page', 'line'), _commands())
def test_commands_exist(page: str, line: str) -> None:
    """Every call of the command line names commands, options and a number of arguments that there are."""
    from aiida_mlpotential.cli import main

    command: click.Command = main
    words = shlex.split(line, comments=True)[1:]
    context = click.Context(main, info_name='aiida-mlpotential')
    while isinstance(command, click.Group) and words:
        found = command.get_command(context, words.pop(0))
        assert found is not None, f'{page}: {line}'
        command = found
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    options |= {'--help', '-h'}
    used = {word.partition('=')[0] for word in words if word.startswith('-') and not re.match(r'-\d', word)}
    assert used <= options, f'{page}: {line} uses {sorted(used - options)}'


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location('generate', DOCS / 'generate.py')
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _own_parameters(task: str) -> list[str]:
    """Return the names of the parameters of a task that are not those of single points."""
    from aiida_mlpotential.worker.parameters import parameters_of

    common = parameters_of('single_point')
    return [name for name, item in parameters_of(task).items() if item != common.get(name)]


def test_tables_hold_every_fact(tmp_path: Path) -> None:
    """The generated reference names everything that the code defines."""
    from aiida_mlpotential.worker.backends import BACKENDS
    from aiida_mlpotential.worker.backends.options import OPTIONS
    from aiida_mlpotential.worker.errors import EXIT_CODES, FrameStatus
    from aiida_mlpotential.worker.parameters import parameters_of
    from aiida_mlpotential.worker.quantities import PROPERTIES, QUANTITIES, TASK_QUANTITIES
    from aiida_mlpotential.worker.units import DISTANCE_UNITS, ENERGY_UNITS

    generate = _generator()
    generate.write_all(tmp_path)
    expected = {
        'parameters': list(parameters_of('single_point')),
        **{f'parameters_{task}': _own_parameters(task) for task in TASK_QUANTITIES if task != 'single_point'},
        'convergence': [name for name in parameters_of('geometry_optimization') if name.endswith('_tolerance')][:4],
        'quantities': [name for name, item in QUANTITIES.items() if item.kind != 'task'],
        'quantities_geometry_optimization': list(TASK_QUANTITIES['geometry_optimization']),
        'quantities_vibrations': list(TASK_QUANTITIES['vibrations']),
        'quantities_thermochemistry': sorted(
            set(TASK_QUANTITIES['thermochemistry']) - set(TASK_QUANTITIES['vibrations'])
        ),
        'statuses': [item.name for item in FrameStatus],
        'exit_codes': [item.label for item in EXIT_CODES],
        'handlers': ['handle_out_of_memory', 'handle_not_converged', 'handle_bad_structures'],
        'protocols': ['fast', 'balanced', 'precise', *(f'mlpotential.{task}.base' for task in TASK_QUANTITIES)],
        'options': [key for options in OPTIONS.values() for key in options],
        'backends': [*BACKENDS, *PROPERTIES, 'kcal/mol, angstrom'],
        'models': [text for item in PRETRAINED.values() for text in (item.name, item.doi, item.sha256)],
        'units': [*ENERGY_UNITS, *DISTANCE_UNITS],
        'ports': ['model', 'structures', 'parent_folder', 'output_parameters', 'output_structures', 'NormalModesData'],
        'node_attributes': ['energy_std_max', 'formulas_complete', 'ensemble_size', 'n_transition_states'],
        'command_line': ['aiida-mlpotential demo', 'models install', 'aiida-mlpotential stop']
        + [f'aiida-mlpotential launch {task.replace("_", "-")}' for task in TASK_QUANTITIES],
    }
    assert set(expected) == set(generate.PAGES)
    for name, words in expected.items():
        text = (tmp_path / f'{name}.md').read_text()
        assert not [word for word in words if word not in text]


def test_every_generated_page_is_included() -> None:
    """No generated table is lost, and none is asked for that nobody makes."""
    included = {
        name
        for path in PAGES
        for name in re.findall(r'\{include\} (?:\.\./)?(?:reference/)?generated/(\w+)\.md', path.read_text())
    }
    assert included == set(_generator().PAGES)


def test_readme_tells_what_to_cite() -> None:
    """The README names every published model with its paper, and the two commands that the project promises."""
    text = (ROOT / 'README.md').read_text()
    for model in PRETRAINED.values():
        assert model.name in text
        assert model.doi in text
    assert "pip install -e '.[torchani]' && aiida-mlpotential demo" in text.splitlines()
    assert "pip install -e '.[tests]' && pytest" in text.splitlines()


@pytest.mark.parametrize('path', [*PAGES, *sorted(ROOT.glob('*.md'))], ids=_name)
def test_links_between_pages(path: Path) -> None:
    """Relative links lead to files that exist."""
    text = path.read_text()
    for target in re.findall(r'\]\(([^)#\s]+)(?:#[^)]*)?\)', text):
        if not target.startswith(('http', 'mailto:')):
            assert (path.parent / target).exists(), target
