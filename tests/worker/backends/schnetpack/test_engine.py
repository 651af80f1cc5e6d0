"""Tests of the evaluation against SchNetPack called directly: architectures, cutoffs, offsets, keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from aiida_mlpotential.worker.backends.schnetpack.engine import Engine, Units
from aiida_mlpotential.worker.errors import FrameError, WorkerError
from aiida_mlpotential.worker.frames import Frames

ALL = frozenset({'forces', 'stress', 'atomic_energies'})


def engine_of(library: Any, model: Any, precision: str = 'double', **options: Any) -> Engine:
    return Engine(library, model.eval().requires_grad_(False), Units(1.0, 1.0), 'cpu', precision, options)


def ask_library(library: Any, model: Any, structures: list[Atoms], cutoff: float, stress: bool = False) -> Any:
    """Return what SchNetPack's own converter and network give, one structure after the other, in double precision."""
    import copy

    import torch
    from schnetpack.interfaces import AtomsConverter
    from schnetpack.md.utils import activate_model_stress

    model = copy.deepcopy(model).double().eval()
    if stress:
        activate_model_stress(model, 'stress')
    converter = AtomsConverter(library.transform.MatScipyNeighborList(cutoff=cutoff), dtype=torch.float64)
    return [{key: value.detach().numpy() for key, value in model(converter(atoms)).items()} for atoms in structures]


@pytest.mark.parametrize('kind', ['SchNet', 'PaiNN', 'SO3net', 'FieldSchNet'])
def test_every_architecture(
    library: Any, make_model: Callable[..., Any], molecules: list[Atoms], crystals: list[Atoms], kind: str
) -> None:
    model = make_model(kind)
    # The library gives no sense for a lone atom, but an energy.
    structures = [atoms for atoms in molecules if len(atoms) > 1]
    expected = ask_library(library, model, structures, 4.0)
    expected += ask_library(library, model, crystals, 4.0, stress=True)
    frames = Frames.from_ase([*structures, *crystals])
    found = engine_of(library, model).evaluate(frames, ALL)
    np.testing.assert_allclose(found.energies, [item['energy'].item() for item in expected], atol=1e-10, rtol=0)
    forces = np.concatenate([item['energy_forces'] for item in expected])
    np.testing.assert_allclose(found.forces, forces, atol=1e-10, rtol=0)
    for row, item in zip(found.stress, expected, strict=True):
        if 'stress' in item:
            np.testing.assert_allclose(row, (item['stress'][0] + item['stress'][0].T) / 2, atol=1e-12, rtol=0)
        else:
            assert np.isnan(row).all()
    sums = np.add.reduceat(found.atomic_energies, frames.offsets[:-1])
    np.testing.assert_allclose(sums, found.energies, atol=1e-10, rtol=0)


def test_isolated_atoms(library: Any, make_model: Callable[..., Any]) -> None:
    engine = engine_of(library, make_model('PaiNN'))
    found = engine.evaluate(Frames.from_ase([Atoms('O'), Atoms('H')]), ALL)
    assert np.isfinite(found.energies).all()
    np.testing.assert_array_equal(found.forces, np.zeros((2, 3)))


def test_partial_periodicity(library: Any, make_model: Callable[..., Any]) -> None:
    """A wire repeats along one vector only, whatever cell vectors stand in the other directions."""
    engine = engine_of(library, make_model('PaiNN'))
    cell = np.diag([3.0, 2.0, 2.0])
    water = molecule('H2O')
    wire = Atoms(water.symbols, water.positions, cell=cell, pbc=(True, False, False))
    long = wire.repeat((7, 1, 1))
    free = Atoms(long.symbols, long.positions)
    found = engine.evaluate(Frames.from_ase([wire, free, water]), ALL)
    middle = found.atomic_energies[3:24].reshape(7, 3)[3]
    np.testing.assert_allclose(found.atomic_energies[:3], middle, atol=1e-6)
    assert abs(found.energies[0] - found.energies[2]) > 1e-4
    assert np.isnan(found.stress).all()


def test_neighbours_up_to_the_cutoff_of_the_model_and_beyond_none(library: Any, make_model: Callable[..., Any]) -> None:
    """A list that ends earlier gives a wrong energy and says nothing."""
    model = make_model('SchNet', cutoff=6.0)
    engine = engine_of(library, model)
    assert engine.cutoff == 6.0
    pair = Atoms('OH', positions=[(0, 0, 0), (0, 0, 5.0)])
    expected = ask_library(library, model, [pair], 6.0)[0]['energy'].item()
    wrong = ask_library(library, model, [Atoms('OH', positions=[(0, 0, 0), (0, 0, 50)])], 6.0)[0]['energy'].item()
    assert abs(expected - wrong) > 1e-5
    assert engine.evaluate(Frames.from_ase([pair]), ALL).energies[0] == pytest.approx(expected, abs=1e-11)


def test_largest_cutoff_of_all_modules_counts(library: Any, make_model: Callable[..., Any]) -> None:
    """Charges that interact farther away than the network looks."""
    atomistic = library.atomistic

    def outputs(cutoff: float | None) -> tuple[Any, ...]:
        return (
            atomistic.DipoleMoment(n_in=8, return_charges=True),
            atomistic.EnergyCoulomb('kcal/mol', 'Angstrom', atomistic.CoulombPotential(), 'coulomb', cutoff=cutoff),
            atomistic.Atomwise(n_in=8, output_key='short'),
            atomistic.Aggregation(['short', 'coulomb'], output_key='energy'),
        )

    model = make_model('SchNet', outputs=outputs(9.0))
    model.input_modules.append(atomistic.FilterShortRange(4.0))
    engine = engine_of(library, model)
    assert engine.cutoff == 9.0
    atoms = molecule('H2O') + Atoms('O', positions=[(0, 0, 6.0)])
    expected = ask_library(library, model, [atoms], 9.0)[0]
    found = engine.evaluate(Frames.from_ase([atoms]), frozenset({'forces'}))
    assert found.energies[0] == pytest.approx(expected['energy'].item(), abs=1e-9)
    np.testing.assert_allclose(found.forces, expected['energy_forces'], atol=1e-9)
    with pytest.raises(WorkerError, match='leave atomic_energies out') as caught:
        engine.evaluate(Frames.from_ase([atoms]), frozenset({'atomic_energies'}))
    assert caught.value.label == 'ERROR_PROPERTY_UNAVAILABLE'
    with pytest.raises(WorkerError, match='how far EnergyCoulomb looks'):
        engine_of(library, make_model('SchNet', outputs=outputs(None)))
    assert engine_of(library, make_model('SchNet', outputs=outputs(None)), cutoff=7.5).cutoff == 7.5


@pytest.mark.parametrize('cast', [False, True])
def test_offsets_are_added_once_and_in_double_precision(
    library: Any, make_model: Callable[..., Any], cast: bool
) -> None:
    """The network is in single precision; an energy of millions of kcal/mol has to keep its digits all the same."""
    import torch

    transforms = library.transform
    offsets = transforms.AddOffsets('energy', add_mean=True, add_atomrefs=True)
    offsets.atomref = torch.zeros(100, dtype=torch.float64)
    offsets.atomref[8] = -1234567.123456789
    offsets.mean = torch.tensor([-0.123456789], dtype=torch.float64)
    first = (transforms.CastTo64(),) if cast else ()
    plain = make_model('PaiNN')
    model = make_model('PaiNN', postprocessors=(*first, offsets))
    frames = Frames.from_ase([molecule('H2O'), Atoms('O2', positions=[(0, 0, 0), (0, 0, 1.2)])])
    bare = engine_of(library, plain, 'double').evaluate(frames, ALL)
    found = engine_of(library, model, 'single').evaluate(frames, ALL)
    expected = bare.energies + np.array([1, 2]) * -1234567.123456789 + np.array([3, 2]) * -0.123456789
    np.testing.assert_allclose(found.energies, expected, atol=5e-5, rtol=0)
    sums = np.add.reduceat(found.atomic_energies, frames.offsets[:-1])
    np.testing.assert_allclose(sums, found.energies, atol=1e-5, rtol=0)
    model.do_postprocessing = False
    np.testing.assert_allclose(engine_of(library, model).evaluate(frames, ALL).energies, bare.energies, atol=1e-10)


def test_forces_are_those_of_the_scaled_energy(library: Any, make_model: Callable[..., Any]) -> None:
    """A model may scale its energy after the forces were taken; the library's forces are not its derivative then."""
    import torch

    scale = library.transform.ScaleProperty('energy', scale=torch.tensor([3.0]))
    frames = Frames.from_ase([molecule('CH4')])
    plain = engine_of(library, make_model('PaiNN')).evaluate(frames, ALL)
    scaled = engine_of(library, make_model('PaiNN', postprocessors=(scale,))).evaluate(frames, ALL)
    np.testing.assert_allclose(scaled.energies, 3 * plain.energies, atol=1e-10)
    np.testing.assert_allclose(scaled.forces, 3 * plain.forces, atol=1e-10)
    np.testing.assert_allclose(scaled.atomic_energies, 3 * plain.atomic_energies, atol=1e-10)


def test_average_and_intensive_offsets(library: Any, make_model: Callable[..., Any]) -> None:
    import torch

    offsets = library.transform.AddOffsets('energy', add_mean=True, add_atomrefs=True, is_extensive=False)
    offsets.atomref, offsets.mean = torch.linspace(0, -990, 100), torch.tensor([-3.0])
    outputs = (library.atomistic.Atomwise(n_in=8, output_key='energy', aggregation_mode='avg'),)
    model = make_model('SchNet', outputs=outputs, postprocessors=(offsets,))
    atoms = molecule('H2O')
    frames = Frames.from_ase([atoms])
    found = engine_of(library, model).evaluate(frames, ALL)
    assert found.energies[0] == pytest.approx(ask_library(library, model, [atoms], 4.0)[0]['energy'].item(), abs=1e-6)
    assert found.atomic_energies.sum() == pytest.approx(found.energies[0], abs=1e-9)


def test_model_without_forces_module_and_with_its_own_names(library: Any, make_model: Callable[..., Any]) -> None:
    frames = Frames.from_ase([molecule('C2H6')])
    reference = engine_of(library, make_model('SchNet')).evaluate(frames, ALL)
    for model in (make_model('SchNet', forces=False), make_model('SchNet', key='U0')):
        found = engine_of(library, model).evaluate(frames, ALL)
        np.testing.assert_array_equal(found.energies, reference.energies)
        np.testing.assert_array_equal(found.forces, reference.forces)
    assert engine_of(library, make_model('SchNet', key='U0')).energy_key == 'U0'


def test_energy_among_several_outputs(library: Any, make_model: Callable[..., Any]) -> None:
    def outputs() -> tuple[Any, ...]:
        return tuple(library.atomistic.Atomwise(n_in=8, output_key=key) for key in ('gap', 'U0'))

    with pytest.raises(WorkerError, match=r"gap, U0.*option 'energy_key'"):
        engine_of(library, make_model(outputs=outputs(), forces=False))
    assert engine_of(library, make_model(outputs=outputs(), forces=False), energy_key='U0').energy_key == 'U0'
    with pytest.raises(WorkerError, match="no output 'energy'; its outputs are gap, U0"):
        engine_of(library, make_model(outputs=outputs(), forces=False), energy_key='energy')
    wide = (library.atomistic.Atomwise(n_in=8, n_out=3, output_key='energy'),)
    with pytest.raises(WorkerError, match=r"gives 3 values of 'energy' for 1 structures"):
        engine_of(library, make_model(outputs=wide)).evaluate(Frames.from_ase([molecule('H2O')]), frozenset())


def test_model_that_knows_charges(library: Any, make_model: Callable[..., Any]) -> None:
    import torch

    def charged() -> Any:
        model = make_model('PaiNN')
        torch.manual_seed(1)
        embedding = library.nn.ElectronicEmbedding('total_charge', 8, is_charged=True)
        with torch.no_grad():
            for parameter in embedding.parameters():
                parameter.add_(0.1)
        model.representation.electronic_embeddings.append(embedding)
        return model

    with pytest.raises(WorkerError, match=r"depends on total_charge.*option 'total_charge'"):
        engine_of(library, charged())
    frames = Frames.from_ase([molecule('H2O'), molecule('CH4')])
    neutral, anion = (engine_of(library, charged(), total_charge=q).evaluate(frames, ALL).energies for q in (0, -1))
    assert (np.abs(neutral - anion) > 1e-5).all()


def test_unknown_ending_is_refused(library: Any, make_model: Callable[..., Any]) -> None:
    model = make_model('SchNet', postprocessors=(library.transform.SubtractCenterOfMass(),))
    with pytest.raises(WorkerError, match='ends in a SubtractCenterOfMass'):
        engine_of(library, model)


def test_element_beyond_the_table(library: Any, make_model: Callable[..., Any]) -> None:
    with pytest.raises(FrameError, match='no such element'):
        engine_of(library, make_model('SchNet')).evaluate(Frames.from_ase([Atoms(numbers=[101])]), frozenset())


def test_one_bad_frame_does_not_spoil_the_others(library: Any, make_model: Callable[..., Any]) -> None:
    good = molecule('CH3OH')
    bad = Atoms('OH', positions=np.zeros((2, 3)), cell=np.eye(3) * 5, pbc=True)
    engine = engine_of(library, make_model('PaiNN'))
    alone = engine.evaluate(Frames.from_ase([good]), ALL)
    found = engine.evaluate(Frames.from_ase([good, bad, good]), ALL)
    assert np.isnan(found.energies[1])
    np.testing.assert_allclose(found.energies[[0, 2]], alone.energies[0], atol=1e-11)
    np.testing.assert_allclose(found.forces[:6], alone.forces, atol=1e-11)
    np.testing.assert_allclose(found.forces[-6:], alone.forces, atol=1e-11)


def test_far_from_the_origin(library: Any, make_model: Callable[..., Any]) -> None:
    """Distances are taken in double precision, so that single precision loses nothing for atoms that drifted away."""
    atoms = molecule('CH3OH')
    engine = engine_of(library, make_model('PaiNN'), 'single')
    near = engine.evaluate(Frames.from_ase([atoms]), frozenset({'forces'}))
    atoms.positions += 4000.0
    far = engine.evaluate(Frames.from_ase([atoms]), frozenset({'forces'}))
    np.testing.assert_allclose(far.energies, near.energies, atol=2e-6)
    np.testing.assert_allclose(far.forces, near.forces, atol=2e-6)
