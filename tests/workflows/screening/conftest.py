"""Fixtures of the tests of screenings: stored results and processes made by hand, without a job."""

from __future__ import annotations

import io

import numpy as np
import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import ProcessState
from ase.build import bulk

from aiida_mlpotential.data.results import ResultsData
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.worker.errors import FrameStatus

INFO = {'model': {'name': 'ANI-x', 'sha256': 'ab' * 32}, 'units': {}, 'precision': 'double', 'task': 'single_point'}


@pytest.fixture
def copper(aiida_profile):
    """Return six structures of one or two atoms as a stored set."""
    random = np.random.default_rng(3)
    found = []
    for index in range(6):
        atoms = bulk('Cu') * (1 + index % 2, 1, 1)
        atoms.positions += random.normal(scale=0.05, size=atoms.positions.shape)
        found.append(atoms)
    return StructureSetData.from_ase(found, labels=[f'cu-{index}' for index in range(6)]).store()


@pytest.fixture
def make_results(aiida_profile):
    """Return a function that makes unstored results of a part of a set, with these energies of the members."""

    def function(structures, start=0, stop=None, members=None, status=None, **attributes):
        stop = len(structures) if stop is None else stop
        frames = structures.get_frames().select(range(start, stop))
        members = np.asfortranarray(np.full((1, len(frames)), -1.0) if members is None else members)
        status = np.array([FrameStatus.OK] * len(frames) if status is None else status, dtype='i1')
        members[:, status != FrameStatus.OK] = np.nan
        arrays = {'energies': members.mean(axis=0), 'status': status, 'offsets': np.asarray(frames.offsets, '<i8')}
        if len(members) > 1:
            spread = members.std(axis=0, ddof=1)
            arrays.update(member_energies=members, energy_std=spread, qbc=spread / np.sqrt(frames.counts))
        bad = np.flatnonzero((status != FrameStatus.OK) & (status != FrameStatus.PENDING))
        folder = orm.FolderData()
        for name, array in arrays.items():
            stream = io.BytesIO()
            np.save(stream, array)
            folder.base.repository.put_object_from_filelike(io.BytesIO(stream.getvalue()), f'arrays/{name}.npy')
        info = {**INFO, 'messages': {str(index): 'too close' for index in bad}}
        node = ResultsData.from_folder(folder.store(), info, structures_info=structures.info)
        node.base.attributes.set_many(attributes)
        return node

    return function


@pytest.fixture
def make_process(aiida_profile):
    """Return a function that stores a process that was called by another one."""

    def function(cls, caller=None, label='', kind='SinglePointBaseWorkChain', inputs=None, task='single_point'):
        node = cls(process_type=f'aiida.calculations:mlpotential.{task}', label=label)
        node.set_process_label(kind)
        node.set_process_state(ProcessState.FINISHED)
        is_job = issubclass(cls, orm.CalculationNode)
        for name, value in (inputs or {}).items():
            node.base.links.add_incoming(value, LinkType.INPUT_CALC if is_job else LinkType.INPUT_WORK, name)
        if caller is not None:
            link = LinkType.CALL_CALC if is_job else LinkType.CALL_WORK
            node.base.links.add_incoming(caller, link, f'called_{id(node)}')
        return node.store()

    return function


@pytest.fixture
def make_job(make_process, copper, localhost):
    """Return a function that stores a job with what it left: results, structures, a work directory."""

    def function(caller=None, results=None, structures=None, folder=True, inputs=None, task='single_point'):
        inputs = {'structures': copper} if inputs is None else inputs
        job = make_process(orm.CalcJobNode, caller, inputs=inputs, task=task)
        outputs = {'results': results, 'output_structures': structures}
        if folder:
            outputs['remote_folder'] = orm.RemoteData(remote_path='/nowhere', computer=localhost)
        for name, node in outputs.items():
            if node is not None:
                node.base.links.add_incoming(job, LinkType.CREATE, name)
                node.store()
        return job

    return function
