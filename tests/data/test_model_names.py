"""Names of parameter files in a node: odd ones get a plain one, links are refused."""

from __future__ import annotations

import pytest

from aiida_mlpotential.data.model import ModelData

pytestmark = pytest.mark.usefixtures('aiida_profile_clean', 'file_facts')


def test_odd_names_get_a_plain_one(tmp_path):
    path = tmp_path / '-rf $(touch x);*\n.npz'
    path.write_bytes(b'weights')
    node = ModelData.from_file(path, backend='sgdml').store()
    assert list(node.files) == ['model-rf___touch_x____.npz']
    assert node.original_names == {'model-rf___touch_x____.npz': path.name}
    assert node.name == 'model-rf___touch_x____'


def test_symbolic_links_in_a_model_directory_are_refused(tmp_path):
    (tmp_path / 'weights').write_text('x')
    (tmp_path / 'elsewhere').symlink_to('/etc/hostname')
    with pytest.raises(ValueError, match="symbolic link 'elsewhere'"):
        ModelData.from_file(tmp_path, backend='ase')
