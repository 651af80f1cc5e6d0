"""The summary for people, ``mlpotential.txt``: the last structure as AMS prints it, all when they are few."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .errors import HAS_RESULTS, FrameStatus
from .frames import Frames
from .storage import ResultsStore
from .units import HARTREE

#: Up to so many structures the summary has a line for each.
TABLE_LIMIT = 50


def write_summary(frames: Frames, store: ResultsStore, content: Mapping[str, Any]) -> str:
    """Return the text of the summary.

    :param content: what stands in ``results.json``
    """
    model = content['model']
    lines = [
        'aiida-mlpotential',
        '',
        f'Task                   {content["task"].replace("_", " ")}',
        f'Model                  {model["name"]} ({model["backend"]}, sha256 {model["sha256"][:16]})',
        *(['Trusted                yes: code in the model files may have run'] if model.get('trusted') else []),
        f'Ensemble size          {model["ensemble_size"]}',
        f'Precision, device      {content["precision"]}, {content["device"]}',
        f'Structures             {content["counts"]["total"]}, of which {content["counts"]["ok"]} succeeded',
        '',
    ]
    if len(frames):
        lines += _last_structure(frames, store, content)
    if 1 < len(frames) <= TABLE_LIMIT:
        lines += ['', *_table(frames, store)]
    return '\n'.join(lines) + '\n'


def _last_structure(frames: Frames, store: ResultsStore, content: Mapping[str, Any]) -> list[str]:
    index = len(frames) - 1
    n_atoms = int(frames.counts[index])
    lines = [f'Last structure         {frames.label(index)}', f'Number of atoms        {n_atoms}']
    status = FrameStatus(int(store.status[index]))
    if status is not FrameStatus.OK:
        lines.append(f'Status                 {status.name}: {status.help}')
    if status not in HAS_RESULTS:
        return lines
    lines.append(f'Energy                 {float(store.read("energies", index)) / HARTREE:.8f} Hartree')
    if 'energy_std' in store.names:
        std = float(store.read('energy_std', index)) / HARTREE * 1000
        lines += [
            f'Standard deviation     {std:.6f} mHartree',
            f'  per atom             {std / n_atoms:.6f} mHartree',
            f'  per sqrt(atoms)      {std / math.sqrt(n_atoms):.6f} mHartree',
        ]
    for name, describe in _OF_TASKS.items():
        if name in store.names:
            lines += describe(store, index, content)
    return lines


def _steps(store: ResultsStore, index: int, _: Mapping[str, Any]) -> list[str]:
    change = float(store.read('energies', index) - store.read('initial_energies', index)) / HARTREE
    return [
        f'Steps                  {int(store.read("steps", index))}',
        f'Energy change          {change:.8f} Hartree',
    ]


def _modes(store: ResultsStore, index: int, _: Mapping[str, Any]) -> list[str]:
    rigid = int(store.read('n_rigid', index))
    frequencies = store.read('frequencies', index)[rigid:]
    known = 'frequency_std' in store.names
    spreads = store.read('frequency_std', index)[rigid:] if known else np.full(len(frequencies), np.nan)
    lines = [
        f'Stationary point       {"yes" if store.read("stationary", index) else "no: the forces are too large"}',
        f'Imaginary modes        {int(store.read("n_imaginary", index))}',
        f'Zero-point energy      {float(store.read("zero_point_energies", index)) / HARTREE:.8f} Hartree',
        'Frequencies (cm^-1)',
    ]
    for frequency, spread in zip(frequencies, spreads, strict=True):
        lines.append(f'  {frequency:19.2f}' + ('' if math.isnan(spread) else f' +- {spread:.2f}'))
    return lines


def _thermochemistry(store: ResultsStore, index: int, content: Mapping[str, Any]) -> list[str]:
    columns = ('entropies', 'enthalpies', 'gibbs_energies', 'gibbs_energies_quasi_rrho')
    values = np.stack([store.read(name, index) for name in columns]) / HARTREE
    values[0] *= 1000
    titles = ('T (K)', 'S (mHa/K)', 'H (Ha)', 'G (Ha)', 'G quasi-RRHO (Ha)')
    lines = [
        f'Symmetry number        {int(store.read("symmetry_numbers", index))}',
        f'Modes left out         {int(store.read("n_excluded", index))} below the cutoff',
        ' '.join(f'{title:>18}' for title in titles),
    ]
    for temperature, row in zip(content['temperatures'], values.T, strict=True):
        lines.append(f'{temperature:18.2f} ' + ' '.join(f'{value:18.8f}' for value in row))
    return lines


#: What tasks add to the last structure, by an array that tells that the task has been done.
_OF_TASKS: dict[str, Callable[[ResultsStore, int, Mapping[str, Any]], list[str]]] = {
    'steps': _steps,
    'frequencies': _modes,
    'gibbs_energies': _thermochemistry,
}


def _table(frames: Frames, store: ResultsStore) -> list[str]:
    spread = 'energy_std' in store.names
    header = f'{"#":>4}  {"label":<20} {"atoms":>5} {"energy (Hartree)":>18}'
    lines = [header + (f' {"std (mHartree)":>15}' if spread else '')]
    for index in range(len(frames)):
        row = f'{index:>4}  {frames.label(index)[:20]:<20} {frames.counts[index]:>5} '
        status = FrameStatus(int(store.status[index]))
        if status in HAS_RESULTS:
            row += f'{float(store.read("energies", index)) / HARTREE:>18.8f}'
            if spread:
                row += f' {float(store.read("energy_std", index)) / HARTREE * 1000:>15.6f}'
        lines.append(row if status is FrameStatus.OK else f'{row} {status.name:>18}')
    return lines
