"""The spread of a reaction is that of the reaction energies of the members: common errors cancel."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_mlpotential.data.reactions import SYMBOLS, Difference, ReactionError, SpeciesThermochemistry, settings_of
from aiida_mlpotential.data.results import ResultsData
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.ideal_gas import thermochemistry_of
from aiida_mlpotential.worker.thermochemistry import Settings

SETTINGS = Settings(temperatures=(298.15, 500.0))
COEFFICIENTS = np.array([-2.0, 1.0, 1.0])


def test_common_errors_cancel():
    values = np.array([1.0, 6.0])
    members = np.array([[1.0, 6.0], [2.0, 7.0], [3.0, 8.0]])
    found = Difference.of([-1, 1], values, members)
    assert found.value == pytest.approx(5.0)
    assert found.std == pytest.approx(0.0, abs=1e-12)
    assert found.combined == pytest.approx(np.sqrt(2))


def test_sample_standard_deviation_of_the_members():
    members = np.array([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0], [0.0, 6.0]])
    found = Difference.of([-1, 1], members.mean(axis=0), members)
    assert found.value == pytest.approx(3.0)
    assert found.std == pytest.approx(np.std([1, 2, 3, 6], ddof=1))
    assert found.combined == pytest.approx(found.std)


def test_coefficients_multiply_errors():
    members = np.array([[1.0, 0.0], [2.0, 0.0]])
    found = Difference.of([-3, 1], members.mean(axis=0), members)
    assert found.value == pytest.approx(-4.5)
    assert found.members.tolist() == [-3.0, -6.0]
    assert found.combined == pytest.approx(3 * np.sqrt(0.5))


def test_one_member_has_no_spread():
    found = Difference.of([-1, 1], np.array([1.0, 3.0]), np.array([[1.0, 3.0]]))
    assert (found.value, found.std, found.combined) == (2.0, None, None)
    assert Difference.of([-1, 1], np.array([1.0, 3.0])).std is None


@pytest.mark.parametrize(('values', 'members'), [((3,), None), ((2,), (5, 3)), ((2, 4), (5, 2))])
def test_shapes_that_do_not_go_together(values, members):
    with pytest.raises(ValueError, match='2 coefficients do not go with'):
        Difference.of([-1, 1], np.zeros(values), None if members is None else np.zeros(members))


def _arrays(shift=0.0, soft=50.0):
    """Return three bent molecules of three atoms and four members, whose modes differ."""
    random = np.random.default_rng(1)
    frequencies = np.zeros((3, 9))
    frequencies[:, 6:] = [[soft, 1600.0, 3000.0], [300.0, 1500.0, 3600.0], [700.0, 1200.0, 3100.0]]
    members = np.repeat(frequencies[None], 4, axis=0)
    members[:, :, 6:] *= 1 + 0.02 * random.normal(size=(4, 3, 3))
    energies = np.array([-10.0, -9.0, -11.5])
    return {
        'energies': energies,
        'member_energies': energies + shift * np.arange(4)[:, None] + 0.1 * random.normal(size=(4, 3)),
        'frequencies': frequencies.reshape(-1),
        'member_frequencies': members.reshape(4, -1),
        'n_rigid': np.full(3, 6),
    }


def _frames():
    from ase.build import molecule

    return Frames.from_ase([molecule(name) for name in ('H2O', 'SO2', 'HCl')][:1] * 3)


def _results(arrays, settings=SETTINGS, status=(0, 0, 0)):
    frames = _frames()
    derived = thermochemistry_of(frames, arrays, settings, 1)
    real = arrays['frequencies'].reshape(3, -1)
    derived['zero_point_energies'] = 0.5 * 1.23984198e-4 * np.where(real > 0, real, 0).sum(axis=1)
    node = ResultsData()
    for name, values in {**arrays, **derived, 'status': np.array(status, 'i1'), 'offsets': frames.offsets}.items():
        node.set_array(name, values)
    node.base.attributes.set_many(
        {
            'n_frames': 3,
            'messages': {},
            'temperatures': list(settings.temperatures),
            'settings': {'gas_pressure': settings.gas_pressure, 'low_frequency_cutoff': settings.low_frequency_cutoff},
        }
    )
    return node


def _alone(arrays, member):
    """Return the thermochemistry of a member on its own, as if there were no others."""
    own = {**arrays, 'energies': arrays['member_energies'][member], 'frequencies': arrays['member_frequencies'][member]}
    del own['member_energies'], own['member_frequencies']
    return SpeciesThermochemistry.of(_results(own)).values


@pytest.mark.usefixtures('aiida_profile')
class TestSpecies:
    def test_each_member_has_what_it_would_have_alone(self):
        """All quantities of a member are those of a job with this member only."""
        arrays = _arrays()
        species = SpeciesThermochemistry.of(_results(arrays))
        assert set(species.members) == set(SYMBOLS)
        for member in range(4):
            for name, expected in _alone(arrays, member).items():
                np.testing.assert_allclose(species.members[name][member], expected, rtol=0, atol=1e-7, err_msg=name)

    def test_a_reaction_at_two_temperatures(self):
        arrays = _arrays()
        found = SpeciesThermochemistry.of(_results(arrays)).reaction(COEFFICIENTS)
        assert {name: item.value.shape for name, item in found.items()} == dict.fromkeys(SYMBOLS, (2,))
        assert found['energy'].value == pytest.approx(-0.5)
        gibbs = np.array([_alone(arrays, member)['gibbs_energy'] for member in range(4)])
        expected = np.einsum('n,mnt->mt', COEFFICIENTS, gibbs)
        np.testing.assert_allclose(found['gibbs_energy'].members, expected, atol=1e-7)
        np.testing.assert_allclose(found['gibbs_energy'].std, expected.std(axis=0, ddof=1), atol=1e-7)
        parts = found['enthalpy'].value + found['entropy_term'].value
        np.testing.assert_allclose(found['gibbs_energy'].value, parts, atol=1e-12)

    def test_an_error_that_all_species_share_cancels(self):
        """A shift of all energies of a member by the same amount does not reach a reaction that keeps their number."""
        plain = SpeciesThermochemistry.of(_results(_arrays())).reaction(COEFFICIENTS)
        shifted = SpeciesThermochemistry.of(_results(_arrays(shift=5.0))).reaction(COEFFICIENTS)
        for name in SYMBOLS:
            np.testing.assert_allclose(shifted[name].std, plain[name].std, atol=1e-9)
        assert (shifted['gibbs_energy'].combined > 10).all()

    def test_members_without_modes_have_energies_only(self):
        """As of a backend without forces of members: no NaN may stand where a spread is expected, or be stored."""
        arrays = _arrays()
        results = _results(arrays)
        results.set_array('member_frequencies', np.full_like(arrays['member_frequencies'], np.nan))
        results.set_array('member_gibbs_energies', np.full_like(results.get_array('member_gibbs_energies'), np.nan))
        found = SpeciesThermochemistry.of(results).reaction(COEFFICIENTS)
        assert np.isfinite(found['energy'].std).all()
        assert all(found[name].std is None for name in SYMBOLS if name != 'energy')

    def test_a_soft_mode_of_one_member_adds_no_spread(self):
        arrays = _arrays()
        arrays['member_frequencies'][2, 6] = -30.0
        members = SpeciesThermochemistry.of(_results(arrays)).members
        arrays['member_frequencies'][:, 6] = arrays['frequencies'][6]
        expected = SpeciesThermochemistry.of(_results(arrays)).members
        for name in SYMBOLS:
            np.testing.assert_allclose(members[name], expected[name], atol=1e-12)

    def test_a_mode_below_the_cutoff_counts_in_quasi_rrho_only(self):
        arrays = _arrays(soft=10.0)
        species = SpeciesThermochemistry.of(_results(arrays))
        arrays['member_frequencies'][1, 6] *= 1.1
        changed = SpeciesThermochemistry.of(_results(arrays))
        for name in ('enthalpy', 'gibbs_energy', 'entropy_term', 'gibbs_energy_quasi_rrho'):
            np.testing.assert_allclose(changed.members[name], species.members[name], atol=1e-12)
        assert np.isfinite(changed.members['gibbs_energy_quasi_rrho']).all()

    def test_the_same_modes_count_for_all_members(self):
        """A mode that is too low for the mean counts for no member, however high it is there, but in quasi-RRHO."""
        arrays = _arrays(soft=15.0)
        arrays['member_frequencies'][:, 6] = [25.0, 26.0, 27.0, 28.0]
        species = SpeciesThermochemistry.of(_results(arrays))
        arrays['member_frequencies'][:, 6] = [45.0, 26.0, 67.0, 28.0]
        changed = SpeciesThermochemistry.of(_results(arrays))
        for name in ('enthalpy', 'gibbs_energy', 'entropy_term'):
            np.testing.assert_allclose(changed.members[name], species.members[name], atol=1e-12)
        shift = changed.members['gibbs_energy_quasi_rrho'] - species.members['gibbs_energy_quasi_rrho']
        assert (np.abs(shift[[0, 2], 0]) > 1e-3).all()

    def test_without_an_ensemble_there_are_values_only(self):
        arrays = _arrays()
        del arrays['member_energies'], arrays['member_frequencies']
        found = SpeciesThermochemistry.of(_results(arrays)).reaction(COEFFICIENTS)
        assert all(item.std is None for item in found.values())
        assert np.isfinite(found['gibbs_energy'].value).all()

    def test_without_modes_of_the_members_only_the_energy_has_a_spread(self):
        arrays = _arrays()
        del arrays['member_frequencies']
        found = SpeciesThermochemistry.of(_results(arrays)).reaction(COEFFICIENTS)
        assert [name for name, item in found.items() if item.std is not None] == ['energy']
        members = arrays['member_energies'] @ COEFFICIENTS
        np.testing.assert_allclose(found['energy'].std, members.std(ddof=1))

    def test_a_species_without_thermochemistry_is_named(self):
        arrays = _arrays()
        arrays['energies'][1] = np.nan
        with pytest.raises(ReactionError, match='species 1 has no thermochemistry: NOT_CONVERGED'):
            SpeciesThermochemistry.of(_results(arrays, status=(0, 11, 0)))

    def test_other_results_have_no_gibbs_energies(self):
        node = ResultsData()
        node.set_array('energies', np.zeros(1))
        with pytest.raises(ReactionError, match='must be those of thermochemistry'):
            SpeciesThermochemistry.of(node)

    def test_conditions_are_those_of_the_results(self):
        assert settings_of(_results(_arrays())) == SETTINGS
