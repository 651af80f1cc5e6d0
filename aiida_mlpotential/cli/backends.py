"""``aiida-mlpotential backends``: environments with the backends' libraries, made, checked and removed."""

from __future__ import annotations

import contextlib
import datetime
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import click
from aiida.cmdline.utils import echo

from aiida_mlpotential.installer.recipes import (
    RECIPES,
    Recipe,
    RecipeError,
    check_device,
    get_recipe,
    with_requirements,
)
from aiida_mlpotential.installer.remote import InstallerError, Remote, interruptible

from .backends_list import list_command
from .codes import COMPUTER_LABEL, get_or_make_computer
from .params import ProfileGroup, with_profile
from .progress import Steps

if TYPE_CHECKING:
    from aiida.orm import Computer, InstalledCode

    from aiida_mlpotential.installer.check import CheckResult
    from aiida_mlpotential.installer.environment import Environment
    from aiida_mlpotential.installer.pip import Sources

COMPUTER = click.option(
    '-Y',
    '--computer',
    'computer_label',
    metavar='LABEL',
    default=COMPUTER_LABEL,
    show_default=True,
    help='Computer of your AiiDA profile. `localhost` is made where it does not exist.',
)
DIRECTORY = click.option(
    '--directory',
    metavar='PATH',
    help='Directory on the computer below which the environment lies, absolute. '
    '[default: ~/.aiida-mlpotential/environments there]',
)
LOG_LINES = 15


class Wanted(NamedTuple):
    """What is to be installed, as the options say."""

    recipe: Recipe
    label: str
    device: str = ''
    python: str | None = None
    directory: str | None = None
    index_url: str = ''
    wheels: str = ''
    requirements: tuple[str, ...] = ()


@click.group('backends', cls=ProfileGroup)
def backends() -> None:
    """Install, check and remove the libraries of the backends on any computer."""


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what the installer raises into one sentence, below the end of the log that it comes from."""
    try:
        yield
    except InstallerError as exception:
        lines = [line for line in exception.log.splitlines() if line.strip() and not line.startswith('WARNING:')]
        for line in lines[-LOG_LINES:]:
            click.echo(f'    {line}', err=True)
        raise click.ClickException(str(exception)) from exception
    except RecipeError as exception:
        raise click.ClickException(str(exception)) from exception


@backends.command('install')
@click.argument('backend', metavar='BACKEND')
@COMPUTER
@click.option(
    '--device',
    metavar='BUILD',
    default='',
    help='Build of torch: `cpu`, or `cu` with the version of CUDA as in `cu130`. [default: the one that pip finds]',
)
@click.option('--python', metavar='PATH', help='Python on the computer to begin from. [default: the best on its path]')
@DIRECTORY
@click.option('--index', 'index_url', metavar='URL', default='', help='Package index to use, and no other.')
@click.option(
    '--wheels',
    '--find-links',
    'wheels',
    metavar='DIR',
    default='',
    help='Directory of wheels to use, and nothing else, so that no network is needed. One on this machine is sent.',
)
@click.option(
    '--requirement',
    'requirements',
    metavar='REQ',
    multiple=True,
    help="What pip shall install in place of the recipe's own requirement: `torch==2.12.0`, or a path or address of "
    'the backend itself. Repeat the option for each.',
)
@click.option(
    '-X', '--code', 'label', metavar='LABEL', help='Label of the Code that is made. [default: mlpotential-BACKEND]'
)
@with_profile
def install(backend: str, computer_label: str, label: str | None, **options: Any) -> None:
    """Make an environment with a backend on a computer, and a Code of it.

    The environment is a virtual one with versions that are known to work. It is tried by evaluating a small model
    before the Code is made. Whatever goes wrong, and Ctrl-C, leaves nothing behind.
    """
    with plain_errors(), interruptible():
        from aiida_mlpotential.installer.codes import check_label, default_label

        recipe = get_recipe(backend)
        check_device(recipe, options['device'])
        wanted = Wanted(recipe, label or default_label(backend), **options)
        with_requirements(recipe, wanted.requirements)  # which says at once what is none
        computer, _ = get_or_make_computer(computer_label)
        check_label(computer, wanted.label)
        with Remote(computer) as remote:
            code = run_install(remote, wanted, Steps())
        echo.echo_success(f'{recipe.backend} is ready: launch with `--code {code.full_label}`.')


def run_install(remote: Remote, wanted: Wanted, steps: Steps) -> InstalledCode:
    """Install a backend, step by step; on any exception remove what was made."""
    from aiida_mlpotential.installer.environment import Environment, find_python

    recipe, where = wanted.recipe, remote.computer.label
    with steps.step(f'Python on {where}') as step:
        environment = Environment.plan(remote, recipe.name, wanted.directory)
        python = find_python(remote, recipe, wanted.python)
        _check_paths(remote, wanted.requirements)
        step.result = f'{python.path} ({python.version})'
    # A Mac has one build for the processor, which is not called that.
    device = '' if python.platform == 'darwin' and wanted.device == 'cpu' else wanted.device
    facts = {
        'backend': recipe.backend,
        'version': recipe.version,
        'device': device,
        'begun': datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'),
        'python': str(python.version),
    }
    code = None
    try:
        with steps.step('Virtual environment') as step:
            environment.create(python, facts, step.report)
            step.result = environment.path
        _install_steps(environment, wanted._replace(device=device), steps)
        result = _evaluate(environment, recipe, device, steps)
        with steps.step('Code') as step:
            from aiida_mlpotential.installer.codes import create_code
            from aiida_mlpotential.installer.environment import size_text

            environment.finish(packages=environment.freeze(), check=result.facts)
            code = create_code(environment, recipe, wanted.label, result.facts)
            step.result = f'{code.full_label}, PK {code.pk}; the environment has {size_text(environment.size())}'
        return code
    except BaseException:
        _clean_up(environment, code, steps)
        raise


def _check_paths(remote: Remote, requirements: tuple[str, ...]) -> None:
    """Raise an :class:`InstallerError` for a path that is nowhere, before pip has installed everything else."""
    for path in requirements:
        if not path.startswith(('.', '/', '~')) or Path(path).expanduser().exists():
            continue
        if not (path.startswith('/') and remote.exists(path)):
            raise InstallerError(f'there is no {path}, neither here nor on {remote.computer.label}.')


def _install_steps(environment: Environment, wanted: Wanted, steps: Steps) -> None:
    from aiida_mlpotential.installer.environment import with_uploads
    from aiida_mlpotential.installer.pip import Sources

    calls = with_requirements(wanted.recipe, wanted.requirements)
    sources = Sources(wanted.device, wanted.index_url, '')
    if wanted.wheels:
        sources = _find_wheels(environment, wanted, steps)
    calls = with_uploads(environment, calls)
    for call in calls:
        with steps.step(call.title) as step:
            environment.install(call, sources, step.report)
            step.result = ', '.join(call.requirements[:3]) + (' ...' if len(call.requirements) > 3 else '')


def _find_wheels(environment: Environment, wanted: Wanted, steps: Steps) -> Sources:
    """Return the sources with the directory of wheels as the computer sees it, sent there if it is on this machine."""
    from aiida_mlpotential.installer.pip import Sources

    remote, path = environment.remote, Path(wanted.wheels).expanduser()
    if path.is_dir() and not remote.is_local:
        with steps.step(f'Sending {path}') as step:
            target = environment.upload(path.resolve())
            step.result = target
    elif path.is_dir():
        target = str(path.resolve())
    elif path.is_absolute() and remote.exists(wanted.wheels):
        target = wanted.wheels
    else:
        raise InstallerError(f'there is no directory {wanted.wheels}, neither here nor on {remote.computer.label}.')
    return Sources(wanted.device, '', target)


def _evaluate(environment: Environment, recipe: Recipe, device: str, steps: Steps) -> CheckResult:
    from aiida_mlpotential.installer.check import check_interpreter

    with steps.step('Evaluation of a small model') as step:
        result = check_interpreter(environment.remote, environment.python, recipe.backend, device=device)
        if not result.usable:
            raise InstallerError(f'{recipe.backend} was installed and does not work: {result.message}')
        step.result = result.message.rstrip('.')
        step.state = 'partial' if result.warnings else 'good'
    for warning in result.warnings:
        echo.echo_warning(warning)
    return result


def _clean_up(environment: Environment, code: InstalledCode | None, steps: Steps) -> None:
    """Remove the environment and its Code, so that a failure leaves nothing behind."""
    from aiida_mlpotential.installer.codes import retire_code

    with steps.step('Removing what was made') as step:
        try:
            if code is not None:
                retire_code(code)
            environment.remove()
            step.result = f'nothing is left in {environment.path}'
        except InstallerError as exception:
            step.state, step.result = 'failed', str(exception).rstrip('.')


@backends.command('check')
@click.argument('target', metavar='[CODE|BACKEND]', required=False)
@click.option('--backend', help='What to try with a Code that was made by hand. [default: every backend]')
@with_profile
def check(target: str | None, backend: str | None) -> None:
    """Evaluate a small model with a Code, in the environment that its jobs have.

    CODE is any Code of a Python interpreter, given by PK, UUID or label: made here, or by hand for an environment of
    conda or of modules. BACKEND stands for all Codes that were made here for it. Without either, all Codes that were
    made here are checked.
    """
    with plain_errors():
        if backend is not None:
            get_recipe(backend)
            if target in RECIPES and target != backend:
                raise click.UsageError(f'the Codes of {target} are for {target}: leave out --backend, or name a Code.')
        tried = [_check_one(code, names) for code, names in _find_targets(target, backend)]
    if not all(tried):
        raise click.exceptions.Exit(1)


def _find_targets(target: str | None, backend: str | None) -> list[tuple[InstalledCode, list[str]]]:
    """Return the Codes to check, each with the backends to try."""
    from aiida import orm
    from aiida.common.exceptions import MultipleObjectsError, NotExistent

    from aiida_mlpotential.installer.codes import environment_of, find_codes

    if target is None or target in RECIPES:
        codes = find_codes(target)
        if not codes:
            what = f'{target} is not installed' if target else 'no backend is installed'
            raise click.ClickException(
                f'{what}: install it with `aiida-mlpotential backends install {target or "BACKEND"}`, or give a Code.'
            )
    else:
        try:
            codes = [cast('InstalledCode', orm.load_code(target))]
        except (NotExistent, MultipleObjectsError, ValueError) as exception:
            raise click.ClickException(
                f'{target!r} is neither a backend ({", ".join(RECIPES)}) nor a Code: {exception}'
            ) from None
    return [(code, [backend] if backend else _backends_of(environment_of(code))) for code in codes]


def _backends_of(facts: dict[str, Any]) -> list[str]:
    """Return what to try with a Code: what it was made for, or everything, if it was made by hand."""
    return [str(facts['backend'])] if facts else [*RECIPES]


def _check_one(code: InstalledCode, names: list[str]) -> bool:
    """Check a Code for some backends; of several it needs to have one."""
    from aiida_mlpotential.installer.check import check_code
    from aiida_mlpotential.installer.codes import environment_of, record_check

    steps, usable = Steps(), False
    results: list[CheckResult] = []
    for name in names:
        with steps.step(f'{name} by {code.full_label}') as step:
            result = check_code(code, name, environment_of(code).get('device', ''))
            results.append(result)
            step.result = result.message.rstrip('.')
            quiet = result.missing and len(names) > 1
            step.state = 'good' if result.usable and not result.warnings else 'partial'
            if not result.usable and not quiet:
                step.state = 'failed'
        for warning in result.warnings:
            echo.echo_warning(warning)
        if not result.usable and not result.facts:  # no interpreter that runs: the others would say the same
            break
    usable = any(result.usable for result in results)
    if environment_of(code).get('backend') in names:  # that it has no other says nothing about it
        record_check(code, usable)
    if not usable and len(results) > 1:
        click.echo(f'Error: {code.full_label} has none of the backends.', err=True)
    return usable


@backends.command('uninstall')
@click.argument('backend', metavar='BACKEND')
@COMPUTER
@DIRECTORY
@with_profile
def uninstall(backend: str, computer_label: str, directory: str | None) -> None:
    """Remove the environments of a backend from a computer, with their Codes.

    Only directories are removed that `backends install` made, be they complete or not. A Code that calculations used
    stays in the provenance, hidden and under another label; one without any use is deleted.
    """
    with plain_errors():
        get_recipe(backend)
        computer, _ = get_or_make_computer(computer_label)
        with Remote(computer) as remote:
            removed = _uninstall(remote, backend, computer, directory)
    if not removed:
        raise click.ClickException(
            f'{backend} is not installed on {computer.label}: see `aiida-mlpotential backends list`.'
        )


def _uninstall(remote: Remote, backend: str, computer: Computer, directory: str | None) -> bool:
    from aiida_mlpotential.installer.codes import environment_of, find_codes, retire_code
    from aiida_mlpotential.installer.environment import Environment, find_environments

    codes = find_codes(backend, computer)
    paths = {str(environment_of(code)['path']): code for code in codes}
    steps = Steps()
    left = [item for item in find_environments(remote, backend, directory) if item.path not in paths]
    if directory is not None:
        paths = {path: code for path, code in paths.items() if posixpath.dirname(path) == posixpath.normpath(directory)}
    for path, code in paths.items():
        with steps.step(f'Environment of {code.full_label}') as step:
            environment = Environment.find(remote, path)
            if environment is None and remote.exists(path):
                raise InstallerError(f'{path} was not made here, or its manifest is gone: remove it yourself.')
            if environment is not None:
                environment.remove()
            step.result = f'removed {path}' if environment else f'{path} was gone already'
        echo.echo_report(f'{retire_code(code)}.')
    for environment in left:
        with steps.step('Environment without a Code') as step:
            environment.remove()
            step.result = f'removed {environment.path}'
    return bool(paths or left)


backends.add_command(list_command)
