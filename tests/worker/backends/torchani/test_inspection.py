"""What a model file says of itself, read without torch: as much as is in it, and never a word of its own."""

from __future__ import annotations

import builtins
import collections
import subprocess
import sys

import numpy as np
import pytest

from aiida_mlpotential.worker.backends.base import ModelFileError
from aiida_mlpotential.worker.backends.torchani.inspection import RELATIVE, inspect_file, is_canonical
from aiida_mlpotential.worker.backends.torchani.parameters import AniParameters, Layer
from aiida_mlpotential.worker.registry import ANI_FAMILIES

FORMS = {'full_ani': 'ani', 'sequential_idx': 'sequential', 'torchscript': 'torchscript'}


def _canonical(path, energies=(0.5, 38.0)):
    random = np.random.default_rng(3)
    shapes = [(2, 4, 16 * 2 + 3 * 32), (2, 1, 4)]
    layers = [Layer(random.normal(size=shape).astype('f4'), np.zeros(shape[:2], 'f4')) for shape in shapes]
    AniParameters(('H', 'C'), ANI_FAMILIES['ani2x'], -np.array(energies), {'H': layers, 'C': layers}).write(path)
    return path


def test_the_canonical_file(tmp_path):
    facts = inspect_file(_canonical(tmp_path / 'mine.npz'))
    assert (facts.elements, facts.ensemble_size, facts.cutoff) == (('H', 'C'), 2, 5.1)
    assert (facts.energy_unit, facts.distance_unit, facts.options) == ('Hartree', 'angstrom', {'form': 'canonical'})
    assert not facts.needs_trust and not facts.remarks
    assert inspect_file(_canonical(tmp_path / 'zero.npz', (0, 0))).remarks == (RELATIVE,)
    (tmp_path / 'mine.npz').rename(tmp_path / 'mine.dat')
    assert is_canonical(tmp_path / 'mine.dat')


@pytest.mark.parametrize(('file', 'form'), FORMS.items())
def test_the_forms(custom, file, form):
    facts = inspect_file(custom / f'custom_{file}.pt')
    assert (facts.elements, facts.ensemble_size, facts.cutoff) == (('H', 'C', 'O'), 2, 4.5)
    assert facts.options == {'form': form}
    assert (facts.energy_unit, facts.distance_unit, facts.needs_trust) == (None, None, '')
    assert (RELATIVE in facts.remarks) is (form == 'sequential')


def test_torch_is_not_needed(custom):
    code = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('torch', 'torchani'):
            raise ImportError(name)
sys.meta_path.insert(0, Blocker())
from pathlib import Path
from aiida_mlpotential.worker.backends.torchani.inspection import inspect_file
for path in sorted(Path({str(custom)!r}).glob('*.pt')):
    print(inspect_file(path).elements)
"""
    process = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert process.stdout.splitlines() == ["('H', 'C', 'O')"] * 3


def test_a_state_dict_says_what_it_lacks(custom, tmp_path, random_model):
    torch = pytest.importorskip('torch', reason='the torchani extra is not installed')
    torch.save(random_model(3).state_dict(), tmp_path / 'state.pt')
    facts = inspect_file(tmp_path / 'state.pt')
    assert (facts.elements, facts.ensemble_size) == (('H', 'C', 'N', 'O', 'S'), 3)
    assert facts.options == {'form': 'state_dict'}
    assert any('does not say its cutoff_fn, activation' in remark for remark in facts.remarks)
    assert facts.cutoff is None


def test_published_constants_and_layers_complete_a_state_dict(shared_data):
    facts = inspect_file(shared_data / 'models' / 'torchani' / 'ani1x_state_dict.pt')
    assert (facts.elements, facts.ensemble_size, facts.cutoff) == (('H', 'C', 'N', 'O'), 8, 5.2)
    assert 'taken from ani1x' in facts.remarks[0]


def test_a_sequential_without_names_asks_for_the_elements(custom, tmp_path):
    torch = pytest.importorskip('torch', reason='the torchani extra is not installed')
    model = torch.load(custom / 'custom_sequential_idx.pt', weights_only=False)['model']
    for container in (model[1], *model[1].members):
        del container._buffers['atomic_numbers']
    torch.save({'model': model}, tmp_path / 'm.pt')
    facts = inspect_file(tmp_path / 'm.pt')
    assert facts.elements is None
    assert any('state them, in the order' in remark for remark in facts.remarks)
    torch.save({'model': model, 'species_order': ['C', 'H', 'O']}, tmp_path / 'm.pt')
    assert inspect_file(tmp_path / 'm.pt').elements == ('C', 'H', 'O')


class Wild:
    """An object that would print when it is unpickled."""

    def __reduce__(self):
        return builtins.print, ('unpickled',)


def test_a_foreign_class_needs_trust(custom, tmp_path, capsys):
    torch = pytest.importorskip('torch', reason='the torchani extra is not installed')
    model = torch.load(custom / 'custom_full_ani.pt', weights_only=False)['model']
    torch.save({'model': model, 'more': Wild(), 'history': collections.Counter('aab')}, tmp_path / 'm.pt')
    facts = inspect_file(tmp_path / 'm.pt')
    assert facts.needs_trust == 'holds objects of classes that are on no list, builtins.print, collections.Counter'
    assert facts.elements == ('H', 'C', 'O')
    torch.save({'model': Wild()}, tmp_path / 'm.pt')
    assert 'builtins.print' in inspect_file(tmp_path / 'm.pt').needs_trust
    assert 'unpickled' not in capsys.readouterr().out


def test_torchscript_with_other_operators_needs_trust(tmp_path):
    torch = pytest.importorskip('torch', reason='the torchani extra is not installed')

    class Saves(torch.nn.Module):
        def forward(self, given: torch.Tensor) -> torch.Tensor:
            return torch.from_file('anything', False, 1) + given

    torch.jit.save(torch.jit.script(Saves()), tmp_path / 'm.pt')
    facts = inspect_file(tmp_path / 'm.pt')
    assert facts.needs_trust == 'uses what no model needs, torch.from_file'
    assert facts.elements is None
    assert any('option species' in remark for remark in facts.remarks)


@pytest.mark.parametrize(('name', 'content'), [('m.npz', b''), ('m.pt', b'junk'), ('m.pt', b'PK\x03\x04')])
def test_a_damaged_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelFileError, match=name):
        inspect_file(tmp_path / name)


def test_what_is_no_model_is_refused(tmp_path):
    torch = pytest.importorskip('torch', reason='the torchani extra is not installed')
    for content in ({'a': 1}, [1, 2], torch.nn.Linear(1, 1)):
        torch.save(content, tmp_path / 'm.pt')
        with pytest.raises(ModelFileError, match='model of torchani'):
            inspect_file(tmp_path / 'm.pt')
    with pytest.raises(ModelFileError, match='is no file'):
        inspect_file(tmp_path)
