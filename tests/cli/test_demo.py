"""The demo: from nothing to the published numbers, twice, without touching the user's AiiDA."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from aiida import orm

from aiida_mlpotential.cli import demo, models
from aiida_mlpotential.cli.profiles import DemoDirectory
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.worker.units import HARTREE, KCAL_PER_MOL

SHARED_MODELS = Path(__file__).resolve().parents[3] / 'shared' / 'data' / 'models' / 'torchani'


def _run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, 'HOME': str(home), 'AIIDA_PATH': str(home / 'mine')}
    for name in ('XDG_DATA_HOME', 'XDG_CACHE_HOME', 'XDG_CONFIG_HOME'):
        environment.pop(name, None)
    if SHARED_MODELS.is_dir():
        environment['AIIDA_MLPOTENTIAL_MODELS'] = str(SHARED_MODELS)
    program = 'import sys; from aiida_mlpotential.cli import main; main()'
    command = [sys.executable, '-c', program, 'demo', *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.slow
def test_demo_from_nothing(tmp_path: Path) -> None:
    """Both runs give the tutorial's numbers, the second with what the first made, and leave the user's AiiDA alone."""
    pytest.importorskip('torchani')
    mine = tmp_path / 'mine' / '.aiida'
    mine.mkdir(parents=True)
    (mine / 'config.json').write_text('the configuration of the user')
    before = sorted(tmp_path.rglob('*'))
    first = _run(tmp_path)
    if first.returncode and 'ANI-1ccx could not be found' in first.stderr:
        pytest.skip('the parameters of ANI-1ccx are neither beside this checkout nor to be had from the network')
    assert first.returncode == 0, first.stderr
    _check_numbers(first.stdout)
    assert ' made (' in first.stdout
    second = _run(tmp_path)
    assert second.returncode == 0, second.stderr
    _check_numbers(second.stdout)
    assert 'Model ANI-1ccx: in the profile already' in second.stdout
    assert second.stderr == ''

    assert not (tmp_path / '.aiida').exists()
    assert (mine / 'config.json').read_text() == 'the configuration of the user'
    assert sorted((tmp_path / 'mine').rglob('*')) == [path for path in before if path != tmp_path / 'mine']
    _check_hints(second.stdout, tmp_path)


def _check_numbers(output: str) -> None:
    """Compare with the tutorial of AMS: energies within 1e-6 Hartree, deviations within 1e-3 mHartree."""
    rows = {line.split()[0]: line.split()[1:] for line in output.splitlines() if line.startswith('ISOL24_')}
    educt, product = rows['ISOL24_i14e'], rows['ISOL24_i14p']
    assert educt[0] == product[0] == 'C11H12O3'
    assert float(educt[1]) == pytest.approx(-651.36347065, abs=1e-6)
    assert float(product[1]) == pytest.approx(-651.35251657, abs=1e-6)
    assert [float(value) for value in educt[2:]] == pytest.approx([2.128358, 0.081860, 0.417405], abs=1e-3)
    assert len(educt[1].partition('.')[2]) == 8
    assert 'Reaction energy: +6.87 ± 1.47 kcal/mol' in output
    assert 'CCSD(T): +5.30; AMS, same model: +6.9' in output
    assert 'combined as if independent, give 2.26 kcal/mol' in output


def _check_hints(output: str, home: Path) -> None:
    """Run what the demo says one can run."""
    lines = [line.strip() for line in output.splitlines()]
    assignment = next(line for line in lines if line.startswith('export AIIDA_PATH='))
    directory = Path(assignment.partition('=')[2])
    assert directory == home / '.local' / 'share' / 'aiida-mlpotential' / 'demo'
    commands = [line for line in lines if line.startswith('verdi ')]
    assert len(commands) == 5
    environment = {**os.environ, 'HOME': str(home), 'AIIDA_PATH': str(directory)}
    verdi = 'import sys; from aiida.cmdline.commands.cmd_verdi import verdi; verdi()'
    outputs = [
        subprocess.run(
            [sys.executable, '-c', verdi, *command.split()[1:]],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for command in commands
    ]
    assert outputs[0].count('SinglePointCalculation') == 2
    assert 'ISOL24 reaction 14' in outputs[1]
    assert '"n_ok": 2' in outputs[2]
    assert 'energy_std_max' in outputs[3]
    row = next(line.split() for line in outputs[4].splitlines() if 'ISOL24_i14e' in line)
    assert float(row[-1]) == pytest.approx(2.128358, abs=1e-3)


@pytest.mark.parametrize('missing', [['torch'], ['torch', 'torchani']])
def test_missing_backend_is_said_first(invoke, monkeypatch, tmp_path: Path, missing: list[str]) -> None:
    """Without torch nothing is made; one sentence names the extra."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name in missing else found('json'))
    result = invoke('demo', '--directory', tmp_path / 'demo')
    assert result.exit_code == 1
    assert f'the demo needs {" and ".join(missing)}' in result.output
    assert "pip install 'aiida-mlpotential[torchani]'" in result.output
    assert not (tmp_path / 'demo').exists()


def test_gibbs_needs_point_groups(invoke, monkeypatch, tmp_path: Path) -> None:
    """Only ``--gibbs`` needs the library that finds them; what is missing is named with its extra."""
    found = importlib.util.find_spec
    missing = ['pymatgen']
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name in missing else found('json'))
    demo.check_backend()
    result = invoke('demo', '--gibbs', '--directory', tmp_path / 'demo')
    assert result.exit_code == 1
    assert "install the extra `symmetry` with `pip install 'aiida-mlpotential[symmetry]'`" in result.output
    missing.append('torch')
    result = invoke('demo', '--gibbs', '--directory', tmp_path / 'demo')
    assert 'the demo needs torch and pymatgen' in result.output
    assert "'aiida-mlpotential[torchani,symmetry]'" in result.output
    assert not (tmp_path / 'demo').exists()


@pytest.mark.slow
def test_gibbs_in_one_command(tmp_path: Path) -> None:
    """From nothing to a Gibbs energy; its value is compared with ASE in ``test_demo_gibbs.py``."""
    pytest.importorskip('torchani')
    pytest.importorskip('pymatgen', reason='the symmetry extra is not installed')
    process = _run(tmp_path, '--gibbs')
    if process.returncode and 'ANI-1ccx could not be found' in process.stderr:
        pytest.skip('the parameters of ANI-1ccx are neither beside this checkout nor to be had from the network')
    assert process.returncode == 0, process.stderr
    assert 'Reaction Gibbs energy: +6.00 ± ' in process.stdout
    assert process.stdout.count('minimum after ') == 2
    assert process.stdout.count('process show') == 2


@pytest.mark.parametrize('option', ['--fresh', '--keep'])
def test_directory_of_someone_else(invoke, monkeypatch, tmp_path: Path, option: str) -> None:
    """A directory that the demo did not make stays as it is."""
    monkeypatch.setattr(demo, 'check_backend', lambda gibbs: None)
    (tmp_path / 'thesis.tex').touch()
    result = invoke('demo', '--directory', tmp_path, option)
    assert result.exit_code == 1
    assert 'was not made by the demo' in result.output
    assert [path.name for path in tmp_path.iterdir()] == ['thesis.tex']


def test_calculation_that_fails(localhost: orm.Computer, emt: ModelData, invoke, monkeypatch, tmp_path: Path) -> None:
    """A calculation that fails ends the demo with exit code 1 and the cause, and no table."""
    code = orm.InstalledCode(label='false', computer=localhost, filepath_executable='/bin/false').store()
    monkeypatch.setattr(demo, 'check_backend', lambda gibbs: None)
    monkeypatch.setattr(demo, '_get_code', lambda home: code)
    monkeypatch.setattr(DemoDirectory, 'open', lambda self: self.path.mkdir() is None)
    monkeypatch.setattr(models, 'install_model', lambda name, steps: emt)
    result = invoke('demo', '--directory', tmp_path / 'demo')
    assert result.exit_code == 1
    assert re.search(r'Error: SinglePointCalculation<\d+> failed \(exit code 301\): ', result.output)
    assert 'Reaction energy' not in result.output


def test_code_of_another_python(localhost: orm.Computer, tmp_path: Path) -> None:
    """Run from another environment, the demo makes another Code instead of using one that may be gone."""
    old = orm.InstalledCode(label='mlpotential', computer=localhost, filepath_executable='/gone/python').store()
    home = DemoDirectory(tmp_path / 'demo')
    code = demo._get_code(home)
    assert code.pk != old.pk
    assert code.label == 'mlpotential-2'
    assert str(code.filepath_executable) == sys.executable
    assert demo._get_code(home).pk == code.pk


def test_structures_are_stored_once(aiida_profile_clean) -> None:
    """The geometries of the package: 26 atoms each, the same composition, one node."""
    structures = demo.get_structures()
    assert structures.is_stored
    assert structures.labels == (demo.EDUCT, demo.PRODUCT)
    assert structures.formulas == ['C11H12O3']
    assert structures.get_frames().counts.tolist() == [26, 26]
    assert not structures.periodic
    assert demo.get_structures().pk == structures.pk


class Results:
    """As much of a results node as the demo's table needs."""

    member_energies = np.array([[-1.0, -1.2], [-3.0, -2.8]]) * HARTREE
    energies = member_energies.mean(axis=0)
    energy_std = member_energies.std(axis=0, ddof=1)


def test_table(aiida_profile_clean) -> None:
    """Hartree with eight decimals, milli-Hartree with six, kcal/mol with two."""
    text = click.unstyle(demo.format_results(Results(), demo.get_structures()))
    row = next(line for line in text.splitlines() if line.startswith(demo.EDUCT)).split()
    std = 1000 * np.sqrt(2)
    assert row[2:] == ['-2.00000000', f'{std:.6f}', f'{std / 26:.6f}', f'{std / 26**0.5:.6f}']
    differences = np.array([-0.2, 0.2]) * HARTREE / KCAL_PER_MOL
    assert f'{differences.mean():+.2f} ± {differences.std(ddof=1):.2f} kcal/mol'.lstrip('+-0.') in text
    assert 'the sample standard deviation of 2 reaction energies' in text
