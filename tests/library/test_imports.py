"""Own models into the profile and out of it: what comes back is the same node."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from ase.build import molecule

from aiida_mlpotential.calculations.single_point import SinglePointCalculation
from aiida_mlpotential.data.model import ModelData, ModelInfo
from aiida_mlpotential.library import export_model, import_model
from aiida_mlpotential.worker.backends.base import FileFacts, ModelFileError
from aiida_mlpotential.worker.backends.torchani.parameters import AniParameters, Layer
from aiida_mlpotential.worker.registry import ANI_FAMILIES

pytestmark = pytest.mark.usefixtures('aiida_profile_clean')
INFO = ModelInfo(energy_unit='kJ/mol', source='here', licence='MIT', method='CCSD(T)', doi='10.1/x')


@pytest.fixture
def file(tmp_path):
    path = tmp_path / 'my weights.npz'
    path.write_bytes(b'weights')
    return path


@pytest.fixture
def archive(file, file_facts, tmp_path):
    node = import_model(file, backend='sgdml', name='mine', elements='H,C', options={'atom_order': [1]}, info=INFO)
    return export_model(node, tmp_path / 'export.zip')


def change(archive, **changes):
    """Change what stands in ``model.json`` of an archive."""
    with zipfile.ZipFile(archive) as source:
        entries = {name: source.read(name) for name in source.namelist()}
    manifest = json.loads(entries['model.json'])
    for key, value in changes.items():
        manifest[key] = value
    entries['model.json'] = json.dumps(manifest).encode()
    with zipfile.ZipFile(archive, 'w') as target:
        for name, data in entries.items():
            target.writestr(name, data)
    return archive


def test_file(file, file_facts):
    node = import_model(str(file), backend='sgdml', elements='H,C')
    assert (node.backend_name, node.elements, node.committee) == ('sgdml', ('H', 'C'), 0)
    assert not node.is_stored


def test_committee(file, file_facts, tmp_path):
    (tmp_path / 'other').write_bytes(b'1')
    assert import_model([file, tmp_path / 'other'], backend='sgdml').committee == 2


def test_without_a_file():
    assert import_model([], backend='chgnet', name='c').backend_name == 'chgnet'
    options = {'calculator': 'ase.calculators.emt.EMT', 'kwargs': {'asap_cutoff': True}}
    node = import_model([], backend='ase', options=options)
    assert (node.name, node.options) == ('EMT', options)
    with pytest.raises(ValueError, match='name at least one parameter file'):
        import_model([], backend='sgdml')
    with pytest.raises(ValueError, match='name at least one parameter file'):
        import_model([])
    with pytest.raises(ValueError, match='the option `calculator`, the import path'):
        import_model([], backend='ase')
    with pytest.raises(ValueError, match='`kwargs` must be an object'):
        import_model([], backend='ase', options={'calculator': 'a.b', 'kwargs': []})


def test_backend_is_needed(file):
    with pytest.raises(ValueError, match='say with `backend` which library'):
        import_model(file)


def test_round_trip(archive, file):
    """Same attributes, same node; the archive of the copy is the same file."""
    first = import_model(
        file, backend='sgdml', name='mine', elements='H,C', options={'atom_order': [1]}, info=INFO
    ).store()
    again = import_model(archive)
    assert again.base.attributes.all == first.base.attributes.all
    assert (again.source_text, again.name) == ('here', 'mine')
    assert again.original_names == {'my_weights.npz': 'my weights.npz'}
    assert again.get_or_store().pk == first.pk
    assert export_model(again, archive.with_name('2.zip')).read_bytes() == archive.read_bytes()


@pytest.mark.parametrize('facts', [FileFacts(), FileFacts(('H', 'C'), 3, 'Hartree', 'bohr', 5.0, {'atom_order': [1]})])
def test_round_trip_of_what_the_file_says(file, file_facts, tmp_path, facts):
    """Units of the file and of the backend come back as such."""
    file_facts['my_weights.npz'] = facts
    node = import_model(file, backend='sgdml').store()
    again = import_model(export_model(node, tmp_path))
    assert again.base.attributes.all == node.base.attributes.all


@pytest.mark.parametrize('names', [('a', 'sub/b'), ('sub/b',), ('sub/deep/a', 'sub/deep/b')])
def test_round_trip_of_a_directory(file_facts, tmp_path, names):
    for name in names:
        (tmp_path / 'model' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'model' / name).write_text(name)
    node = import_model(tmp_path / 'model', backend='pinn').store()
    assert tuple(node.files) == names
    again = import_model(export_model(node, tmp_path))
    assert again.base.attributes.all == node.base.attributes.all


def test_round_trip_of_a_committee(file, file_facts, tmp_path):
    folders = [tmp_path / name for name in 'ab']
    for folder in folders:
        folder.mkdir()
        (folder / 'params').write_text(folder.name)
        (folder / 'checkpoint').write_text('same')
    committees = ((folders, 'pinn'), ([file, folders[0] / 'params'], 'sgdml'), ([file, folders[0]], 'schnetpack'))
    for paths, backend in committees:
        node = import_model(paths, backend=backend, name=f'c-{backend}').store()
        again = import_model(export_model(node, tmp_path / f'{backend}.zip'))
        assert again.base.attributes.all == node.base.attributes.all
        assert again.get_or_store().pk == node.pk


def test_the_users_word_replaces_that_of_the_archive(archive):
    info = ModelInfo(energy_unit='eV', licence='other')
    node = import_model(archive, name='new', info=info)
    assert (node.name, node.energy_unit, node.licence, node.method) == ('new', 'eV', 'other', 'CCSD(T)')
    with pytest.raises(ModelFileError, match='is a model of the backend sgdml, not pinn'):
        import_model(archive, backend='pinn')
    with pytest.raises(ModelFileError, match='is an exported model: import it alone'):
        import_model([archive, archive], backend='sgdml')


def test_trust_does_not_travel(file, file_facts, tmp_path):
    file_facts['my_weights.npz'] = FileFacts(needs_trust='it is a pickle')
    node = import_model(file, backend='sgdml', trusted=True).store()
    archive = export_model(node, tmp_path)
    with pytest.raises(ModelFileError, match='it is a pickle; if you have that, say so with `--trust`'):
        import_model(archive)
    assert import_model(archive, trusted=True).get_or_store().pk == node.pk
    with pytest.raises(ModelFileError, match="'trusted' is not known"):
        import_model(change(archive, trusted=True))
    assert orm.QueryBuilder().append(ModelData).count() == 1


def test_an_archive_that_contradicts_its_file(archive, file_facts):
    file_facts['my_weights.npz'] = FileFacts(('N', 'O'))
    with pytest.raises(ModelFileError, match='the elements H C are not those of the file, N O'):
        import_model(archive)
    file_facts['my_weights.npz'] = FileFacts(options={'atom_order': [2]})
    with pytest.raises(ModelFileError, match=r'the option atom_order = \[1\] is not what the file has, \[2\]'):
        import_model(archive)
    file_facts['my_weights.npz'] = FileFacts(energy_unit='Hartree')
    change(archive, units_from={'energy': 'file', 'distance': 'default'})
    message = r'model\.json has the energy unit kJ/mol \(file\), but it is Hartree \(file\): say with `--energy-unit`'
    with pytest.raises(ModelFileError, match=message):
        import_model(archive)
    assert import_model(archive, info=ModelInfo(energy_unit='kJ/mol')).energy_unit == 'kJ/mol'


def test_files_that_the_backend_does_not_need(file_facts, tmp_path):
    """An archive cannot bring more into the profile than an import of the same files would."""
    for name in 'ab':
        (tmp_path / 'folder').mkdir(exist_ok=True)
        (tmp_path / 'folder' / name).write_text(name)
    archive = export_model(import_model(tmp_path / 'folder', backend='pinn'), tmp_path / 'x.zip')
    file_facts['parameters'] = FileFacts(files=('a',))
    with pytest.raises(ModelFileError, match='are not those that the backend pinn needs'):
        import_model(archive)


def test_where_an_export_goes(file, file_facts, tmp_path, monkeypatch):
    node = import_model(file, backend='sgdml', name='../my model;').store()
    monkeypatch.chdir(tmp_path)
    target = export_model(node)
    assert target.name == 'model.._my_model_.zip'
    assert (tmp_path / target).is_file()
    assert export_model(node, tmp_path / 'other.ZIP').name == 'other.ZIP'
    with pytest.raises(ValueError, match=r"let the name of '.*x\.npz' end in \.zip"):
        export_model(node, tmp_path / 'x.npz')
    with pytest.raises(FileNotFoundError, match=r"there is no directory '.*absent': make it first"):
        export_model(node, tmp_path / 'absent' / 'x.zip')
    with pytest.raises(ValueError, match=r'EMT has no parameter files to export: it is the ASE calculator ase\.calc'):
        export_model(ModelData.from_ase_calculator('ase.calculators.emt.EMT'))


def test_nothing_is_overwritten(archive, file, tmp_path):
    node = import_model(archive)
    precious, dangling = tmp_path / 'precious.zip', tmp_path / 'dangling.zip'
    precious.write_text('precious')
    dangling.symlink_to(tmp_path / 'elsewhere')
    for target in (precious, dangling):
        with pytest.raises(FileExistsError, match='is there already: add `--force` to replace it'):
            export_model(node, target)
    assert precious.read_text() == 'precious'
    assert not (tmp_path / 'elsewhere').exists()
    for target in (precious, dangling):
        assert export_model(node, target, overwrite=True).read_bytes() == archive.read_bytes()
    assert not (tmp_path / 'elsewhere').exists()


@pytest.mark.parametrize('overwrite', [False, True])
def test_half_an_archive_is_removed(archive, tmp_path, monkeypatch, overwrite):
    from aiida_mlpotential.library import imports

    def fail(node, stream):
        stream.write(b'half')
        raise OSError('disk full')

    node = import_model(archive)
    monkeypatch.setattr(imports, 'write_archive', fail)
    target = tmp_path / 'new.zip'
    if overwrite:
        target.write_text('old')
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(OSError, match='disk full'):
        export_model(node, target, overwrite=overwrite)
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_parameters_are_exported_byte_for_byte(archive, file):
    with zipfile.ZipFile(io.BytesIO(archive.read_bytes())) as content:
        assert content.read('parameters/my_weights.npz') == file.read_bytes()


def _write_ani(path, seed):
    """Write a small ANI model of one member for hydrogen."""
    random = np.random.default_rng(seed)
    layers = [
        Layer(random.normal(size=(1, width, inputs)).astype('f4'), random.normal(size=(1, width)).astype('f4'))
        for inputs, width in ((48, 4), (4, 1))
    ]
    AniParameters(('H',), ANI_FAMILIES['ani1x'], np.array([-0.5]), {'H': layers}).write(path)


@pytest.mark.slow
def test_committee_with_odd_names_in_a_job(tmp_path, python_code):
    """The files arrive where the worker looks for them; mean and spread are those of the members alone."""
    pytest.importorskip('torchani')
    names = ['a $(touch owned) [1]*;.npz', "-rf 'ü'.npz"]
    for seed, name in enumerate(names):
        _write_ani(tmp_path / name, seed)
    committee = import_model([tmp_path / name for name in names], backend='torchani').get_or_store()
    members = [import_model(tmp_path / name, backend='torchani').get_or_store() for name in names]
    energies = []
    for model in (committee, *members):
        builder = SinglePointCalculation.get_builder()
        builder.code, builder.model = python_code, model
        builder.structure = orm.StructureData(ase=molecule('H2'))
        builder.parameters = {'properties': ['energy'], 'precision': 'double'}
        _, node = run_get_node(builder)
        assert node.is_finished_ok, node.exit_message
        energies.append(node.outputs.results.frame(0))
    alone = [frame.energy for frame in energies[1:]]
    assert energies[0].energy == pytest.approx(np.mean(alone), abs=1e-9)
    assert energies[0].energy_std == pytest.approx(np.std(alone, ddof=1), abs=1e-9)
    assert np.std(alone) > 0.01


def test_the_facts_of_a_calculator_without_a_file_are_kept(aiida_profile_clean):
    info = ModelInfo(energy_unit='Hartree', source='me', licence='MIT', doi='10.1/x')
    node = import_model([], backend='ase', options={'calculator': 'ase.calculators.emt.EMT'}, info=info)
    assert (node.energy_unit, node.units_from['energy']) == ('Hartree', 'user')
    assert (node.source_text, node.licence, node.doi) == ('me', 'MIT', '10.1/x')
