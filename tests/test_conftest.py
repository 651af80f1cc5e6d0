"""The tests leave the home directory of who runs them alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_home_is_not_touched(tmp_path: Path) -> None:
    """Collecting the tests, which imports AiiDA, makes no configuration in the home directory."""
    unset = ('AIIDA_PATH', 'AIIDA_TEST_PROFILE')
    environment = {key: value for key, value in os.environ.items() if key not in unset}
    environment['HOME'] = str(tmp_path)
    file = Path(__file__).parent / 'cli' / 'test_launch.py'
    command = [sys.executable, '-m', 'pytest', '--collect-only', '-q', '-p', 'no:cacheprovider', str(file)]
    process = subprocess.run(
        command, env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert 'test_many_structures' in process.stdout
    assert not (tmp_path / '.aiida').exists()
