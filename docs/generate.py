"""Write the tables of the reference from the code, so that no fact stands in two places.

``python docs/generate.py`` writes ``docs/reference/generated/*.md``; ``conf.py`` does the same before each build.
"""

from __future__ import annotations

import atexit
import functools
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

#: Width of the help of commands, which fits the page.
COLUMNS = 78
TARGET = Path(__file__).parent / 'reference' / 'generated'


def use_private_configuration() -> None:
    """Let AiiDA keep its configuration in a temporary folder: that of the user has no business in the documentation.

    To be called before anything of AiiDA is imported.
    """
    folder = Path(tempfile.mkdtemp(prefix='aiida-mlpotential-docs-'))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / '.aiida').mkdir(mode=0o700)
    os.environ['AIIDA_PATH'] = str(folder)


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table."""

    def line(cells: Iterable[Any]) -> str:
        return '| ' + ' | '.join(str(cell).replace('|', '\\|').replace('\n', ' ') for cell in cells) + ' |'

    return '\n'.join([line(header), line('---' for _ in header), *map(line, rows)]) + '\n'


def code(value: Any) -> str:
    """Return a value as inline code."""
    return f'`{value}`'


def with_values(text: str) -> str:
    """Return a text in which the values of parameters are inline code."""
    from aiida_mlpotential.worker.quantities import PROPERTIES

    words = ('single', 'double', 'true', 'false', 'null', 'cuda:N', 'cuda', 'cpu', *PROPERTIES)
    values = '|'.join(sorted(map(re.escape, words), key=len, reverse=True))
    return re.sub(rf'""|\b(?:{values})\b(?! structure)', lambda match: code(match[0]), text)


def with_names(text: str) -> str:
    """Return a text in which names such as ``OMP_NUM_THREADS`` are inline code."""
    return re.sub(r'\b[A-Z]+(?:_[A-Z]+)+\b', lambda match: code(match[0]), text)


def parameters(task: str) -> str:
    """Return the keys of the input ``parameters``; of a task beside single points those that only it has."""
    import json

    from aiida_mlpotential.worker.parameters import parameters_of

    common = parameters_of('single_point')
    rows = [item for item in parameters_of(task).values() if task == 'single_point' or item != common.get(item.name)]
    return table(
        ('Key', 'Default', 'Allowed', 'Meaning', 'Changes results'),
        (
            (
                code(item.name),
                code(json.dumps(item.default)),
                with_values(item.allowed),
                with_names(item.help),
                'yes' if item.affects_results else 'no',
            )
            for item in rows
        ),
    )


def convergence() -> str:
    """Return the criteria of convergence beside the defaults of other programs, in our units."""
    from aiida_mlpotential.worker.parameters import parameters_of
    from aiida_mlpotential.worker.units import HARTREE

    # AMS, GeometryOptimization%Convergence with Quality Normal, in Hartree and angstrom.
    ams = {'force_tolerance': 0.001, 'energy_tolerance': 1e-5, 'stress_tolerance': 5e-4}
    meanings = {
        'force_tolerance': ('largest force, eV/angstrom', '0.05 (`fmax`)', f'{ams["force_tolerance"] * HARTREE:.3g}'),
        'energy_tolerance': ('change of the energy, eV/atom', '-', f'{ams["energy_tolerance"] * HARTREE:.2g}'),
        'step_tolerance': ('longest way of an atom, angstrom', '-', '0.01'),
        'stress_tolerance': (
            'largest component of the stress, eV/angstrom³',
            'the cell counts in `fmax`',
            f'{ams["stress_tolerance"] * HARTREE:.2g} eV an atom (stress times volume)',
        ),
    }
    defaults = {name: parameters_of('geometry_optimization')[name].default for name in meanings}
    rows = (
        (code(name), meaning, 'not asked' if defaults[name] is None else f'{defaults[name]}', ase, other)
        for name, (meaning, ase, other) in meanings.items()
    )
    return table(('Parameter', 'Criterion', 'Default here', 'ASE', 'AMS, quality Normal'), rows)


def quantities() -> str:
    """Return the arrays that the results of every task may have."""
    from aiida_mlpotential.worker.quantities import PROPERTIES, QUANTITIES

    asked = {array: name for name, array in PROPERTIES.items()}
    when = {
        'always': lambda name: 'always',
        'requested': lambda name: f'`properties` has `{asked[name]}`',
        'ensemble': lambda name: 'the model has two members or more',
    }
    return table(
        ('Array', 'Shape', 'Unit', 'There when', 'Meaning'),
        (
            (code(item.name), code(item.shape_text), item.unit, when[item.kind](item.name), item.help)
            for item in QUANTITIES.values()
            if item.kind in when
        ),
    )


def task_quantities(task: str, without: str = 'single_point') -> str:
    """Return the arrays that only a task has.

    :param without: a task whose arrays are listed elsewhere
    """
    from aiida_mlpotential.worker.quantities import QUANTITIES, TASK_QUANTITIES

    names = [name for name in TASK_QUANTITIES[task] if name not in TASK_QUANTITIES[without]]
    return table(
        ('Array', 'Shape', 'Unit', 'Meaning'),
        (
            (code(item.name), code(item.shape_text), item.unit, with_names(item.help))
            for item in (QUANTITIES[name] for name in names)
        ),
    )


def statuses() -> str:
    """Return the outcomes for one structure."""
    from aiida_mlpotential.worker.errors import FrameStatus

    return table(('Value', 'Status', 'Meaning'), ((int(item), code(item.name), item.help) for item in FrameStatus))


def exit_codes() -> str:
    """Return the outcomes of a job."""
    from aiida_mlpotential.worker.errors import EXIT_CODES

    return table(
        ('Status', 'Label', 'Message'),
        ((item.status, code(item.label), item.message.replace('{detail}', '…')) for item in EXIT_CODES),
    )


def backends() -> str:
    """Return the backends with their units and what each can compute."""
    from aiida_mlpotential.worker.backends import BACKENDS
    from aiida_mlpotential.worker.quantities import PROPERTIES

    rows = []
    for name, entry in BACKENDS.items():
        units = f'{entry.energy_unit}, {entry.distance_unit}'
        rows.append((code(name), entry.title, entry.files, units, ' or '.join(entry.precisions)))
    overview = table(('Backend', 'Library', 'A model is', 'Units where nobody says', 'Precision'), rows)
    given = table(
        ('Backend', *map(code, PROPERTIES)),
        (
            (code(name), *('yes' if item in entry.properties else '-' for item in PROPERTIES))
            for name, entry in BACKENDS.items()
        ),
    )
    return f'{overview}\n{given}'


def options() -> str:
    """Return the options that models of each backend may have."""
    from aiida_mlpotential.worker.backends.options import OPTIONS

    rows = (
        (code(name or 'others'), code(key), item.allowed, item.help, 'yes' if item.from_file else 'no')
        for name, found in OPTIONS.items()
        for key, item in found.items()
    )
    return table(('Backend', 'Option', 'Allowed', 'Meaning', 'Read from the file'), rows)


def models() -> str:
    """Return the pre-parameterised models."""
    from aiida_mlpotential.worker.registry import DEFAULT_MODEL, PRETRAINED

    rows = []
    for item in PRETRAINED.values():
        name = f'{item.name} (default)' if item.name == DEFAULT_MODEL else item.name
        doi = f'[{item.doi}](https://doi.org/{item.doi})'
        wheel = 'yes' if item.wheel_directory else 'no'
        rows.append((name, ' '.join(item.elements), item.ensemble_size, item.method, doi, item.licence, wheel))
    header = ('Model', 'Elements', 'Members', 'Trained on', 'Cite', 'Licence', 'In the PyPI wheel')
    hashes = table(
        ('Model', 'Name of the file', 'sha256 of the canonical file'),
        (
            (item.name, f'`{item.file}` or `{item.state_dict}`', f'`{item.sha256[:12]}`…')
            for item in PRETRAINED.values()
        ),
    )
    complete = '\n'.join(f'- {item.name}: `{item.sha256}`' for item in PRETRAINED.values())
    return f'{table(header, rows)}\n{hashes}\nThe hashes in full:\n\n{complete}\n'


def units() -> str:
    """Return the units of energy and of distance."""
    from aiida_mlpotential.worker.units import DISTANCE_UNITS, ENERGY_UNITS

    energies = table(('Energy', 'eV'), ((code(name), f'{value!r}') for name, value in ENERGY_UNITS.items()))
    distances = table(('Distance', 'angstrom'), ((code(name), f'{value!r}') for name, value in DISTANCE_UNITS.items()))
    return energies + '\n' + distances


def ports() -> str:
    """Return the inputs of all calculations, and the outputs of each."""
    from aiida_mlpotential.cli.tasks import TASKS

    skipped = {'metadata', 'code', 'monitors', 'remote_folder', 'remote_stash', 'retrieved'}

    def rows(namespace: Any) -> Iterator[tuple[str, str, str, str]]:
        for name, port in namespace.items():
            if name in skipped:
                continue
            types = port.valid_type if isinstance(port.valid_type, tuple) else (port.valid_type,)
            names = ', '.join(code(item.__name__) for item in types if item is not None and item is not type(None))
            yield code(name), names, 'yes' if port.required else 'no', port.help or ''

    header = ('Name', 'Type', 'Required', 'Meaning')
    specs = {task.entry_point: task.process_class().spec() for task in TASKS.values()}
    inputs = [table(header, rows(spec.inputs)) for spec in specs.values()]
    assert len(set(inputs)) == 1, 'the calculations have different inputs: give each a table of its own'
    outputs = (f'Outputs of {code(name)}\n\n{table(header, rows(spec.outputs))}' for name, spec in specs.items())
    return '\n'.join([f'Inputs\n\n{inputs[0]}', *outputs])


def node_attributes() -> str:
    """Return the attributes of the data nodes that QueryBuilder can filter on."""
    from aiida_mlpotential.data.model import ModelData
    from aiida_mlpotential.data.normal_modes import NormalModesData
    from aiida_mlpotential.data.results import ResultsData
    from aiida_mlpotential.data.structures import StructureSetData
    from aiida_mlpotential.data.trajectories import TrajectorySetData

    parts = []
    for cls in (ModelData, StructureSetData, ResultsData, NormalModesData, TrajectorySetData):
        fields = cls.AttributesModel.model_fields
        inherited = set(cls.__mro__[1].AttributesModel.model_fields)
        own = [(code(name), field.description) for name, field in fields.items() if name not in inherited]
        beside = f', beside those of {code(cls.__mro__[1].__name__)}' if cls is NormalModesData else ''
        parts.append(f'{code(cls.__name__)}{beside}\n\n{table(("Attribute", "Meaning"), own)}')
    return '\n'.join(parts)


def command_line() -> str:
    """Return the help of every command."""
    import click

    from aiida_mlpotential.cli import main

    def walk(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[str]:
        settings = {**command.context_settings, 'terminal_width': COLUMNS, 'max_content_width': COLUMNS}
        context = click.Context(command, parent=parent, info_name=name, **settings)
        yield f'## `{context.command_path}`\n\n```text\n{command.get_help(context)}\n```\n'
        if isinstance(command, click.Group):
            for item in command.list_commands(context):
                child = command.get_command(context, item)
                assert child is not None
                yield from walk(child, item, context)

    return '\n'.join(walk(main, 'aiida-mlpotential'))


def handlers() -> str:
    """Return what the base restart workflows do after a run that did not end well, in the order they are asked."""
    import inspect

    from aiida_mlpotential.workflows.tasks import SinglePointBaseWorkChain as Chain

    found = [getattr(Chain, name) for name in dir(Chain) if name.startswith('handle_')]
    found = sorted((item for item in found if Chain.is_process_handler(item.__name__)), key=lambda item: -item.priority)
    rows = ((code(item.__name__), item.priority, (inspect.getdoc(item) or '').split('\n')[0]) for item in found)
    return table(('Handler', 'Priority', 'What it does'), rows)


def protocols() -> str:
    """Return the protocols of the base restart workflows, with the parameters of each."""
    import json

    from aiida.plugins import WorkflowFactory

    from aiida_mlpotential.cli.tasks import TASKS

    rows = []
    for task in TASKS.values():
        chain = WorkflowFactory(f'{task.entry_point}.base')
        for name, text in chain.get_available_protocols().items():
            default = ' (default)' if name == chain.get_default_protocol() else ''
            parameters = chain.get_protocol_inputs(name)['calc']['parameters']
            values = ', '.join(code(f'{key}: {json.dumps(value)}') for key, value in parameters.items())
            rows.append((code(f'{task.entry_point}.base'), f'{code(name)}{default}', text, values))
    return table(('Workflow', 'Protocol', 'For', 'Parameters'), rows)


PAGES: dict[str, Callable[[], str]] = {
    'parameters': functools.partial(parameters, 'single_point'),
    'parameters_geometry_optimization': functools.partial(parameters, 'geometry_optimization'),
    'parameters_vibrations': functools.partial(parameters, 'vibrations'),
    'parameters_thermochemistry': functools.partial(parameters, 'thermochemistry'),
    'convergence': convergence,
    'quantities': quantities,
    'quantities_geometry_optimization': functools.partial(task_quantities, 'geometry_optimization'),
    'quantities_vibrations': functools.partial(task_quantities, 'vibrations'),
    'quantities_thermochemistry': functools.partial(task_quantities, 'thermochemistry', 'vibrations'),
    'statuses': statuses,
    'exit_codes': exit_codes,
    'handlers': handlers,
    'protocols': protocols,
    'backends': backends,
    'options': options,
    'models': models,
    'units': units,
    'ports': ports,
    'node_attributes': node_attributes,
    'command_line': command_line,
}


def write_all(target: Path = TARGET) -> None:
    """Write every page; one that has not changed is left alone, so that a rebuild is quick."""
    target.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        path, text = target / f'{name}.md', make()
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


if __name__ == '__main__':
    use_private_configuration()
    write_all()
