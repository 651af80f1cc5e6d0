"""Questions to the database: results of a model, what is known of a structure, uncertain ones, versions, slices.

Each returns nodes or small data classes and reads no more than it must; ``docs/how-to/query.md`` shows all of them.
"""

from .progress import Phase, Progress, SliceProgress, progress_of
from .results import results_of_model
from .slices import FoundSlice, Origin, find_slices
from .spread import UncertainStructure, structures_above
from .structures import StructureResult, energies_in_models, latest_result
from .versions import jobs_with_version, library_versions

__all__ = (
    'FoundSlice',
    'Origin',
    'Phase',
    'Progress',
    'SliceProgress',
    'StructureResult',
    'UncertainStructure',
    'energies_in_models',
    'find_slices',
    'jobs_with_version',
    'latest_result',
    'library_versions',
    'progress_of',
    'results_of_model',
    'structures_above',
)
