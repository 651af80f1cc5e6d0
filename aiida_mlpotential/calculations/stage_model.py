"""The calculation that brings the files of a model to a computer, once for all later jobs there."""

from __future__ import annotations

from typing import Any

from aiida import orm
from aiida.common import datastructures
from aiida.common.folders import Folder
from aiida.engine import CalcJob, CalcJobProcessSpec

from aiida_mlpotential.data.model import ModelData


def validate_model(node: ModelData | None, _: Any) -> str | None:
    """Return why a model cannot be staged, or ``None``."""
    if node is not None and not node.files:
        return f'{node.name} has no files: jobs need nothing from a copy.'
    return None


class StageModelCalculation(CalcJob):
    """Copy the files of a model to a computer; nothing is run there.

    The copy is the ``remote_folder``. Later jobs with the same files on the same computer link it, see
    :mod:`aiida_mlpotential.calculations.linking`, and check the sha256 of every file before they use it.
    """

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:  # type: ignore[override]
        """Declare the inputs: a model and, as ``metadata.computer``, where to."""
        super().define(spec)
        spec.input('model', valid_type=ModelData, validator=validate_model, help='The model whose files are copied.')
        spec.inputs.pop('code', None)
        metadata: Any = spec.inputs['metadata']
        metadata['computer'].required = True
        metadata['options']['resources'].default = lambda: {'num_machines': 1, 'num_mpiprocs_per_machine': 1}
        metadata['options']['resources'].required = False

    @classmethod
    def is_valid_cache(cls, node: orm.ProcessNode) -> bool:
        """Return that this is never taken from the cache: the clone would have the files of the original."""
        return False

    def prepare_for_submission(self, folder: Folder) -> datastructures.CalcInfo:
        """List the files to copy."""
        calcinfo = datastructures.CalcInfo()
        calcinfo.skip_submit = True
        calcinfo.codes_info = []
        calcinfo.local_copy_list = self.inputs.model.copy_list()
        calcinfo.retrieve_list = []
        return calcinfo
