"""Other optimizers of ASE, for a single structure: they drive the same coordinates through the same evaluations."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import WorkerError
from ..frames import FloatArray
from .pool import Pool

#: The class of each, and its keyword for the longest step where it has one.
OPTIMIZERS: dict[str, tuple[str, str]] = {
    'BFGS': ('ase.optimize.BFGS', 'maxstep'),
    'BFGSLineSearch': ('ase.optimize.BFGSLineSearch', 'maxstep'),
    'FIRE2': ('ase.optimize.FIRE2', 'maxstep'),
    'GoodOldQuasiNewton': ('ase.optimize.GoodOldQuasiNewton', ''),
    'GPMin': ('ase.optimize.GPMin', ''),
    'LBFGSLineSearch': ('ase.optimize.LBFGSLineSearch', 'maxstep'),
    'MDMin': ('ase.optimize.MDMin', 'maxstep'),
    'ODE12r': ('ase.optimize.ODE12r', ''),
    'SciPyFminBFGS': ('ase.optimize.sciopt.SciPyFminBFGS', ''),
    'SciPyFminCG': ('ase.optimize.sciopt.SciPyFminCG', ''),
}


class Finished(Exception):  # noqa: N818 - it leads out of the optimizer's loop and is no error
    """The structure needs no further step of the optimizer, for whatever reason."""


def drive(name: str, pool: Pool, evaluate: Callable[[], bool], max_step: float) -> None:
    """Let an optimizer of ASE move the one frame of a pool until there is nothing left to do.

    :param name: key of ``OPTIMIZERS``
    :param evaluate: evaluates the frame where it is, and returns whether it has to go on
    :param max_step: angstrom
    :raises WorkerError: if the installed ASE does not have this optimizer
    """
    path, keyword = OPTIMIZERS[name]
    try:
        factory: Any = pkgutil.resolve_name(path)
    except (ImportError, AttributeError) as exception:
        raise WorkerError(
            'ERROR_JOB_INVALID', f'the installed ASE has no optimizer {name}: update it or choose LBFGS'
        ) from exception
    filtered = _make_filter(pool, evaluate)
    keywords = {keyword: max_step} if keyword else {}
    try:
        # The criteria are ours: an optimizer that believed to have converged would stop before they are met.
        factory(filtered, logfile=None, **keywords).run(fmax=1e-30, steps=10**9)
    except Finished:
        return


def _make_filter(pool: Pool, evaluate: Callable[[], bool]) -> Any:
    """Return what ASE takes for atoms: the generalised coordinates of the frame, with energy and forces."""
    from ase.filters import Filter

    class Coordinates(Filter):
        """The coordinates of the frame: a filter as those of ASE for cells are."""

        def __init__(self) -> None:
            super().__init__(  # type: ignore[no-untyped-call]
                pool.frames.to_ase(0), mask=np.ones(pool.frames.n_atoms, dtype=bool)
            )
            self._known = False
            self._forces: FloatArray = np.zeros((0, 3))
            self._energy = np.nan

        def _evaluate(self) -> None:
            """Evaluate where the frame is, unless that was done."""
            if not self._known:
                if not evaluate():
                    raise Finished
                point = pool.point()
                self._forces, self._energy, self._known = point.forces, float(point.energies[0]), True

        def __len__(self) -> int:
            return len(pool.values())

        def get_positions(self) -> FloatArray:
            return np.array(pool.values())

        def set_positions(self, positions: Any, **_: Any) -> None:
            here = pool.values()
            steps = pool.project(np.reshape(positions, here.shape) - here)
            if np.any(steps):
                pool.go(steps)
                self._known = False

        def get_forces(self, *_: Any, **__: Any) -> FloatArray:
            self._evaluate()
            return np.array(self._forces)

        def get_potential_energy(self, **_: Any) -> float:
            self._evaluate()
            return self._energy

    return Coordinates()
