"""The files of a PiNN model: what is read, and what is refused before TensorFlow sees it; needs no library."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from aiida_mlpotential.worker.backends.pinn import PinnBackend, files
from aiida_mlpotential.worker.backends.pinn.files import PinnFileError, read_model


def _refused(directory, *words: str) -> PinnFileError:
    with pytest.raises(PinnFileError) as caught:
        read_model(directory)
    for word in words:
        assert word in str(caught.value)
    return caught.value


def test_what_the_files_say(model):
    facts = PinnBackend.inspect(model)
    assert facts.elements == ('H', 'C', 'O')
    assert facts.cutoff == 4.5
    assert (facts.energy_unit, facts.distance_unit) == (None, None)
    assert facts.options == {'network': 'PiNet2', 'e_unit': pytest.approx(27.211386024367243, rel=1e-15)}
    assert set(facts.files) == {path.name for path in model.iterdir()}
    assert not facts.needs_trust


def test_inspection_needs_neither_tensorflow_nor_pinn(model):
    code = f"""
import sys
sys.modules['tensorflow'] = sys.modules['pinn'] = None
from pathlib import Path
from aiida_mlpotential.worker.backends.pinn import PinnBackend
print(PinnBackend.inspect(Path({str(model)!r})).elements)
"""
    output = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "('H', 'C', 'O')"


def test_the_order_of_the_elements_is_the_networks(model, edit):
    edit(lambda content: content['network']['params'].update(atom_types=[8, 1, 6]))
    assert PinnBackend.inspect(model).elements == ('O', 'H', 'C')


def test_the_unit_is_a_guess_and_is_called_so(model, edit):
    assert 'turns Hartree into eV' in PinnBackend.inspect(model).remarks[0]
    edit(lambda content: content['model']['params'].update(e_unit=1.0))
    assert 'no file names' in PinnBackend.inspect(model).remarks[0]


@pytest.mark.parametrize(('dress', 'words'), [({}, 'relative'), ({1: -13.0, 6: -1000.0}, 'no energy for O')])
def test_missing_energies_of_atoms_are_said(model, edit, dress, words):
    edit(lambda content: content['model']['params'].update(e_dress=dress))
    assert words in PinnBackend.inspect(model).remarks[1]


def test_a_network_that_depends_on_the_orientation_is_named(model, edit):
    edit(lambda content: content['network']['params'].update(rank=5))
    assert 'not invariant' in PinnBackend.inspect(model).remarks[-1]


def test_the_order_in_a_bpnn_is_the_users_to_check(model, edit):
    network = {'name': 'BPNN', 'params': {'sf_spec': [], 'nn_spec': {1: [4], 8: [4]}}}
    edit(lambda content: content.update(network=network))
    assert 'order of the training' in PinnBackend.inspect(model).remarks[-1]


def test_a_file_in_place_of_the_directory(model):
    _refused(model / 'params.yml', 'is not a directory')


def test_another_directory(tmp_path):
    assert _refused(tmp_path, 'params.yml is missing').label == 'ERROR_MODEL_MISSING'


# A tag that makes an object; it would write a file.
HOSTILE = '!!python/object/apply:os.mkdir ["{target}"]'


def test_a_yaml_tag_is_not_obeyed(model, tmp_path):
    target = tmp_path / 'written'
    (model / 'params.yml').write_text(f'network: {HOSTILE.format(target=target)}\n')
    _refused(model, 'YAML tag', 'could run code')
    assert not target.exists()


def test_aliases_are_refused_before_anything_grows(model):
    lines = ['a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]']
    lines += [f'a{i}: &a{i} [{", ".join([f"*a{i - 1}"] * 9)}]' for i in range(1, 30)]
    (model / 'params.yml').write_text('\n'.join(lines))
    _refused(model, 'aliases')


@pytest.mark.parametrize(
    ('text', 'word'),
    [
        ('[' * 100000, 'nested more than'),
        ('a: 1' + ':59' * 340000, 'a value has more than'),
        ('a: [' * 100000, 'not valid YAML'),
        ('{a: ' * 100000, 'nested more than'),
        ('a: ' + '9' * 100000, 'not valid YAML'),
        ('a: [1', 'not valid YAML'),
        ('- 1', 'no parameters'),
        ('model: {name: potential_model}', 'does not name its network'),
        ('model: [1]', 'does not name its model'),
        ('a: ' + 'x' * files.MAX_TEXT, 'more than'),
    ],
)
def test_other_yaml_is_refused(model, text, word):
    (model / 'params.yml').write_text(text)
    _refused(model, word)


def test_bytes_are_refused(model):
    (model / 'params.yml').write_bytes(b'\x80\x04\xff')
    _refused(model, 'not text')


@pytest.mark.parametrize('name', ['dipole_model', 'AC_dipole_model'])
def test_other_models_are_refused(model, edit, name):
    edit(lambda content: content['model'].update(name=name))
    assert _refused(model, name, 'potential_model').label == 'ERROR_MODEL_UNSUPPORTED'


@pytest.mark.parametrize('value', [0, -1.0, float('nan'), float('inf'), 'two', True, [1]])
@pytest.mark.parametrize('key', ['e_unit', 'e_scale'])
def test_factors_must_be_positive_numbers(model, edit, key, value):
    edit(lambda content: content['model']['params'].update({key: value}))
    _refused(model, key)


@pytest.mark.parametrize('dress', [{'H': -13.0}, {1: 'x'}, {1: float('nan')}, {119: 1.0}, {True: 1.0}, [1]])
def test_energies_of_atoms_must_be_numbers(model, edit, dress):
    edit(lambda content: content['model']['params'].update(e_dress=dress))
    _refused(model, 'e_dress')


@pytest.mark.parametrize('name', ['checkpoint', 'model.ckpt-3000.index', 'model.ckpt-3000.data-00000-of-00001'])
def test_a_missing_part_of_the_checkpoint(model, name):
    (model / name).unlink()
    assert _refused(model, name, 'random weights').label == 'ERROR_MODEL_MISSING'


def test_a_missing_shard(model):
    shutil.move(model / 'model.ckpt-3000.data-00000-of-00001', model / 'model.ckpt-3000.data-00000-of-00002')
    _refused(model, 'data-00001-of-00002 is missing')


@pytest.mark.parametrize('length', [0, 4, 3000])
def test_an_index_that_is_cut_off(model, length):
    index = model / 'model.ckpt-3000.index'
    index.write_bytes(index.read_bytes()[:length])
    _refused(model, 'cut off')


def test_empty_data(model):
    (model / 'model.ckpt-3000.data-00000-of-00001').write_bytes(b'')
    _refused(model, 'is empty')


@pytest.mark.parametrize(
    'path', ['/home/somebody/train/model.ckpt-3000', '../../other/model.ckpt-3000', r'C:\\train\\model.ckpt-3000']
)
def test_the_checkpoint_is_looked_for_in_the_directory_alone(model, path):
    (model / 'checkpoint').write_text(f'model_checkpoint_path: "{path}"\n')
    assert read_model(model).checkpoint == 'model.ckpt-3000'


def test_a_checkpoint_elsewhere_is_not_followed(model, tmp_path):
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    for path in model.glob('model.ckpt-*'):
        shutil.move(path, elsewhere / path.name)
    (model / 'checkpoint').write_text(f'model_checkpoint_path: "{elsewhere}/model.ckpt-3000"\n')
    _refused(model, 'index is missing')


@pytest.mark.parametrize('name', ['..', '', '*', '.hidden', 'a b', '$(touch x)', 'x;y', '[ab]'])
def test_odd_names_of_checkpoints(model, name):
    (model / 'checkpoint').write_text(f'model_checkpoint_path: "{name}"\n')
    _refused(model, 'no usable checkpoint')


def test_the_latest_checkpoint_counts(model):
    (model / 'checkpoint').write_text(
        'all_model_checkpoint_paths: "model.ckpt-1"\nmodel_checkpoint_path: "model.ckpt-3000"\n'
    )
    (model / 'model.ckpt-1.index').write_bytes(b'old')
    assert 'model.ckpt-1.index' not in read_model(model).files
