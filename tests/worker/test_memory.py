"""Memory limit: an allocation beyond it fails as an exception, so that the process lives on."""

from __future__ import annotations

import subprocess
import sys

from aiida_mlpotential.worker.memory import available_memory

PROGRAM = """
import numpy as np
from aiida_mlpotential.worker.memory import limit_memory
print(limit_memory(900))
try:
    np.ones(300_000_000)
except MemoryError:
    print('refused')
print(np.ones(1_000_000).sum())
"""


def test_beyond_the_limit_an_allocation_fails_and_the_process_lives():
    result = subprocess.run([sys.executable, '-c', PROGRAM], capture_output=True, text=True, check=True)
    assert result.stdout.split() == [str(900 * 1024 * 1024), 'refused', '1000000.0']


def test_the_available_memory_is_known():
    available = available_memory()
    assert available is not None
    assert available > 0
