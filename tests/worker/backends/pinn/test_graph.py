"""The graph: every network against PiNN's own code, and checkpoints that do not fit."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from aiida_mlpotential.worker.backends.pinn import graph
from aiida_mlpotential.worker.errors import OutOfMemory, WorkerError
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.testing import Tolerances, check_backend

#: As for the trained model (test_backend), with the third derivatives of random weights.
LIMITS = Tolerances(energy=2e-5, forces=1e-4, stress=1e-5, derivative=2e-2, step=2e-3, hessian=0.05, hessian_step=1e-3)
PINET = {'atom_types': [8, 1, 6], 'rc': 4.0, 'depth': 2, 'n_basis': 5}
SMALL = {key: [8, 8] for key in ('pp_nodes', 'pi_nodes', 'ii_nodes', 'out_nodes')}
BPNN = {
    'rc': 4.0,
    'nn_spec': {1: [5], 6: [4], 8: [6, 6]},
    'sf_spec': [
        {'type': 'G2', 'i': 'ALL', 'j': 'ALL', 'Rs': [1.0, 2.0], 'eta': [0.5, 0.5]},
        {'type': 'G2', 'i': 1, 'j': 8, 'Rs': [1.0], 'eta': [0.4]},
        {'type': 'G3', 'i': 8, 'j': 1, 'k': 1, 'lambd': [1.0, -1.0], 'zeta': [1.0, 2.0], 'eta': [0.1, 0.1]},
        {'type': 'G4', 'i': 'ALL', 'j': 'ALL', 'k': 'ALL', 'lambd': [1.0], 'zeta': [1.0], 'eta': [0.1]},
    ],
}
NETWORKS = {
    'PiNet': {'name': 'PiNet', 'params': {**PINET, **SMALL}},
    'PiNet, gaussian': {'name': 'PiNet', 'params': {**PINET, **SMALL, 'basis_type': 'gaussian', 'cutoff_type': 'f2'}},
    'PiNet2, rank 1': {'name': 'PiNet2', 'params': {**PINET, **SMALL, 'rank': 1}},
    'PiNet2, rank 3': {'name': 'PiNet2', 'params': {**PINET, **SMALL, 'weighted': True}},
    'PiNet2, rank 5': {'name': 'PiNet2', 'params': {**PINET, **SMALL, 'rank': 5}},
    'BPNN': {'name': 'BPNN', 'params': BPNN},
    'BPNN, no triplets': {'name': 'BPNN', 'params': {**BPNN, 'sf_spec': BPNN['sf_spec'][:2]}},
    'LJ': {'name': 'LJ', 'params': {'rc': 4.0, 'sigma': 1.1}},
}


def _structures() -> list[Atoms]:
    random = np.random.default_rng(3)
    crystal = molecule('CH3OH')
    crystal.set_cell([[5.0, 0, 0], [0.6, 5.2, 0], [0.3, -0.4, 4.8]])
    crystal.pbc = True
    structures = [molecule('H2O'), crystal, molecule('CH3OH')]
    for atoms in structures:
        atoms.positions += random.normal(scale=0.05, size=atoms.positions.shape)
    return structures


@pytest.mark.parametrize('name', NETWORKS)
def test_networks_against_pinn_itself(random_model, load, direct, name):
    directory = random_model(NETWORKS[name], e_scale=3.0, e_dress={1: -1.5, 8: 2.5, 6: 0.5}, e_unit=2.0)
    structures = _structures()
    frames = Frames.from_ase(structures)
    result = load(directory).evaluate(frames, frozenset({'forces'}))
    for index, atoms in enumerate(structures):
        energy, forces = direct(directory, atoms)
        assert result.energies[index] == pytest.approx(energy, rel=1e-5, abs=2e-5)
        mine = result.forces[frames.offsets[index] : frames.offsets[index + 1]]
        np.testing.assert_allclose(mine, forces, rtol=2e-5, atol=2e-5 * np.abs(forces).max())
        assert np.abs(forces).max() > 1e-3


@pytest.mark.parametrize('name', ['PiNet', 'PiNet2, rank 3', 'BPNN'])
def test_networks_keep_the_contract(random_model, load, name):
    """With a crystal among the molecules, so that the stress is compared with differences of the energy."""
    backend = load(random_model(NETWORKS[name], e_dress={1: -1.5, 8: 2.5, 6: 0.5}))
    check_backend(backend, Frames.from_ase([*_structures(), Atoms('C')]), LIMITS)


def test_rank_5_depends_on_the_orientation_in_pinn_itself(random_model, direct):
    """Said in a remark at import; when PiNN mends it, the remark can go."""
    directory = random_model(NETWORKS['PiNet2, rank 5'])
    atoms = molecule('CH3OH')
    before = direct(directory, atoms)[0]
    atoms.rotate(40, (1, 2, 3))
    assert abs(direct(directory, atoms)[0] - before) > 1e-3


@pytest.mark.parametrize('name', NETWORKS)
def test_atoms_without_neighbours(random_model, load, name):
    """Alone, and beside a molecule: the energy is the same, and no force acts."""
    backend = load(random_model(NETWORKS[name], e_dress={1: -1.5, 8: 2.5}))
    request = frozenset({'forces', 'atomic_energies'})
    alone = backend.evaluate(Frames.from_ase([Atoms('O')]), request)
    three = backend.evaluate(Frames.from_ase([Atoms('OHO', [[0, 0, 0], [9, 0, 0], [9, 1.0, 0]]), Atoms('O')]), request)
    assert alone.forces.tolist() == [[0, 0, 0]]
    assert three.forces[[0, 3]].tolist() == [[0, 0, 0]] * 2
    assert np.abs(three.forces[1]).max() > 0
    np.testing.assert_allclose(three.atomic_energies[[0, 3]], alone.energies[[0, 0]], rtol=0, atol=1e-6)


def test_two_models_in_one_process_do_not_disturb_each_other(model, load, random_model):
    frames = Frames.from_ase(_structures())
    first = load(model)
    before = first.evaluate(frames, frozenset()).energies
    second = load(random_model(NETWORKS['PiNet2, rank 3']))
    assert not np.allclose(second.evaluate(frames, frozenset()).energies, before)
    np.testing.assert_array_equal(first.evaluate(frames, frozenset()).energies, before)


def _corrupt(load, directory, *words: str, label: str = 'ERROR_MODEL_CORRUPT') -> None:
    with pytest.raises(WorkerError) as caught:
        load(directory)
    assert caught.value.label == label
    for word in words:
        assert word in caught.value.message


def test_a_network_with_more_variables_than_the_checkpoint(model, load, edit):
    edit(lambda content: content['network']['params'].update(depth=4))
    _corrupt(load, model, 'lacks')


def test_a_network_with_fewer_variables_than_the_checkpoint(random_model, load, edit):
    """PiNN would take those that it finds by their names, and not miss the others."""
    directory = random_model(NETWORKS['PiNet'])
    content = {'pp_nodes': [8], 'pi_nodes': [8], 'ii_nodes': [8], 'out_nodes': [8], 'depth': 1}
    edit(lambda parameters: parameters['network']['params'].update(content), directory)
    with pytest.raises(WorkerError, match='of the variables, first'):
        load(directory)


def test_variables_beyond_the_network(random_model, load, monkeypatch):
    directory = random_model(NETWORKS['PiNet'])
    seen = graph.PinnGraph._compare

    def compare(self, wanted, shapes):
        seen(self, wanted, {**shapes, 'pi_net/dense_99/kernel/Adam/v': [1], 'beta1_power': []})
        seen(self, wanted, {**shapes, 'pi_net/dense_99/kernel': [1]})

    monkeypatch.setattr(graph.PinnGraph, '_compare', compare)
    _corrupt(load, directory, 'has beyond the network 1 of the variables, first pi_net/dense_99/kernel')


def test_variables_of_another_shape(model, load, edit):
    edit(lambda content: content['network']['params'].update(out_nodes=[8]))
    _corrupt(load, model, 'in another shape')


def test_a_checkpoint_of_another_network(model, load, edit):
    edit(lambda content: content['network'].update(name='PiNet', params=dict(PINET)))
    _corrupt(load, model, 'lacks')


def test_a_checkpoint_that_is_cut_off(model, load):
    data = model / 'model.ckpt-3000.data-00000-of-00001'
    data.write_bytes(data.read_bytes()[:1000])
    _corrupt(load, model, 'cannot be read')


def test_an_index_of_garbage_with_the_right_end(model, load):
    index = model / 'model.ckpt-3000.index'
    content = index.read_bytes()
    index.write_bytes(b'\xff' * (len(content) - 48) + content[-48:])
    _corrupt(load, model, 'cannot be read')


def test_weights_that_are_not_numbers(model, load):
    """The trainings that diverge leave such checkpoints; the checksum of the data is not looked at by TensorFlow."""
    import tensorflow as tf

    with tf.Graph().as_default():
        reader = tf.train.load_checkpoint(str(model / 'model.ckpt-3000'))
        names = reader.get_variable_to_shape_map()
        values = {name: np.array(reader.get_tensor(name)) for name in names}
        values['pi_net2/out_layer/dense_25/kernel'][0, 0] = np.nan
        variables = [tf.compat.v1.get_variable(name, initializer=value) for name, value in values.items()]
        with tf.compat.v1.Session() as session:
            session.run([variable.initializer for variable in variables])
            tf.compat.v1.train.Saver(variables).save(session, str(model / 'model.ckpt'), global_step=3000)
    _corrupt(load, model, 'NaN or infinity in pi_net2/out_layer/dense_25/kernel')


def test_parameters_that_pinn_does_not_take(model, load, edit):
    edit(lambda content: content['network']['params'].update(rank=2))
    _corrupt(load, model, 'cannot build the network PiNet2', label='ERROR_MODEL_UNSUPPORTED')


def test_a_work_directory_with_special_characters(model, load, tmp_path, monkeypatch):
    """TensorFlow looks for checkpoints by pattern; the worker runs in its work directory."""
    odd = tmp_path / 'a[b]*?' / 'model'
    odd.parent.mkdir()
    model.rename(odd)
    monkeypatch.chdir(odd.parent)
    assert np.isfinite(load(odd).evaluate(Frames.from_ase(_structures()), frozenset()).energies).all()


def test_a_structure_that_does_not_fit_costs_no_other(libraries, model):
    """In a process of its own, whose data are limited as the worker limits them: TensorFlow says so and goes on."""
    code = f"""
import numpy as np
from ase import Atoms
from pathlib import Path
from aiida_mlpotential.worker.backends.base import Settings
from aiida_mlpotential.worker.backends.pinn import PinnBackend
from aiida_mlpotential.worker.errors import OutOfMemory
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.memory import _data_size, limit_memory
from aiida_mlpotential.worker.neighbors import preload
from aiida_mlpotential.worker.schema import ModelSpec
path = Path({str(model)!r})
spec = ModelSpec('m', 'pinn', '', {{f'model/{{name}}': '' for name in PinnBackend.inspect(path).files}})
backend = PinnBackend.load(spec, path.parent, Settings(device='cpu', num_threads=1))
preload()
limit_memory((_data_size() >> 20) + 300)
sites = np.argwhere(np.ones((16, 16, 16))) * 1.5
for structure in (Atoms('H4096', sites), Atoms('H2', [[0, 0, 0], [0, 0, 1.0]])):
    try:
        print(np.isfinite(backend.evaluate(Frames.from_ase([structure]), frozenset({{'forces'}})).energies[0]))
    except OutOfMemory:
        print('too large')
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert (done.stdout.split('\n')[:2], done.returncode) == (['too large', 'True'], 0), done.stderr[-2000:]


@pytest.mark.parametrize('kind', ['ResourceExhaustedError', 'InternalError'])
def test_memory_that_runs_out_is_told(model, load, libraries, monkeypatch, kind):
    tf = libraries[0]
    backend = load(model)

    def fail(*_):
        raise getattr(tf.errors, kind)(None, None, 'OOM when allocating tensor')

    monkeypatch.setattr(backend._graph._session, 'run', fail)
    with pytest.raises(OutOfMemory):
        backend.evaluate(Frames.from_ase([Atoms('H')]), frozenset())


def test_other_failures_of_tensorflow_are_not_taken_for_it(model, load, libraries, monkeypatch):
    tf = libraries[0]
    backend = load(model)

    def fail(*_):
        raise tf.errors.InternalError(None, None, 'something else')

    monkeypatch.setattr(backend._graph._session, 'run', fail)
    with pytest.raises(tf.errors.InternalError):
        backend.evaluate(Frames.from_ase([Atoms('H')]), frozenset())
