"""A job links the copy of its model that is on the computer, if the code sees it; else the files travel with it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from aiida import orm
from aiida.engine import run_get_node
from aiida.manage.caching import enable_caching
from ase import Atoms
from real_servers import require

from aiida_mlpotential.calculations.linking import can_link
from aiida_mlpotential.calculations.single_point import SinglePointCalculation
from aiida_mlpotential.calculations.stage_model import StageModelCalculation
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.queries.staged import LINKED_EXTRA, linked_copy

MODEL_FILE = Path(__file__).resolve().parents[1] / 'fixtures' / 'torchani' / 'custom_full_ani.pt'


@pytest.fixture
def model(aiida_profile_clean):
    return ModelData.from_file(MODEL_FILE, backend='torchani').get_or_store()


@pytest.fixture
def structures(aiida_profile_clean):
    return StructureSetData.from_ase([Atoms('OH2', [[0, 0, 0], [0, 0.76, 0.6], [0, -0.76, 0.6]])]).store()


def _stage(model, computer):
    return run_get_node(StageModelCalculation, model=model, metadata={'computer': computer})[1].outputs.remote_folder


def _run(code, model, structures):
    return run_get_node(SinglePointCalculation, code=code, model=model, structures=structures)[1]


def _sent(node):
    return Path(node.get_remote_workdir(), 'model')


@pytest.mark.slow
def test_a_copy_changes_neither_results_nor_the_hash(model, structures, python_code, localhost):
    plain = _run(python_code, model, structures)
    assert plain.is_finished_ok, plain.exit_message
    assert not _sent(plain).is_symlink() and linked_copy(plain) is None
    copy = _stage(model, localhost)
    linked = _run(python_code, model, structures)
    assert linked.is_finished_ok, linked.exit_message
    assert _sent(linked).readlink() == Path(copy.get_remote_path(), 'model')
    assert linked_copy(linked).pk == copy.pk
    assert copy.get_remote_path() in linked.base.repository.get_object_content('.aiida/calcinfo.json')
    assert set(linked.base.links.get_incoming().all_link_labels()) == {'code', 'model', 'structures'}
    assert linked.base.caching.get_hash() == plain.base.caching.get_hash()
    assert linked.outputs.results.energies == pytest.approx(plain.outputs.results.energies, abs=0)
    with enable_caching():
        assert _run(python_code, model, structures).base.caching.is_created_from_cache


@pytest.mark.slow
def test_a_copy_that_is_gone_is_named_with_the_remedy(model, structures, python_code, localhost):
    copy = _stage(model, localhost)
    shutil.rmtree(Path(copy.get_remote_path(), 'model'))
    node = _run(python_code, model, structures)
    assert node.exit_status == 320
    assert f'it is the staged copy in {copy.get_remote_path()} on localhost' in node.exit_message
    assert f'aiida-mlpotential models unstage {model.pk} --computer localhost' in node.exit_message


@pytest.mark.slow
def test_the_work_directory_can_go_and_the_copy_stays(model, structures, python_code, localhost):
    copy = _stage(model, localhost)
    node = _run(python_code, model, structures)
    with node.outputs.remote_folder.get_authinfo().get_transport() as transport:
        transport.rmtree(node.get_remote_workdir())
    assert Path(copy.get_remote_path(), 'model', MODEL_FILE.name).read_bytes() == MODEL_FILE.read_bytes()


@pytest.mark.slow
def test_a_model_without_files_links_nothing(emt_model, python_code):
    node = _run(python_code, emt_model, StructureSetData.from_ase([Atoms('Cu')]).store())
    assert node.is_finished_ok
    assert not _sent(node).exists()
    assert node.base.extras.get(LINKED_EXTRA) is None


@pytest.mark.servers
def test_a_container_gets_the_files_themselves(model, structures, localhost):
    """It sees the work directory of the job and the system, and not where the copy is."""
    require('container')
    localhost.set_use_double_quotes(True)
    copy = _stage(model, localhost)
    prefix, here = Path(sys.prefix), Path(__file__).resolve().parents[2]
    seen = ' '.join(
        f'--ro-bind {path} {path}' for path in sorted({'/usr', '/etc', sys.base_prefix, prefix, here}, key=str)
    )
    links = ' '.join(f'--symlink usr/{name} /{name}' for name in ('bin', 'lib', 'lib64'))
    code = orm.ContainerizedCode(
        label='container',
        computer=localhost,
        filepath_executable=sys.executable,
        image_name='$PWD',
        engine_command=f'bwrap --unshare-all {seen} {links} --proc /proc --dev /dev --bind {{image_name}} '
        '{image_name} --chdir {image_name}',
        default_calc_job_plugin='mlpotential.single_point',
    ).store()
    assert not can_link(code)
    node = _run(code, model, structures)
    assert node.is_finished_ok, (node.exit_status, node.exit_message)
    assert not _sent(node).is_symlink()
    assert (_sent(node) / MODEL_FILE.name).is_file()
    assert linked_copy(node) is None
    assert node.outputs.results.n_ok == 1
    assert Path(copy.get_remote_path()).is_dir()
