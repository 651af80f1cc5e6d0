"""A small model with all its sources, in a home directory of its own."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from aiida_mlpotential.library import settings, sources
from aiida_mlpotential.worker.backends.torchani.parameters import AniParameters, Layer
from aiida_mlpotential.worker.frames import sha256_of
from aiida_mlpotential.worker.registry import ANI_FAMILIES, PRETRAINED, PretrainedModel


@dataclasses.dataclass
class Sample:
    """A model of the registry, its canonical file and a wheel that holds it."""

    model: PretrainedModel
    content: bytes
    wheel: bytes

    def put(self, directory: Path, content: bytes | None = None) -> Path:
        """Write the canonical file, or something else under its name."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / self.model.file
        path.write_bytes(self.content if content is None else content)
        return path


def _parameters() -> AniParameters:
    random = np.random.default_rng(1)
    layers = [
        Layer(random.normal(size=(2, width, inputs)).astype('f4'), random.normal(size=(2, width)).astype('f4'))
        for inputs, width in ((48, 4), (4, 1))
    ]
    return AniParameters(('H',), ANI_FAMILIES['ani1x'], np.array([-0.5]), {'H': layers})


def _wheel(parameters: AniParameters, directory: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w') as archive:
        archive.writestr('torchani/__init__.py', 'raise RuntimeError("nobody imports this")')
        archive.writestr('../../escaped.txt', 'outside')
        archive.writestr(f'{directory}/train0/networks/../../../../escaped-ANN-H.nnf-l1.wparam', 'outside')
        archive.writestr(f'{directory}/train0/networks/ANN-H.nnf', 'text that torchani evaluates')
        for index, layer in enumerate(parameters.networks['H'], start=1):
            for member in range(2):
                stem = f'{directory}/train{member}/networks/ANN-H.nnf-l{index}'
                archive.writestr(f'{stem}.wparam', layer.weight[member].tobytes())
                archive.writestr(f'{stem}.bparam', layer.bias[member].tobytes())
        archive.writestr(f'../{directory}/train0/networks/ANN-H.nnf-l1.wparam', 'outside')
    return stream.getvalue()


@pytest.fixture
def sample(monkeypatch: pytest.MonkeyPatch) -> Sample:
    """Return a small model that the registry knows for the time of the test."""
    parameters, stream = _parameters(), io.BytesIO()
    parameters.write(stream)
    model = PretrainedModel(
        name='ANI-test',
        family='ani1x',
        elements=('H',),
        ensemble_size=2,
        method='none',
        doi='10.1/x',
        licence='MIT',
        self_energies=(-0.5,),
        sha256=sha256_of(stream.getvalue()),
        state_dict='anitest_state_dict.pt',
        wheel_directory='torchani/resources/ani-test',
    )
    wheel = _wheel(parameters, model.wheel_directory)
    monkeypatch.setitem(PRETRAINED, model.name, model)
    monkeypatch.setattr(sources, 'WHEEL_SHA256', sha256_of(wheel))
    return Sample(model, stream.getvalue(), wheel)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the tests away from the user's directories and from the network."""
    home = tmp_path / 'home'
    monkeypatch.setenv('XDG_CONFIG_HOME', str(home / 'config'))
    monkeypatch.setenv('XDG_CACHE_HOME', str(home / 'cache'))
    monkeypatch.delenv(settings.MODELS_VARIABLE, raising=False)
    return home
