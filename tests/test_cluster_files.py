"""The files of the how-to page on clusters are true: `verdi` loads them, and jobs ask for what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from aiida import orm
from aiida.cmdline.commands.cmd_verdi import verdi
from aiida.engine import run_get_node
from ase.build import bulk
from click.testing import CliRunner

from aiida_mlpotential.calculations.single_point import SinglePointCalculation

FOLDER = Path(__file__).resolve().parents[1] / 'docs' / 'how-to' / 'clusters'
PAGE = FOLDER.parent / 'set_up_a_cluster.md'
CPU, GPU = 'options', 'gpu'

#: What must stand in the script of a job, by scheduler and file with options.
DIRECTIVES: dict[tuple[str, str], tuple[str, ...]] = {
    ('slurm', CPU): (
        '#SBATCH --partition=short',
        '#SBATCH --account=my-project',
        '#SBATCH --nodes=1',
        '#SBATCH --ntasks-per-node=1',
        '#SBATCH --cpus-per-task=8',
        '#SBATCH --time=01:00:00',
        '#SBATCH --mem=7812',
        '#SBATCH --no-requeue',
    ),
    ('slurm', GPU): ('#SBATCH --gres=gpu:1', '#SBATCH --partition=gpu', '#SBATCH --cpus-per-task=4'),
    ('pbs', CPU): (
        '#PBS -q short',
        '#PBS -A my-project',
        '#PBS -l select=1:mpiprocs=1:ncpus=8:mem=8000000kb',
        '#PBS -l walltime=01:00:00',
        '#PBS -r n',
    ),
    ('pbs', GPU): ('#PBS -q gpu', '#PBS -l select=1:mpiprocs=1:ncpus=4:mem=16000000kb'),
    ('sge', CPU): (
        '#$ -q short',
        '#$ -P my-project',
        '#$ -pe smp 8',
        '#$ -l h_rt=01:00:00',
        '#$ -l h_vmem=1G',
        '#$ -r no',
    ),
    ('sge', GPU): ('#$ -q gpu', '#$ -pe smp 4', '#$ -l gpu=1'),
}
SCHEDULERS = sorted({scheduler for scheduler, _ in DIRECTIVES})


def _content(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / f'{name}.yml').read_text())
    return loaded


@pytest.fixture
def call(aiida_profile_clean: Any):
    """Return a function that calls `verdi` without questions."""

    def run(*words: str) -> str:
        result = CliRunner().invoke(verdi, ['-p', aiida_profile_clean.name, *words])
        assert result.exit_code == 0, result.output
        return result.output

    return run


@pytest.fixture
def computer(call, request) -> orm.Computer:
    """Return the computer of a scheduler, set up and configured as on the page."""
    label = request.param
    call('computer', 'setup', '--non-interactive', '--config', str(FOLDER / f'{label}.yml'))
    call('computer', 'configure', 'core.ssh_async', label, '--non-interactive', '--config', str(FOLDER / 'ssh.yml'))
    return orm.load_computer(label)


@pytest.mark.parametrize('computer', SCHEDULERS, indirect=True)
def test_computers(computer: orm.Computer) -> None:
    content = _content(computer.label)
    assert computer.scheduler_type == content['scheduler']
    assert computer.transport_type == 'core.ssh_async'
    assert computer.is_configured
    configuration = computer.get_configuration()
    assert configuration['host'] == 'cluster'
    assert configuration['safe_interval'] == _content('ssh')['safe_interval']


@pytest.mark.parametrize('computer', SCHEDULERS, indirect=True)
@pytest.mark.parametrize('kind', [CPU, GPU])
def test_scripts_of_jobs(
    computer: orm.Computer, call, kind: str, emt_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code is made from its file, and a job with the options from theirs asks for what the page says."""
    from aiida.orm.nodes.data.code.installed import InstalledCode

    # Making a code looks on the computer whether the program is there; this computer is an example.
    monkeypatch.setattr(InstalledCode, 'validate_filepath_executable', lambda self: None)
    monkeypatch.chdir(tmp_path)
    call(
        'code',
        'create',
        'core.code.installed',
        '--non-interactive',
        '--config',
        str(FOLDER / f'{computer.label}-code.yml'),
    )
    code = orm.load_code(f'torchani@{computer.label}')
    _, node = run_get_node(
        SinglePointCalculation,
        code=code,
        model=emt_model,
        structure=orm.StructureData(ase=bulk('Cu')),
        metadata={'dry_run': True, 'store_provenance': False, 'options': _content(f'{computer.label}-{kind}')},
    )
    script = (Path(node.dry_run_info['folder']) / node.dry_run_info['script_filename']).read_text().splitlines()
    missing = [line for line in DIRECTIVES[computer.label, kind] if line not in script]
    assert not missing, script
    assert 'module load python/3.11' in script
    command = next(line for line in script if 'worker.pyz' in line)
    assert command.startswith("'/home/me/torchani/bin/python' 'worker.pyz' 'job.json'")


def test_every_file_is_on_the_page_and_tested() -> None:
    names = {path.name for path in FOLDER.iterdir()}
    page = PAGE.read_text()
    assert {name for name in names if f'clusters/{name}' in page} == names
    tested = {f'{scheduler}-{kind}.yml' for scheduler, kind in DIRECTIVES}
    tested |= {f'{scheduler}{end}.yml' for scheduler in SCHEDULERS for end in ('', '-code')}
    assert names == tested | {'ssh.yml'}
