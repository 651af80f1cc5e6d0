"""What is refused before a screening begins."""

from __future__ import annotations

import pytest

from aiida_mlpotential.workflows.screening.validation import validate_screening


@pytest.mark.parametrize('label', ['structures', 'settings', 'metadata'])
def test_labels_that_mean_something_else_are_refused(label, emt_model):
    """They are names of other inputs of the function that ranks, which is called when everything is computed."""
    message = validate_screening({'structures': None, 'models': {label: emt_model}}, None)
    assert f'the label {label!r} is a name that is taken' in message


def test_labels_that_would_be_taken_apart_are_refused(emt_model):
    assert 'two underscores' in validate_screening({'structures': None, 'models': {'a__b': emt_model}}, None)
