"""The worker package as one zip file that any Python runs: the same bytes wherever and whenever it is made."""

from __future__ import annotations

import functools
import io
import zipfile
from pathlib import Path

import aiida_mlpotential
from aiida_mlpotential import worker

_PACKAGE = 'aiida_mlpotential'


@functools.cache
def worker_archive() -> bytes:
    """Return the content of the zip application.

    Times, order and attributes are fixed and nothing is compressed, so that equal sources give equal bytes and AiiDA's
    repository keeps one copy for all jobs.
    """
    root = Path(worker.__file__).parent
    sources = {
        f'{_PACKAGE}/worker/{path.relative_to(root).as_posix()}': path.read_bytes() for path in root.rglob('*.py')
    }
    sources[f'{_PACKAGE}/__init__.py'] = Path(aiida_mlpotential.__file__).read_bytes()
    sources['__main__.py'] = f'import sys\n\nfrom {_PACKAGE}.worker.__main__ import main\n\nsys.exit(main())\n'.encode()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w', zipfile.ZIP_STORED) as archive:
        for name in sorted(sources):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o644 << 16
            info.create_system = 3  # Unix, also when made elsewhere
            archive.writestr(info, sources[name])
    return stream.getvalue()
