"""The summary for people, ``mlpotential.txt``: the last structure as AMS prints it, all when they are few."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .errors import FrameStatus
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
        f'Model                  {model["name"]} ({model["backend"]}, sha256 {model["sha256"][:16]})',
        *(['Trusted                yes: code in the model files may have run'] if model.get('trusted') else []),
        f'Ensemble size          {model["ensemble_size"]}',
        f'Precision, device      {content["precision"]}, {content["device"]}',
        f'Structures             {content["counts"]["total"]}, of which {content["counts"]["ok"]} evaluated',
        '',
    ]
    if len(frames):
        lines += _last_structure(frames, store)
    if 1 < len(frames) <= TABLE_LIMIT:
        lines += ['', *_table(frames, store)]
    return '\n'.join(lines) + '\n'


def _last_structure(frames: Frames, store: ResultsStore) -> list[str]:
    index = len(frames) - 1
    n_atoms = int(frames.counts[index])
    lines = [f'Last structure         {frames.label(index)}', f'Number of atoms        {n_atoms}']
    if store.status[index] != FrameStatus.OK:
        status = FrameStatus(int(store.status[index]))
        return [*lines, f'Status                 {status.name}: {status.help}']
    lines.append(f'Energy                 {float(store.read("energies", index)) / HARTREE:.8f} Hartree')
    if 'energy_std' in store.names:
        std = float(store.read('energy_std', index)) / HARTREE * 1000
        lines += [
            f'Standard deviation     {std:.6f} mHartree',
            f'  per atom             {std / n_atoms:.6f} mHartree',
            f'  per sqrt(atoms)      {std / math.sqrt(n_atoms):.6f} mHartree',
        ]
    return lines


def _table(frames: Frames, store: ResultsStore) -> list[str]:
    spread = 'energy_std' in store.names
    header = f'{"#":>4}  {"label":<20} {"atoms":>5} {"energy (Hartree)":>18}'
    lines = [header + (f' {"std (mHartree)":>15}' if spread else '')]
    for index in range(len(frames)):
        row = f'{index:>4}  {frames.label(index)[:20]:<20} {frames.counts[index]:>5} '
        if store.status[index] != FrameStatus.OK:
            lines.append(row + f'{FrameStatus(int(store.status[index])).name:>18}')
            continue
        row += f'{float(store.read("energies", index)) / HARTREE:>18.8f}'
        if spread:
            row += f' {float(store.read("energy_std", index)) / HARTREE * 1000:>15.6f}'
        lines.append(row)
    return lines
