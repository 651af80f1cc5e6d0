"""Figures are no part of pyplot's state; the suffix says the format."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from aiida_mlpotential.plots.figures import COLOURS, PlotError, formats, new_figure, save


def test_axes_side_by_side_without_pyplot():
    loaded = 'matplotlib.pyplot' in sys.modules
    figure, axes = new_figure(6, 3, 2)
    assert len(axes) == len(figure.axes) == 2
    assert ('matplotlib.pyplot' in sys.modules) == loaded
    assert len(set(COLOURS)) == len(COLOURS)


@pytest.mark.parametrize('suffix', ['png', 'svg', 'pdf', 'PNG'])
def test_formats(tmp_path: Path, suffix: str):
    figure, _ = new_figure(2, 2)
    save(figure, tmp_path / f'picture.{suffix}')
    assert (tmp_path / f'picture.{suffix}').stat().st_size > 500
    assert suffix.lower() in formats()


@pytest.mark.parametrize(('name', 'message'), [('x.doc', "'.doc' is none"), ('x', 'there is none')])
def test_unknown_formats(tmp_path: Path, name: str, message: str):
    figure, _ = new_figure(2, 2)
    with pytest.raises(PlotError, match=message):
        save(figure, tmp_path / name)


def test_a_file_that_cannot_be_written(tmp_path: Path):
    figure, _ = new_figure(2, 2)
    with pytest.raises(PlotError, match='cannot be written'):
        save(figure, tmp_path / 'nowhere' / 'x.png')


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, 'matplotlib.figure', None)
    with pytest.raises(PlotError, match=r"pip install 'aiida-mlpotential\[plots\]'"):
        new_figure(2, 2)
