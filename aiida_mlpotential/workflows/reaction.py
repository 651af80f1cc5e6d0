"""A reaction: all its species in one job a step, then energies, enthalpies and Gibbs energies with their spread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ProcessBuilder, ToContext, WorkChain, calcfunction

from aiida_mlpotential.calculations.validation import content
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.normal_modes import SPIN_MULTIPLICITIES, NormalModesData
from aiida_mlpotential.data.reactions import SYMBOLS, Difference, SpeciesThermochemistry
from aiida_mlpotential.data.stoichiometry import Stoichiometry, StoichiometryError, validate_stoichiometry
from aiida_mlpotential.data.structures import (
    StructuresError,
    StructureSetData,
    collect_structures,
    frames_of_structures,
)
from aiida_mlpotential.worker.parameters import validate_parameters
from aiida_mlpotential.worker.units import KCAL_PER_MOL

from .ports import close_namespaces
from .protocol import ProtocolMixin, fill
from .thermochemistry import ThermochemistryWorkChain

#: Inputs by species, with the parameter of thermochemistry that is made of each.
_BY_SPECIES = {'spin_multiplicities': 'spin_multiplicity', 'symmetry_numbers': 'symmetry_number'}
#: Names that AiiDA or the function that collects the species needs for something else.
_RESERVED = ('order', 'metadata')


@calcfunction
def compute_reaction(
    results: NormalModesData, structures: StructureSetData, stoichiometry: orm.Dict
) -> dict[str, orm.Data]:
    """Compute the thermochemistry of a reaction from that of its species, member by member.

    :param results: thermochemistry of the species
    :param structures: the species, each with its name as label
    :param stoichiometry: coefficients by name, negative for educts
    :return: ``reaction``: numbers and their spread as a dictionary, eV and kcal/mol; ``reaction_members``: of an
        ensemble the value of every member, arrays of ``(m, t)``, eV, by the names of the quantities
    """
    reaction = Stoichiometry.from_dict(content(stoichiometry))
    names = list(structures.labels)
    reaction.check_names(names)
    reaction.check_balance(names, structures.get_frames())
    species = SpeciesThermochemistry.of(results)
    differences = species.reaction(reaction.array(names))
    attributes = results.base.attributes.all
    summary = {
        'equation': reaction.equation,
        'stoichiometry': dict(reaction.coefficients),
        'temperatures': species.temperatures.tolist(),
        'gas_pressure': attributes['settings']['gas_pressure'],
        'low_frequency_cutoff': attributes['settings']['low_frequency_cutoff'],
        'model_name': attributes.get('model_name'),
        'model_sha256': attributes.get('model_sha256'),
        'n_members': results.n_members,
        'unit': 'eV',
        'quantities': {name: _numbers(name, item) for name, item in differences.items()},
        'table': _table(species.temperatures.tolist(), differences),
        'species': {name: _species(results, index) for index, name in enumerate(names)},
    }
    outputs: dict[str, orm.Data] = {'reaction': orm.Dict(summary)}
    members = {name: item.members for name, item in differences.items() if item.members is not None}
    if members:
        outputs['reaction_members'] = orm.ArrayData({**members, 'temperatures': species.temperatures})
    return outputs


def _numbers(name: str, difference: Difference) -> dict[str, Any]:
    """Return a quantity at all temperatures, eV."""
    numbers = {'value': difference.value, 'std': difference.std, 'std_if_independent': difference.combined}
    lists = {key: None if values is None else values.tolist() for key, values in numbers.items()}
    return {'symbol': SYMBOLS[name], **lists}


def _table(temperatures: list[float], differences: Mapping[str, Difference]) -> list[dict[str, Any]]:
    """Return a row for each temperature and quantity, kcal/mol: ``pandas.DataFrame`` makes a table of them."""
    return [
        {
            'temperature': temperature,
            'quantity': name,
            'kcal_per_mol': float(item.value[column] / KCAL_PER_MOL),
            'std_kcal_per_mol': None if item.std is None else float(item.std[column] / KCAL_PER_MOL),
        }
        for column, temperature in enumerate(temperatures)
        for name, item in differences.items()
    ]


def _species(results: NormalModesData, index: int) -> dict[str, Any]:
    """Return what is worth knowing of a species, eV."""
    frequencies = results.frequencies(index)
    lowest = frequencies.min() if frequencies is not None and len(frequencies) else None
    table = results.thermochemistry(index)
    return {
        'energy': float(results.energies[index]),
        'zero_point_energy': results.zero_point_energy(index),
        **{name: table[name].tolist() for name in ('enthalpies', 'entropies', 'gibbs_energies')},
        'lowest_frequency': None if lowest is None else float(lowest),
        'point_group': results.point_group(index) or None,
        'symmetry_number': int(results.get_array('symmetry_numbers')[index]),
        'spin_multiplicity': int(results.get_array(SPIN_MULTIPLICITIES)[index]),
    }


def _validate_stoichiometry(node: orm.Dict, _: Any) -> str | None:
    return validate_stoichiometry(content(node))


def _validate_species(species: Mapping[str, orm.StructureData], _: Any) -> str | None:
    reserved = [name for name in species if name in _RESERVED]
    return f'species: {reserved[0]!r} is a name that is taken: choose another.' if reserved else None


class ReactionWorkChain(ProtocolMixin, WorkChain):
    """Optimize the species of a reaction and compute ΔE, ΔH, ΔG and what they consist of at all temperatures.

    The spread is that of the reaction energies of the members of the ensemble, so that what a member gets wrong on
    both sides cancels.
    """

    PROTOCOL = 'minima'

    @classmethod
    def define(cls, spec: Any) -> None:
        """Declare inputs, outline, outputs and exit codes."""
        super().define(spec)
        spec.input('model', valid_type=ModelData, help='The model: functional form and parameters.')
        spec.input_namespace(
            'species',
            dynamic=True,
            valid_type=orm.StructureData,
            validator=_validate_species,
            help='The molecules that take part, by name; their geometries need not be minima.',
        )
        spec.input(
            'stoichiometry',
            valid_type=orm.Dict,
            serializer=orm.to_aiida_type,
            validator=_validate_stoichiometry,
            help="Coefficients by the names of the species, negative for educts: {'CH4': -1, 'O2': -2, ...}.",
        )
        for name, parameter in _BY_SPECIES.items():
            spec.input(
                name,
                valid_type=orm.Dict,
                required=False,
                serializer=orm.to_aiida_type,
                help=f'`{parameter}` of species by name, where it is not what it would be without.',
            )
        spec.expose_inputs(ThermochemistryWorkChain, exclude=('structure', 'structures', 'model'))
        close_namespaces(spec.inputs)
        spec.inputs.validator = cls.validate
        spec.outline(cls.setup, cls.run_species, cls.inspect_species, cls.results)
        spec.expose_outputs(ThermochemistryWorkChain, exclude=('output_structure',))
        spec.output('reaction', valid_type=orm.Dict, required=False, help='Energies of the reaction, and their spread.')
        spec.output(
            'reaction_members', valid_type=orm.ArrayData, required=False, help='The energies of every member, eV.'
        )
        spec.exit_code(430, 'ERROR_SPECIES_FAILED', message='There is no reaction without all its species: {detail}')

    @classmethod
    def validate(cls, inputs: Mapping[str, Any], ports: Any) -> str | None:
        """Return why these inputs are no reaction, or why a job of it would be impossible; ``None`` if all is well."""
        species, model = inputs.get('species') or {}, inputs.get('model')
        if 'stoichiometry' not in inputs or model is None:
            return None  # the port itself complains
        try:
            reaction = Stoichiometry.from_dict(content(inputs['stoichiometry']))
            reaction.check_names(species)
            names = list(reaction.coefficients)
            frames = frames_of_structures([species[name] for name in names], names)
            reaction.check_balance(names, frames)
            parameters = _thermochemistry_parameters(inputs, names)
        except (StoichiometryError, StructuresError, ValueError) as exception:
            return f'{str(exception).rstrip(".")}.'
        stages = {key: value for key, value in inputs.items() if key in ('optimization', 'thermochemistry')}
        if parameters:
            message = validate_parameters(parameters, 'thermochemistry')
            if message:
                return f'thermochemistry: {message}'
            stage = stages['thermochemistry']
            calc = {**stage.get('calc', {}), 'parameters': orm.Dict(parameters)}
            stages['thermochemistry'] = {**stage, 'calc': calc}
        wrapped = {**stages, 'model': model, 'structures': StructureSetData.from_frames(frames)}
        return ThermochemistryWorkChain.validate(wrapped, ('structures',))

    @classmethod
    def get_builder_from_protocol(
        cls,
        code: orm.AbstractCode | str,
        model: ModelData,
        species: Mapping[str, orm.StructureData],
        stoichiometry: Mapping[str, float],
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> ProcessBuilder:
        """Return a builder with the inputs of a protocol.

        :param code: a code or its label
        :param model: the model
        :param species: the molecules by name
        :param stoichiometry: coefficients by name, negative for educts
        :param protocol: ``fast``, ``balanced`` or ``precise``; see ``get_available_protocols``
        :param overrides: inputs that win over those of the protocol, as for ``ThermochemistryWorkChain``
        :param options: ``metadata.options`` of the calculations: walltime, queue, memory and the like
        :raises ValueError: if there is no such protocol, or an input that the workflow does not have
        """
        builder = cls.get_builder()
        fill(builder, ThermochemistryWorkChain.stage_inputs(code, protocol, overrides, options))
        builder.model = model
        builder.species = dict(species)
        builder.stoichiometry = dict(stoichiometry)
        return builder

    def setup(self) -> None:
        """Make one set of all species, so that each step is one job."""
        self.ctx.names = list(content(self.inputs.stoichiometry))
        order = orm.List([[name, name] for name in self.ctx.names])
        self.ctx.structures = collect_structures(order, **self.inputs.species)

    def run_species(self) -> Any:
        """Optimize all species and compute their thermochemistry."""
        inputs = AttributeDict(self.exposed_inputs(ThermochemistryWorkChain))
        inputs.model, inputs.structures = self.inputs.model, self.ctx.structures
        parameters = _thermochemistry_parameters(self.inputs, self.ctx.names)
        if parameters:
            inputs.thermochemistry.calc.parameters = orm.Dict(parameters)
        inputs.metadata = {'call_link_label': 'species'}
        node = self.submit(ThermochemistryWorkChain, **inputs)
        equation = Stoichiometry.from_dict(content(self.inputs.stoichiometry)).equation
        self.report(f'{equation}: {node.process_label}<{node.pk}>')
        return ToContext(species=node)

    def inspect_species(self) -> ExitCode | None:
        """Keep what there is of the species; without all of them the workflow ends."""
        child = self.ctx.species
        self.out_many(self.exposed_outputs(child, ThermochemistryWorkChain))
        if child.is_finished_ok:
            return None
        detail = f'{child.process_label}<{child.pk}> [{child.exit_status}] {child.exit_message}'
        return self.exit_codes.ERROR_SPECIES_FAILED.format(detail=detail.rstrip('.'))

    def results(self) -> None:
        """Compute the reaction."""
        outputs = self.ctx.species.outputs
        self.out_many(compute_reaction(outputs.results, outputs.output_structures, self.inputs.stoichiometry))
        numbers = self.outputs['reaction']['quantities']['gibbs_energy']
        spread = '' if numbers['std'] is None else f' +- {numbers["std"][0] / KCAL_PER_MOL:.2f}'
        self.report(f'dG = {numbers["value"][0] / KCAL_PER_MOL:.2f}{spread} kcal/mol')


def _thermochemistry_parameters(inputs: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    """Return the parameters of thermochemistry with those that are given by species, in the order of the set.

    :raises ValueError: if a name is that of no species, a symmetry number is missing, or there is a list already
    """
    calc = (inputs.get('thermochemistry') or {}).get('calc') or {}
    parameters = content(calc.get('parameters'))
    for key, parameter in _BY_SPECIES.items():
        if isinstance(parameters.get(parameter), (list, tuple)):
            raise ValueError(f'parameters: {parameter} is a list, but species have no order: give `{key}` by name')
        given = content(inputs.get(key))
        if not given:
            continue
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise ValueError(f'{key} names {", ".join(unknown)}: the species are {", ".join(sorted(names))}')
        if key == 'symmetry_numbers' and len(given) < len(names):
            missing = [name for name in names if name not in given]
            raise ValueError(f'{key} has none for {", ".join(missing)}: give one for every species (1 for an atom)')
        default = parameters.get(parameter, 1)
        parameters[parameter] = [given.get(name, default) for name in names]
    return parameters
