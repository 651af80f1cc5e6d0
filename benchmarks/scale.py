"""Memory of a very large job: 100,000 small structures through submission, worker and parser.

The engine runs in this process, so its peak covers making the nodes, submission and parsing; the worker tells its own.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
from _common import Figure, arguments, conformers, report, temporary_profile

from aiida_mlpotential.worker.memory import peak_memory_mb

OPTIONS = arguments(__doc__)
MODEL = 'ANI-1ccx'
LIMIT_MB = 4096


def main() -> None:
    """Run the job and print what it took."""
    from aiida_mlpotential.worker.frames import Frames

    number = 5_000 if OPTIONS.quick else 100_000
    marks = {}
    with tempfile.TemporaryDirectory() as name, temporary_profile(Path(name)) as code:
        from aiida.engine import run_get_node
        from aiida.plugins import CalculationFactory, DataFactory

        from aiida_mlpotential.library import get_model

        model = get_model(MODEL, report=print)
        base = Frames.from_ase(conformers(500, kind='small'))
        indices = np.arange(number) % len(base)
        frames = base.select(indices)
        frames.positions[:] += np.random.default_rng(2).normal(scale=0.01, size=frames.positions.shape)
        begin = time.perf_counter()
        structures = DataFactory('mlpotential.structures').from_frames(frames).store()
        marks['structures node'] = (time.perf_counter() - begin, peak_memory_mb())
        begin = time.perf_counter()
        _, node = run_get_node(
            CalculationFactory('mlpotential.single_point'),
            code=code,
            model=model,
            structures=structures,
            parameters={'num_threads': OPTIONS.threads},
        )
        total = time.perf_counter() - begin
        assert node.is_finished_ok, node.exit_message
        results = node.outputs.results
        assert np.isfinite(results.energies).all() and len(results.energies) == number
        marks['submission, worker, parser'] = (total, peak_memory_mb())
        timings = node.outputs.output_parameters['timings']
        worker_peak = node.outputs.output_parameters['peak_memory_mb']
        marks['of which worker'] = (timings['total'], worker_peak)
    rows = [[what, seconds, memory] for what, (seconds, memory) in marks.items()]
    print(f'{number} structures, {frames.n_atoms} atoms')
    figures = [
        Figure('peak memory of the engine', peak_memory_mb(), LIMIT_MB, '<=', ' MB'),
        Figure('peak memory of the worker', worker_peak, LIMIT_MB, '<=', ' MB'),
    ]
    report(('step', 'seconds', 'peak memory (MB)'), rows, figures)


if __name__ == '__main__':
    main()
