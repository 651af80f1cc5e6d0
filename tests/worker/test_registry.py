"""The registry: facts of the papers, complete for every model."""

from __future__ import annotations

import re

import numpy as np
import pytest

from aiida_mlpotential.worker.registry import ANI_FAMILIES, DEFAULT_MODEL, PRETRAINED


@pytest.mark.parametrize('model', PRETRAINED.values(), ids=PRETRAINED)
def test_a_model_is_described_in_full(model):
    assert model.family in ANI_FAMILIES
    assert len(model.self_energies) == len(model.elements)
    assert model.ensemble_size == 8
    assert re.fullmatch(r'[0-9a-f]{64}', model.sha256)
    assert model.doi.startswith('10.')
    assert model.method and model.licence == 'MIT'


def test_the_hashes_differ():
    assert len({model.sha256 for model in PRETRAINED.values()}) == len(PRETRAINED)


def test_the_default_is_that_of_ams():
    assert DEFAULT_MODEL == 'ANI-2x'


def test_the_constants_are_those_of_the_published_files_in_single_precision():
    family = ANI_FAMILIES['ani1x']
    np.testing.assert_array_equal(family.radial_shifts[:3], np.float32([9.0e-01, 1.16875e00, 1.4375e00]))
    np.testing.assert_allclose(family.angular_sections[:2], [1.9634954e-01, 5.8904862e-01], rtol=1e-7)
    assert np.float32(family.angular_sections).tolist() == list(family.angular_sections)
    assert ANI_FAMILIES['ani2x'].angular_zeta == np.float32(14.1)
