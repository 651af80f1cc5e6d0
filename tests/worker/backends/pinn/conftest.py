"""Fixtures of the PiNN tests: a trained model, models of random weights, and PiNN's own evaluation to compare with."""

from __future__ import annotations

import copy
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from aiida_mlpotential.worker.backends.base import Settings
from aiida_mlpotential.worker.backends.pinn import PinnBackend
from aiida_mlpotential.worker.backends.pinn.library import import_libraries
from aiida_mlpotential.worker.schema import ModelSpec

FIXTURES = Path(__file__).resolve().parents[3] / 'fixtures' / 'pinn'


@pytest.fixture
def model(tmp_path) -> Path:
    """Return a copy of a trained PiNet2, with energies in eV, as the model in a work directory."""
    return Path(shutil.copytree(FIXTURES / 'pinet2_ev', tmp_path / 'work' / 'model'))


@pytest.fixture
def hartree(model) -> Path:
    """Return the same model with energies in Hartree."""
    shutil.copy(FIXTURES / 'params_hartree.yml', model / 'params.yml')
    return model


@pytest.fixture
def edit(model):
    """Return a function that changes the parameters of the trained model by another one."""

    def change(function, directory=model):
        content = yaml.safe_load((directory / 'params.yml').read_text())
        function(content)
        (directory / 'params.yml').write_text(yaml.safe_dump(content))

    return change


@pytest.fixture(scope='session')
def reference() -> dict:
    """Return what PiNN's Estimator gave, by the name of the model."""
    return json.loads((FIXTURES / 'reference.json').read_text())['models']


@pytest.fixture(scope='session')
def libraries():
    """Return the modules tensorflow and pinn."""
    for name in ('tensorflow', 'pinn'):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f'{name} is not installed here (PiNN is in no package index)')
    return import_libraries()


@pytest.fixture
def load(libraries):
    """Return a function that loads a model from its directory."""

    def function(directory: Path, **options) -> PinnBackend:
        units = {key: options.pop(key) for key in ('energy_unit', 'distance_unit') if key in options}
        facts = PinnBackend.inspect(directory)
        files = {f'{directory.name}/{name}': '0' * 64 for name in facts.files}
        spec = ModelSpec('m', 'pinn', '0' * 64, files, facts.elements, **units)
        return PinnBackend.load(spec, directory.parent, Settings(**{'device': 'cpu', **options}))

    return function


@pytest.fixture
def random_model(libraries, tmp_path):
    """Return a function that makes a model of random weights, saved by TensorFlow as PiNN does."""
    tf, pinn = libraries

    def function(network: dict, **parameters) -> Path:
        directory = tmp_path / f'random{len(list(tmp_path.iterdir()))}' / 'model'
        directory.mkdir(parents=True)
        content = {'model': {'name': 'potential_model', 'params': parameters}, 'network': network}
        (directory / 'params.yml').write_text(yaml.safe_dump(content))
        with tf.Graph().as_default():
            tf.compat.v1.set_random_seed(1)
            _pinn_energy(tf, pinn, content, _features(tf, [8, 1, 1], np.array([[0, 0, 0], [0, 0, 1.0], [0, 1, 0]])))
            with tf.compat.v1.Session() as session:
                session.run(tf.compat.v1.global_variables_initializer())
                tf.compat.v1.train.Saver().save(session, str(directory / 'model.ckpt'), global_step=7)
        return directory

    return function


@pytest.fixture
def direct(libraries):
    """Return a function that evaluates ASE atoms by PiNN's own code, one structure in a graph of its own."""
    tf, pinn = libraries

    def function(directory: Path, atoms) -> tuple[float, np.ndarray]:
        content = yaml.safe_load((directory / 'params.yml').read_text())
        with tf.Graph().as_default():
            cell = atoms.cell.array if atoms.pbc.any() else None
            features = _features(tf, atoms.numbers, atoms.positions, cell)
            energy = _pinn_energy(tf, pinn, content, features)
            slope = tf.gradients(energy, features['coord'])[0]
            with tf.compat.v1.Session() as session:
                tf.compat.v1.train.Saver().restore(session, tf.train.latest_checkpoint(str(directory)))
                value, slope = session.run([energy, slope])
        return float(value[0]), -slope

    return function


def _features(tf, numbers, positions, cell=None) -> dict:
    features = {
        'elems': tf.constant(numbers, tf.int32),
        'coord': tf.constant(positions, tf.float32),
        'ind_1': tf.zeros([len(numbers), 1], tf.int32),
    }
    if cell is not None:
        features['cell'] = tf.constant(cell[None], tf.float32)
    return features


def _pinn_energy(tf, pinn, content, features):
    """Do what ``potential_model`` of PiNN does when it predicts (pinn/models/potential.py), with PiNN's functions."""
    from pinn.utils import atomic_dress, connect_dist_grad

    parameters = content['model']['params']
    network = pinn.get_network(copy.deepcopy(content['network']))  # Keras changes lists in it
    features = network.preprocess(features)
    connect_dist_grad(features)
    energy = tf.reduce_sum(network(features), keepdims=True) / parameters.get('e_scale', 1.0)
    if parameters.get('e_dress'):
        energy += atomic_dress(features, parameters['e_dress'])
    return energy * parameters.get('e_unit', 1.0)
