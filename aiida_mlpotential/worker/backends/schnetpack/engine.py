"""Evaluate a network of SchNetPack for a flat batch, and differentiate its energy.

The network is run module by module. Positions, cells and neighbour vectors are made in double precision and only then
rounded to the precision of the network; the postprocessors, which add millions of kcal/mol, run in double precision.
Forces and stress are always derivatives of the energy that is returned, whatever response modules the model carries:
the sum over atoms is that of equation 1 in Schuett et al., Nat. Commun. 8 (2017) 13890, doi:10.1038/ncomms13890.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import FrameError, FrameStatus, WorkerError
from ...frames import FloatArray, Frames
from ...neighbors import find_half_pairs
from ...stress import stress_of_strain
from ..base import Evaluation
from ..hessians import rows_by_autograd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_ATOMIC = '_atomic_energies'


@dataclasses.dataclass(frozen=True)
class Units:
    """What one unit of the model is in eV and angstrom."""

    energy: float
    distance: float


class Engine:
    """A network on its device, ready for batches.

    :ivar cutoff: in the model's unit of length
    :ivar energy_key: under which the network writes the energy
    """

    def __init__(
        self, library: Any, model: Any, units: Units, device: str, precision: str, options: Mapping[str, Any]
    ) -> None:
        import torch

        self._spk = library
        self._units = units
        self._device = device
        self._dtype = torch.float64 if precision == 'double' else torch.float32
        self.energy_key = _find_energy_key(library, model, options)
        self.cutoff = _find_cutoff(model, options)
        # Copied before the network is rounded: reference energies have more digits than single precision keeps.
        ending = _postprocessors(library, model, self.energy_key)
        self._postprocessors = [copy.deepcopy(module).to(device=device, dtype=torch.float64) for module in ending]
        self._model = model.to(device=device, dtype=self._dtype)
        self._extra = {key: float(options[key]) for key in ('total_charge', 'spin_multiplicity') if key in options}
        self._check_embeddings()
        response = (library.atomistic.Forces, library.atomistic.Response)
        own = (library.atomistic.Strain, library.atomistic.PairwiseDistances)
        self._inputs = [module for module in model.input_modules if not isinstance(module, own)]
        self._outputs = [module for module in model.output_modules if not isinstance(module, response)]
        self._atomwise = self._find_atomwise()

    def _check_embeddings(self) -> None:
        for module in getattr(self._model.representation, 'electronic_embeddings', ()):
            key = str(module.property_key)
            if key not in self._extra:
                raise WorkerError(
                    'ERROR_MODEL_UNSUPPORTED',
                    f'the model depends on {key}, which structures do not carry: state one for all as option {key!r}',
                )

    def _find_atomwise(self) -> Any:
        """Return the module whose atomic values sum to the energy, made to keep them; ``None`` where there is none."""
        modules = [
            module
            for module in self._outputs
            if isinstance(module, self._spk.atomistic.Atomwise) and module.output_key == self.energy_key
        ]
        if len(modules) != 1 or modules[0].aggregation_mode not in ('sum', 'avg'):
            return None
        if modules[0].per_atom_output_key is None:
            modules[0].per_atom_output_key = _ATOMIC
        return modules[0]

    def evaluate(self, frames: Frames, request: frozenset[str]) -> Evaluation:
        """Return energies and what was asked for, in eV and angstrom."""
        import torch

        if 'atomic_energies' in request and self._atomwise is None:
            raise WorkerError(
                'ERROR_PROPERTY_UNAVAILABLE',
                'the energy of this model is not a sum over atoms of one module: leave atomic_energies out',
            )
        forces, stress = 'forces' in request, 'stress' in request
        with torch.set_grad_enabled(forces or stress):
            positions, strain, inputs = self._prepare(frames, forces, stress)
            energies, outputs = self._run(inputs, len(frames))
            leaves = [leaf for leaf, wanted in ((positions, forces), (strain, stress)) if wanted]
            gradients = [torch.zeros_like(leaf) for leaf in leaves]
            if leaves and energies.requires_grad:  # isolated atoms alone depend on nothing
                found = torch.autograd.grad([energies.sum()], leaves, materialize_grads=True, allow_unused=True)
                gradients = list(found)
        unit = self._units.energy
        result = Evaluation(energies=_numpy(energies) * unit)
        if forces:
            result = dataclasses.replace(result, forces=_numpy(gradients[0]) * (-unit / self._units.distance))
        if stress:
            result = dataclasses.replace(result, stress=stress_of_strain(_numpy(gradients[-1]) * unit, frames))
        if 'atomic_energies' in request:
            result = dataclasses.replace(result, atomic_energies=self._atomic(outputs, frames, result.energies))
        return result

    def hessians(self, frames: Frames) -> FloatArray:
        """Return second derivatives of the energies, flat, eV/angstrom^2."""
        import torch

        with torch.enable_grad():
            positions, _, inputs = self._prepare(frames, forces=True, stress=False)
            energies, _ = self._run(inputs, len(frames))
            gradient = torch.zeros_like(positions)
            if energies.requires_grad:
                (gradient,) = torch.autograd.grad([energies.sum()], [positions], create_graph=True)
        return rows_by_autograd(gradient, positions, frames) * (self._units.energy / self._units.distance**2)

    def _prepare(self, frames: Frames, forces: bool, stress: bool) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Make the inputs of the network; the first two are what is differentiated by."""
        import torch

        keys = self._spk.properties

        def put(array: Any) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

        pairs = find_half_pairs(
            frames.positions, frames.offsets, frames.cells, frames.pbc, self.cutoff * self._units.distance
        )
        cells = np.where(frames.pbc[..., None], frames.cells, 0.0)
        translations = np.einsum('pc,pcx->px', pairs.shifts, cells[frames.frame_of_atom[pairs.first]])
        index_i = put(np.concatenate([pairs.first, pairs.second]))
        index_j = put(np.concatenate([pairs.second, pairs.first]))
        offsets = put(np.concatenate([translations, -translations]) / self._units.distance)
        positions = put(frames.positions / self._units.distance).requires_grad_(forces)
        cell = put(frames.cells / self._units.distance)
        strain = torch.zeros((len(frames), 3, 3), dtype=torch.float64, device=self._device).requires_grad_(stress)
        frame = put(frames.frame_of_atom)
        moved = positions
        if stress:
            moved = positions + torch.einsum('ax,axy->ay', positions, strain[frame])
            offsets = offsets + torch.einsum('px,pxy->py', offsets, strain[frame[index_i]])
            cell = cell + cell @ strain
        vectors = moved[index_j] - moved[index_i] + offsets
        inputs = {
            keys.idx: torch.arange(len(frames), device=self._device),
            keys.Z: put(frames.numbers.astype(np.int64)),
            keys.n_atoms: put(frames.counts),
            keys.idx_m: frame,
            keys.idx_i: index_i,
            keys.idx_j: index_j,
            keys.idx_i_lr: index_i,
            keys.idx_j_lr: index_j,
            keys.pbc: put(frames.pbc),
            keys.R: moved.to(self._dtype),
            keys.cell: cell.to(self._dtype),
            keys.offsets: offsets.to(self._dtype),
            keys.Rij: vectors.to(self._dtype),
            keys.Rij_lr: vectors.to(self._dtype),
        }
        for key, value in self._extra.items():
            inputs[key] = torch.full((len(frames),), value, dtype=self._dtype, device=self._device)
        return positions, strain, inputs

    def _run(self, inputs: dict[str, Tensor], n_frames: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the network, and the postprocessors once; return the energies in double precision."""
        import torch

        try:
            for module in (*self._inputs, self._model.representation, *self._outputs):
                inputs = module(inputs)
        except IndexError as exception:  # the only tables are those of the elements
            message = f'the model has no such element: {exception}'
            raise FrameError(FrameStatus.UNSUPPORTED_ELEMENT, message) from None
        raw = inputs[self.energy_key]
        if raw.numel() != n_frames:
            raise WorkerError(
                'ERROR_MODEL_UNSUPPORTED',
                f'the model gives {raw.numel()} values of {self.energy_key!r} for {n_frames} structures: '
                "name the energy with the option 'energy_key'",
            )
        keys = self._spk.properties
        processed = {key: inputs[key] for key in (keys.Z, keys.n_atoms, keys.idx_m)}
        processed[self.energy_key] = raw.reshape(n_frames).to(torch.float64)
        for module in self._postprocessors:
            processed = module(processed)
        return processed[self.energy_key], inputs

    def _atomic(self, outputs: dict[str, Tensor], frames: Frames, energies: FloatArray) -> FloatArray:
        """Return the energy of each atom with its share of the offsets, eV, ``(A,)``."""
        transforms = self._spk.transform
        counts = np.repeat(frames.counts, frames.counts)
        values = _numpy(outputs[self._atomwise.per_atom_output_key]).reshape(-1)
        if self._atomwise.aggregation_mode == 'avg':
            values = values / counts
        for module in self._postprocessors:
            if isinstance(module, transforms.ScaleProperty):
                values = values * _numpy(module.scale).reshape(-1)
            elif isinstance(module, transforms.AddOffsets):
                share = 1 if module.is_extensive else counts
                if module.add_mean:
                    values = values + _numpy(module.mean).reshape(-1) / share
                if module.add_atomrefs:
                    values = values + _numpy(module.atomref).reshape(-1)[frames.numbers] / share
        values = values * self._units.energy
        sums = np.add.reduceat(values, frames.offsets[:-1])
        wrong = np.abs(sums - energies) > 1e-5 * frames.counts + 1e-9 * np.abs(energies)
        if wrong.any():
            raise WorkerError(
                'ERROR_PROPERTY_UNAVAILABLE',
                'what this model adds to its energy cannot be shared among the atoms: leave atomic_energies out',
            )
        return values


def _numpy(tensor: Tensor) -> FloatArray:
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float64)


def _find_energy_key(library: Any, model: Any, options: Mapping[str, Any]) -> str:
    """Return the name of the energy among the outputs of the network."""
    written = [str(module.output_key) for module in model.output_modules if hasattr(module, 'output_key')]
    asked = options.get('energy_key')
    if asked is not None:
        if asked in written:
            return str(asked)
        raise WorkerError(
            'ERROR_MODEL_UNSUPPORTED', f'the model has no output {asked!r}; its outputs are {", ".join(written)}'
        )
    response = (library.atomistic.Forces, library.atomistic.Response)
    differentiated = {str(module.energy_key) for module in model.output_modules if isinstance(module, response)}
    for candidates in (differentiated, {'energy'} & set(written), set(written)):
        if len(candidates) == 1:
            return candidates.pop()
    raise WorkerError(
        'ERROR_MODEL_UNSUPPORTED',
        f'which output is the energy is not clear, there are {", ".join(written) or "none"}: '
        "name it with the option 'energy_key'",
    )


def _find_cutoff(model: Any, options: Mapping[str, Any]) -> float:
    """Return the largest distance at which anything in the model looks, in its unit.

    A neighbour list that ends before it gives wrong energies without a word.
    """
    found = []
    for module in model.modules():
        for name in ('cutoff', 'short_range_cutoff'):
            value = getattr(module, name, None)
            if value is not None and not callable(value):
                found.append(float(value))
    endless = [
        type(module).__name__
        for module in model.modules()
        if type(module).__name__ in ('EnergyCoulomb', 'EnergyEwald') and getattr(module, 'cutoff', None) is None
    ]
    asked = options.get('cutoff')
    if asked is not None:
        found.append(float(asked))
    elif endless or not found:
        raise WorkerError(
            'ERROR_MODEL_UNSUPPORTED',
            f'the model does not say how far {endless[0] if endless else "it"} looks: '
            "state the cutoff that it was trained with, in its unit of length, with the option 'cutoff'",
        )
    return max(found)


def _postprocessors(library: Any, model: Any, energy_key: str) -> list[Any]:
    """Return the postprocessors that change the energy; casts are left out, for it is in double precision already."""
    transforms = library.transform
    found = []
    for module in model.postprocessors if model.do_postprocessing else ():
        if isinstance(module, transforms.CastMap):
            continue
        if isinstance(module, transforms.ScaleProperty):
            concerned, same = module.input_key == energy_key, module.output_key == module.input_key
        elif isinstance(module, (transforms.AddOffsets, transforms.RemoveOffsets)):
            concerned, same = module._property == energy_key, True
        else:
            raise WorkerError(
                'ERROR_MODEL_UNSUPPORTED', f'the model ends in a {type(module).__name__}, which is not known here'
            )
        if concerned and not same:
            raise WorkerError(
                'ERROR_MODEL_UNSUPPORTED', f'the model writes its scaled energy elsewhere, to {module.output_key!r}'
            )
        if concerned:
            found.append(module)
    return found
