"""Thermochemistry of minima: optimize, analyse, and leave saddle points along their imaginary modes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ProcessBuilder, ToContext, WorkChain, calcfunction, if_, while_

from aiida_mlpotential.calculations.base import define_subject
from aiida_mlpotential.calculations.geometry_optimization import GeometryOptimizationCalculation
from aiida_mlpotential.calculations.thermochemistry import ThermochemistryCalculation
from aiida_mlpotential.calculations.validation import validate_inputs
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.normal_modes import NormalModesData
from aiida_mlpotential.data.structures import StructureSetData, to_frames
from aiida_mlpotential.worker.errors import FrameStatus

from .minima import (
    displace_structure,
    displace_structures,
    labels_of,
    merge_minima,
    parameters_of_part,
    saddle_points,
)
from .ports import close_namespaces
from .protocol import ProtocolMixin, fill, merge
from .tasks import GeometryOptimizationBaseWorkChain, ThermochemistryBaseWorkChain

if TYPE_CHECKING:
    from aiida.orm import ProcessNode

#: Namespaces of the two jobs, each with the workflow that runs it and the calculation in that.
STAGES: dict[str, tuple[Any, Any]] = {
    'optimization': (GeometryOptimizationBaseWorkChain, GeometryOptimizationCalculation),
    'thermochemistry': (ThermochemistryBaseWorkChain, ThermochemistryCalculation),
}
#: Inputs of the calculations that this workflow gives itself.
_GIVEN = ('structure', 'structures', 'selection', 'model', 'parent_folder')
#: Atoms move so far at first, angstrom; each time a structure is a saddle point again, as far once more.
DISPLACEMENT = 0.1
MAX_DISPLACEMENTS = 3


@calcfunction
def summarize_minima(
    results: NormalModesData, displaced: orm.Dict, unoptimized: orm.Dict, left_at_saddle: orm.Dict
) -> orm.Dict:
    """Say how structures fared, and of a single one its thermochemistry.

    :param results: of all structures
    :param displaced: how many times structures were moved along imaginary modes, by their number
    :param unoptimized: the status of those whose optimization did not succeed, by their number
    :param left_at_saddle: why saddle points are still what they were after they had been moved, by their number
    """
    attributes = results.base.attributes.all
    content: dict[str, Any] = {
        'n_structures': len(results),
        **{key: attributes[key] for key in ('n_ok', 'n_failed', 'n_pending', 'status_counts', 'temperatures')},
        **{key: attributes.get(key) for key in ('settings', 'model_name', 'model_sha256', 'n_members', 'units')},
        'displaced': displaced.get_dict(),
        'unoptimized': unoptimized.get_dict(),
        'left_at_saddle': left_at_saddle.get_dict(),
    }
    if len(results) == 1 and results.n_ok:
        content['energy'] = float(results.energies[0])
        content['zero_point_energy'] = results.zero_point_energy(0)
        table = results.thermochemistry(0)
        content.update({name: values.tolist() for name, values in table.items() if name != 'temperature'})
        content['point_group'] = results.point_group(0) or None
        content['symmetry_number'] = int(results.get_array('symmetry_numbers')[0])
    return orm.Dict(content)


class ThermochemistryWorkChain(ProtocolMixin, WorkChain):
    """Optimize molecules, check that they are minima, and compute their thermochemistry: all of a set at once.

    A structure that turns out to be a saddle point is moved along its imaginary modes and optimized again. Of a set
    only such structures are computed again. Where that fails, the saddle point stays in the results.
    """

    PROTOCOL = 'minima'

    @classmethod
    def define(cls, spec: Any) -> None:
        """Declare inputs, outline, outputs and exit codes."""
        super().define(spec)
        define_subject(spec)
        spec.input(
            'max_displacements',
            valid_type=orm.Int,
            default=lambda: orm.Int(MAX_DISPLACEMENTS),
            serializer=orm.to_aiida_type,
            validator=lambda node, _: None if node.value >= 0 else 'max_displacements must be 0 or more.',
            help='So many times a structure may be moved along its imaginary modes; 0: never.',
        )
        spec.input(
            'displacement',
            valid_type=orm.Float,
            default=lambda: orm.Float(DISPLACEMENT),
            serializer=orm.to_aiida_type,
            validator=lambda node, _: None if 0 < node.value <= 1 else 'displacement must be above 0 and up to 1.',
            help='By how much (angstrom) the atom moves that moves most; twice as much the second time, and so on.',
        )
        excluded = [f'calc.{name}' for name in _GIVEN]
        for namespace, (workflow, _) in STAGES.items():
            spec.expose_inputs(workflow, namespace=namespace, exclude=excluded)
        close_namespaces(spec.inputs)
        spec.inputs.validator = cls.validate
        spec.outline(
            cls.setup,
            while_(cls.should_go_on)(
                cls.run_optimization,
                cls.inspect_optimization,
                if_(cls.has_new_structures)(cls.run_thermochemistry, cls.inspect_thermochemistry),
                cls.end_round,
            ),
            cls.results,
        )
        cls.define_outputs(spec)
        # 400 and 411 mean what they mean for a calculation.
        spec.exit_code(
            400, 'ERROR_SOME_STRUCTURES_FAILED', message='Some structures failed, the others are stored: {detail}'
        )
        spec.exit_code(411, 'ERROR_NO_MINIMUM', message='No minimum was found; what there is is stored: {detail}')
        spec.exit_code(420, 'ERROR_OPTIMIZATION_FAILED', message='The optimization failed: {detail}')
        spec.exit_code(421, 'ERROR_THERMOCHEMISTRY_FAILED', message='The thermochemistry failed: {detail}')

    @staticmethod
    def define_outputs(spec: Any) -> None:
        """Declare the outputs."""
        spec.output('results', valid_type=NormalModesData, required=False, help='Normal modes and thermochemistry.')
        spec.output('output_parameters', valid_type=orm.Dict, required=False, help='Summary: numbers to query.')
        spec.output(
            'output_structure', valid_type=orm.StructureData, required=False, help='The minimum, for `structure`.'
        )
        spec.output(
            'output_structures', valid_type=StructureSetData, required=False, help='The minima, for `structures`.'
        )

    @classmethod
    def validate(cls, inputs: Mapping[str, Any], ports: Any) -> str | None:
        """Return what would make one of the jobs impossible, before the first is sent, or ``None``."""
        if 'model' not in inputs or not {'structure', 'structures'} & set(ports):
            return None  # the port itself complains, or a workflow that wraps this one gives them
        given = {name: inputs[name] for name in ('model', 'structure', 'structures') if inputs.get(name) is not None}
        for namespace, (_, calculation) in STAGES.items():
            calc = dict(inputs.get(namespace, {}).get('calc', {}))
            message = validate_inputs(calculation, {**calc, **given}, ('structure', 'structures'))
            if message:
                return f'{namespace}: {message}' if message.startswith('parameters') else message
        return None

    @classmethod
    def get_builder_from_protocol(
        cls,
        code: orm.AbstractCode | str,
        model: ModelData,
        structures: StructureSetData | orm.StructureData,
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> ProcessBuilder:
        """Return a builder with the inputs of a protocol, which is that of both jobs.

        :param code: a code or its label
        :param model: the model
        :param structures: one structure, or a set of any number
        :param protocol: ``fast``, ``balanced`` or ``precise``; see ``get_available_protocols``
        :param overrides: inputs that win over those of the protocol, such as
            ``{'thermochemistry': {'calc': {'parameters': {'temperatures': [300.0]}}}}``
        :param options: ``metadata.options`` of the calculations: walltime, queue, memory and the like
        :raises ValueError: if there is no such protocol, or an input that the workflow does not have
        """
        builder = cls.get_builder()
        fill(builder, cls.stage_inputs(code, protocol, overrides, options))
        builder.model = model
        setattr(builder, 'structures' if isinstance(structures, StructureSetData) else 'structure', structures)
        return builder

    @classmethod
    def stage_inputs(
        cls,
        code: orm.AbstractCode | str,
        protocol: str | None,
        overrides: Mapping[str, Any] | None,
        options: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """Return the inputs of a protocol but for model and structures; see :meth:`get_builder_from_protocol`."""
        inputs = cls.get_protocol_inputs(protocol, overrides)
        node = orm.load_code(code) if isinstance(code, str) else code
        for namespace, (workflow, _) in STAGES.items():
            stage = workflow.get_protocol_inputs(protocol, inputs.get(namespace))
            if options:
                stage = merge(stage, {'calc': {'metadata': {'options': dict(options)}}})
            stage['calc']['code'] = node
            inputs[namespace] = stage
        return inputs

    def setup(self) -> None:
        """Begin with all structures."""
        self.ctx.single = 'structure' in self.inputs
        self.ctx.current = self.inputs.structure if self.ctx.single else self.inputs.structures
        self.ctx.structures, self.ctx.results = self.ctx.current, None
        self.ctx.part = list(range(1 if self.ctx.single else len(self.inputs.structures)))
        self.ctx.round, self.ctx.displaced, self.ctx.unoptimized, self.ctx.left = 0, {}, {}, {}

    def should_go_on(self) -> bool:
        """Return whether there is something to optimize: everything at first, then the saddle points that are left."""
        if self.ctx.round == 0:
            return True
        saddles = [index for index in saddle_points(self.ctx.results) if str(index) not in self.ctx.left]
        if not saddles or self.ctx.round > self.inputs.max_displacements.value:
            return False
        amplitude = orm.Float(self.ctx.round * self.inputs.displacement.value)
        self.report(
            f'{labels_of(to_frames(self.ctx.structures), saddles)}: no minimum, moved along imaginary modes by '
            f'{amplitude.value:g} angstrom'
        )
        if self.ctx.single:
            self.ctx.current = displace_structure(self.ctx.structures, self.ctx.results, amplitude)
        else:
            indices = orm.List(saddles)
            self.ctx.current = displace_structures(self.ctx.structures, self.ctx.results, indices, amplitude)
        self.ctx.part = saddles
        self.ctx.displaced.update({str(index): self.ctx.round for index in saddles})
        return True

    def _submit(self, namespace: str) -> Any:
        workflow, _ = STAGES[namespace]
        inputs = AttributeDict(self.exposed_inputs(workflow, namespace))
        inputs.calc.model = self.inputs.model
        inputs.calc['structure' if self.ctx.single else 'structures'] = self.ctx.current
        if self.ctx.round and 'parameters' in inputs.calc:
            before = inputs.calc.parameters.get_dict()
            part = parameters_of_part(before, self.ctx.part)
            inputs.calc.parameters = inputs.calc.parameters if part == before else orm.Dict(part)
        inputs.metadata.call_link_label = f'{namespace}_{self.ctx.round}'
        node = self.submit(workflow, **inputs)
        self.report(f'{namespace} of {len(self.ctx.part)}: {node.process_label}<{node.pk}>')
        return ToContext(child=node)

    def run_optimization(self) -> Any:
        """Optimize the structures of this round."""
        return self._submit('optimization')

    def inspect_optimization(self) -> ExitCode | None:
        """Take the optimized structures; without any the workflow ends, or a saddle point stays what it was."""
        child: ProcessNode = self.ctx.child
        name = 'output_structure' if self.ctx.single else 'output_structures'
        pending = np.full(len(self.ctx.part), FrameStatus.PENDING)
        statuses = child.outputs.results.status if 'results' in child.outputs else pending
        found = _failures(self.ctx.part, statuses, (FrameStatus.OK,))
        for index in self.ctx.part:
            if self.ctx.round == 0 or str(index) not in found:
                self.ctx.unoptimized.pop(str(index), None)
        if self.ctx.round == 0:
            self.ctx.unoptimized.update(found)
        else:
            self._leave('optimization', found, child)
        ended = name in child.outputs and bool((statuses != FrameStatus.PENDING).any())
        if ended and (self.ctx.round or len(found) < len(self.ctx.part)):
            self.ctx.current = child.outputs[name]
            return None
        if name in child.outputs and self.ctx.round == 0:
            self.out(name, child.outputs[name])
        return self._fail('ERROR_OPTIMIZATION_FAILED', child)

    def _leave(self, stage: str, found: Mapping[str, str], child: ProcessNode) -> None:
        """Note why structures that were moved stay at their saddle points."""
        for index, status in found.items():
            cause = f'{child.process_label}<{child.pk}> [{child.exit_status}]'
            self.ctx.left[index] = f'moved along its imaginary modes, its {stage} ended with {status}: {cause}'

    def has_new_structures(self) -> bool:
        """Return whether any structure of this round was optimized."""
        return self.ctx.round == 0 or any(str(index) not in self.ctx.left for index in self.ctx.part)

    def run_thermochemistry(self) -> Any:
        """Compute modes and thermochemistry of the structures of this round."""
        return self._submit('thermochemistry')

    def inspect_thermochemistry(self) -> ExitCode | None:
        """Take the results, of a later round into those of all structures."""
        child: ProcessNode = self.ctx.child
        if 'results' not in child.outputs:
            return self._fail('ERROR_THERMOCHEMISTRY_FAILED', child)
        results = child.outputs.results
        if self.ctx.round:
            found = _failures(self.ctx.part, results.status, (FrameStatus.OK, FrameStatus.WRONG_CHARACTER))
            self._leave('thermochemistry', {key: found[key] for key in found if key not in self.ctx.left}, child)
        left = [index for index in self.ctx.part if str(index) in self.ctx.left]
        if len(left) == len(self.ctx.part):
            return None
        if self.ctx.single or self.ctx.round == 0:
            self.ctx.structures, self.ctx.results = self.ctx.current, results
        else:
            before = self.ctx.structures, self.ctx.results
            merged = merge_minima(*before, self.ctx.current, results, orm.List(self.ctx.part), orm.List(left))
            self.ctx.structures, self.ctx.results = merged['output_structures'], merged['results']
        return None

    def end_round(self) -> None:
        """Count the rounds."""
        self.ctx.round += 1

    def _fail(self, label: str, child: ProcessNode) -> ExitCode:
        """End with the cause, and with what earlier rounds found."""
        if self.ctx.results is not None:
            self._attach()
        code: ExitCode = getattr(self.exit_codes, label)
        return code.format(detail=f'{child.process_label}<{child.pk}> [{child.exit_status}] {child.exit_message}')

    def _attach(self) -> None:
        summary = summarize_minima(
            self.ctx.results,
            orm.Dict(self.ctx.displaced),
            orm.Dict(self.ctx.unoptimized),
            orm.Dict(self.ctx.left),
        )
        self.out('results', self.ctx.results)
        self.out('output_parameters', summary)
        self.out('output_structure' if self.ctx.single else 'output_structures', self.ctx.structures)

    def results(self) -> ExitCode | None:
        """Attach the outputs, and say what is wrong with structures that have no minimum or no results."""
        self._attach()
        results: NormalModesData = self.ctx.results
        unoptimized = {int(index) for index in self.ctx.unoptimized}
        failed = sorted(unoptimized | set(np.flatnonzero(results.status != FrameStatus.OK).tolist()))
        if not failed:
            return None
        first = failed[0]
        frame = results.frame(first)
        reason = f'{frame.status.name}, {frame.message}'.rstrip('.')
        if str(first) in self.ctx.left:
            reason = f'{reason}; {self.ctx.left[str(first)]}'
        elif first in unoptimized:
            reason = f'its optimization ended with {self.ctx.unoptimized[str(first)]}'
        names = labels_of(to_frames(self.ctx.structures), failed)
        detail = f'{len(failed)} of {len(results)} ({names}); the first: {reason}'.rstrip('.')
        if len(failed) < len(results):
            return self.exit_codes.ERROR_SOME_STRUCTURES_FAILED.format(detail=detail)
        return self.exit_codes.ERROR_NO_MINIMUM.format(detail=detail)


def _failures(part: Sequence[int], statuses: np.ndarray[Any, Any], good: Collection[FrameStatus]) -> dict[str, str]:
    """Return the status of structures that ended otherwise than they should, by their numbers in the whole set."""
    pairs = zip(part, statuses, strict=True)
    return {str(index): FrameStatus(int(status)).name for index, status in pairs if status not in good}
