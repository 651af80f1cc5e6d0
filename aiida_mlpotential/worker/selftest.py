"""A backend put to the test where it is installed: a small model of random weights, evaluated and checked.

``python -m aiida_mlpotential.worker.selftest BACKEND DIRECTORY`` writes its findings to ``selftest.json`` there.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import itertools
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .backends import BACKENDS, get_backend
from .backends.base import Settings
from .errors import WorkerError
from .frames import Frames, sha256_of
from .schema import MODEL_DIRECTORY, ModelSpec
from .testing import Tolerances, check_backend

RESULT_FILE = 'selftest.json'

_ELEMENTS = ('H', 'C', 'O')
_SEED = 17
_LIMITS = {
    # Random weights are rougher than trained ones.
    'double': Tolerances(derivative=1e-4),
    # Differences of energies in single precision need a longer step, and are rougher.
    'single': Tolerances(energy=2e-4, forces=2e-3, stress=2e-3, derivative=5e-2, step=5e-3),
}


def main(arguments: list[str] | None = None) -> int:
    """Test the named backend, write what was found, and return 0 if it can be used."""
    backend, directory = sys.argv[1:] if arguments is None else arguments
    result = run_selftest(backend, Path(directory))
    (Path(directory) / RESULT_FILE).write_text(json.dumps(result, indent=1) + '\n')
    return 0 if result['usable'] else 1


def run_selftest(backend: str, directory: Path) -> dict[str, Any]:
    """Make a model in a directory, evaluate it, and check the forces against differences of energies.

    :return: ``usable``, a ``message`` where it is not, and what is installed
    """
    begin = time.perf_counter()
    facts: dict[str, Any] = {'backend': backend, 'usable': False}
    try:
        if backend not in BACKENDS:
            get_backend(backend)  # which says what there is
        facts |= _evaluate(backend, directory)
    except WorkerError as exception:
        facts |= {'label': exception.label, 'message': exception.message}
    except AssertionError as exception:
        facts['message'] = f'its numbers are wrong: {exception}'
    except Exception as exception:  # a library may raise anything, and whoever asked wants to know
        facts['message'] = f'{type(exception).__name__}: {" ".join(str(exception).split())[:500]}'
    facts |= {'seconds': round(time.perf_counter() - begin, 2), 'versions': _versions(backend), **_cuda()}
    return facts


def _evaluate(name: str, directory: Path) -> dict[str, Any]:
    entry = BACKENDS[name]
    if name not in _MAKERS and entry.family is not None and not entry.family.default_model:
        # Its parameters come from elsewhere, and nothing here fetches any.
        try:
            importlib.import_module(entry.family.calculator.rpartition('.')[0])
        except ImportError as exception:
            message = f'{exception}: install it with `aiida-mlpotential backends install {name}`'
            raise WorkerError('ERROR_BACKEND_MISSING', message) from None
        return {'usable': True, 'evaluated': False, 'device': ''}
    spec = make_model(name, directory)
    precision = precision_of(name)
    backend = get_backend(name).load(spec, directory, Settings(precision=precision, num_threads=1))
    frames = make_frames(spec)
    check_backend(backend, frames, _LIMITS[precision])
    energies = backend.evaluate(frames, frozenset()).energies
    return {
        'usable': True,
        'evaluated': True,
        'device': backend.device,
        'notes': list(backend.notes),
        'frames': len(frames),
        'energies': energies.tolist(),
    }


def precision_of(name: str) -> str:
    """Return the float type to test a backend in: the better one that it has."""
    return 'double' if 'double' in BACKENDS[name].precisions else 'single'


def make_model(name: str, directory: Path) -> ModelSpec:
    """Return a model of a backend whose files were made in a directory, the same whenever it is made.

    :raises WorkerError: if there is no way to make one
    """
    entry = BACKENDS[name]
    path = directory / MODEL_DIRECTORY
    path.mkdir(exist_ok=True)
    if name == 'ase':
        return ModelSpec('EMT', 'ase', '0' * 64, options={'calculator': 'ase.calculators.emt.EMT'}, elements=('Cu',))
    if name not in _MAKERS:
        elements = entry.family.elements if entry.family else None
        return ModelSpec('self test', name, '0' * 64, elements=elements)
    made = _MAKERS[name](path)
    facts = get_backend(name).inspect(made)
    files = sorted(file for file in path.iterdir() if file.is_file())
    return ModelSpec(
        'self test',
        name,
        '0' * 64,
        files={f'{MODEL_DIRECTORY}/{file.name}': sha256_of(file) for file in files},
        elements=facts.elements or _ELEMENTS,
        ensemble_size=facts.ensemble_size,
        energy_unit=facts.energy_unit or entry.energy_unit,
        distance_unit=facts.distance_unit or entry.distance_unit,
        options=facts.options,
    )


def make_frames(spec: ModelSpec) -> Frames:
    """Return rattled frames that a model made here knows: molecules and a crystal, as far as it takes them."""
    import ase.build
    from ase import Atoms

    build: Any = ase.build  # whose functions are not typed
    bulk, molecule = build.bulk, build.molecule
    random = np.random.default_rng(_SEED)
    water = molecule('H2O')  # the order of atoms is that of _make_sgdml
    structures: list[Atoms]
    if get_backend(spec.backend).fixed_atom_order:
        structures = [water.copy(), water.copy()]
    elif spec.options.get('calculator') == 'ase.calculators.emt.EMT':
        structures = [bulk('Cu', cubic=True), molecule('OH')]
        structures[1].numbers[:] = 29
        structures[1].positions *= 2.5
    elif spec.elements == _ELEMENTS:
        structures = [water, molecule('CH3OH'), molecule('CH3OH', cell=[4.5, 5.0, 5.5], pbc=True)]
    else:
        structures = [bulk('Si', cubic=True), bulk('NaCl', 'rocksalt', 5.64)]
    for atoms in structures:
        atoms.positions += random.normal(scale=0.04, size=atoms.positions.shape)
    return Frames.from_ase(structures)


def _make_torchani(directory: Path) -> Path:
    from .backends.torchani.parameters import AniParameters, Layer
    from .registry import ANI_FAMILIES

    random = np.random.default_rng(_SEED)
    family = ANI_FAMILIES['ani2x']
    species = len(_ELEMENTS)
    angular = len(family.angular_shifts) * len(family.angular_sections)
    features = species * len(family.radial_shifts) + species * (species + 1) // 2 * angular
    sizes = (features, 8, 6, 1)

    def layer(inputs: int, outputs: int) -> Layer:
        scale = 1 / np.sqrt(inputs)
        weight = random.normal(scale=scale, size=(2, outputs, inputs)).astype('f4')
        return Layer(weight, random.normal(scale=0.1, size=(2, outputs)).astype('f4'))

    networks = {symbol: [layer(*pair) for pair in itertools.pairwise(sizes)] for symbol in _ELEMENTS}
    path = directory / 'model.npz'
    AniParameters(_ELEMENTS, family, np.array([-0.5, -37.8, -75.0]), networks).write(path)
    return path


def _make_sgdml(directory: Path) -> Path:
    """Write a model of water: any coefficients make a potential, these make one of some electronvolts."""
    import ase.build

    from .frames import write_npz

    random = np.random.default_rng(_SEED)
    build: Any = ase.build  # whose functions are not typed
    water, points = build.molecule('H2O'), 5
    inverse = []
    for _ in range(points):
        positions = water.positions + random.normal(scale=0.1, size=(3, 3))
        inverse.append([1 / np.linalg.norm(positions[i] - positions[j]) for i, j in ((1, 0), (2, 0), (2, 1))])
    permutations = np.array([[0, 1, 2], [0, 2, 1]])
    path = directory / 'model.npz'
    arrays = {
        'type': np.array('m'),
        'code_version': np.array('1.0.3'),
        'dataset_name': np.array('self test'),
        'dataset_theory': np.array('none'),
        'z': water.numbers.astype('u1'),
        'R_desc': np.array(inverse).T,
        'R_d_desc_alpha': random.normal(scale=20.0, size=(points, 3)),
        'c': np.array(-47000.0),
        'std': np.array(1.0),
        'sig': np.array(2),
        'perms': permutations,
        # The pairs (1, 0), (2, 0), (2, 1), and where the second permutation has them.
        'tril_perms_lin': np.array([0, 4, 1, 3, 2, 5]),
        'use_E': np.array(True),
        'e_unit': np.array('kcal/mol'),
        'r_unit': np.array('Ang'),
    }
    write_npz(path, arrays, compress=False)
    return path


def _make_schnetpack(directory: Path) -> Path:
    """Write a small PaiNN with the library itself: nobody else can write the objects of such a file."""
    from .backends.torch_device import import_torch

    torch = import_torch('schnetpack')
    loader: Any = importlib.import_module('torch.utils.data.dataloader')
    if not hasattr(loader, 'T_co'):  # which SchNetPack 2.1 imports, and torch has renamed
        loader.T_co = loader._T_co
    try:
        schnetpack = importlib.import_module('schnetpack')
    except ImportError as exception:
        message = f'{exception}: install it with `aiida-mlpotential backends install schnetpack`'
        raise WorkerError('ERROR_BACKEND_MISSING', message) from None
    torch.manual_seed(_SEED)
    cutoff = 4.0
    representation = schnetpack.representation.PaiNN(
        n_atom_basis=8,
        n_interactions=2,
        radial_basis=schnetpack.nn.GaussianRBF(n_rbf=8, cutoff=cutoff),
        cutoff_fn=schnetpack.nn.CosineCutoff(cutoff),
    )
    model = schnetpack.model.NeuralNetworkPotential(
        representation=representation,
        input_modules=[schnetpack.atomistic.PairwiseDistances()],
        output_modules=[
            schnetpack.atomistic.Atomwise(n_in=8, output_key='energy'),
            schnetpack.atomistic.Forces(energy_key='energy', force_key='forces'),
        ],
        postprocessors=[schnetpack.transform.CastTo64()],
    )
    with torch.no_grad():
        for parameter in model.output_modules.parameters():
            parameter.mul_(5.0)  # so that there are forces to speak of
    path = directory / 'best_model'
    torch.save(model, path)
    return path


def _make_pinn(directory: Path) -> Path:
    from .backends.pinn.library import import_libraries

    tensorflow, pinn = import_libraries()
    parameters = {
        'atom_types': [1, 6, 8],
        'depth': 2,
        'n_basis': 5,
        'rc': 4.0,
        'pp_nodes': [8],
        'pi_nodes': [8],
        'ii_nodes': [8],
        'out_nodes': [8],
    }
    params = {
        'model_dir': 'self test',
        'model': {'name': 'potential_model', 'params': {'e_dress': {1: -13.6, 6: -1029.0, 8: -2041.0}, 'e_unit': 1.0}},
        'network': {'name': 'PiNet', 'params': parameters},
    }
    # JSON is YAML, but its keys are texts.
    text = json.dumps(params).replace('"1":', '1:').replace('"6":', '6:').replace('"8":', '8:')
    (directory / 'params.yml').write_text(text)
    v1 = tensorflow.compat.v1
    with tensorflow.Graph().as_default():
        v1.set_random_seed(_SEED)
        coordinates = tensorflow.constant(np.eye(3, dtype='f4'))
        elements, index = tensorflow.constant([1, 6, 8]), tensorflow.zeros([3, 1], 'int32')
        network = pinn.get_network({'name': 'PiNet', 'params': dict(parameters)})
        network(network.preprocess({'coord': coordinates, 'elems': elements, 'ind_1': index}))
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            v1.train.Saver().save(session, str(directory / 'model.ckpt'), 1, write_meta_graph=False)
    return directory


_MAKERS: dict[str, Callable[[Path], Path]] = {
    'pinn': _make_pinn,
    'schnetpack': _make_schnetpack,
    'sgdml': _make_sgdml,
    'torchani': _make_torchani,
}


def _versions(name: str) -> dict[str, str]:
    """Return the versions of Python and of the distributions that count."""
    versions = {'python': platform.python_version()}
    libraries = BACKENDS[name].libraries if name in BACKENDS else ()
    for library in ('numpy', 'ase', 'torch', *libraries):
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _cuda() -> dict[str, Any]:
    """Return whether the library that was loaded, if it was, is built for CUDA, and how many GPUs it sees."""
    torch, tensorflow = sys.modules.get('torch'), sys.modules.get('tensorflow')
    if torch is not None and hasattr(torch, 'version'):
        return {'cuda': torch.version.cuda, 'gpus': torch.cuda.device_count() if torch.version.cuda else 0}
    if tensorflow is not None and hasattr(tensorflow, 'test'):
        built = tensorflow.test.is_built_with_cuda()
        return {'cuda': 'yes' if built else None, 'gpus': len(tensorflow.config.list_physical_devices('GPU'))}
    return {'cuda': None, 'gpus': 0}


if __name__ == '__main__':
    sys.exit(main())
