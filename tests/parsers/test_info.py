"""The results file as a file from elsewhere: what no worker writes is refused with a reason."""

from __future__ import annotations

import json

import pytest

from aiida_mlpotential.parsers.info import read_info

GOOD = {'format_version': 1, 'results_version': 1, 'state': 'finished', 'timings': {'total': 1.5}, 'num_threads': None}


def _text(**changes) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def test_what_a_worker_writes_is_read():
    info = read_info(_text(notes=['λ']) + b' ' * 1000)
    assert info['timings'] == {'total': 1.5}
    assert info['notes'] == ['λ']
    assert 'num_threads' not in info


@pytest.mark.parametrize(
    ('content', 'text'),
    [
        (b'', 'Expecting value'),
        (b'[1]', 'no JSON object'),
        (b'\xff\xfe', 'decode'),
        (b'[' * 100_000, 'nested too deeply'),
        (b' ' * (1 << 24) + b'{}', 'more than any worker writes'),
        (_text(timings={'total': float('nan')}), 'NaN'),
        (_text(format_version=True), 'format_version'),
        (_text(results_version='1'), 'results_version'),
        (_text(state=None), 'state'),
        (_text(state='asleep'), 'asleep'),
        (_text(messages=['x']), 'messages'),
        (_text(messages={'-1': 'x'}), 'no index'),
        (_text(units={'energies': 3}), 'units'),
        (_text(error={'label': 3}), 'error'),
    ],
)
def test_what_no_worker_writes_is_refused(content, text):
    with pytest.raises(ValueError, match=text):
        read_info(content)


def test_temperatures_are_numbers_of_kelvins():
    assert read_info(_text(temperatures=[298.15, 300]))['temperatures'] == [298.15, 300]
    for value in ('warm', [0], [-3.0], [True], ['x'], [1e300], {'a': 1}):
        with pytest.raises(ValueError, match='temperatures'):
            read_info(_text(temperatures=value))
