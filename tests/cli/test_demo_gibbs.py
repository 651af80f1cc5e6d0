"""``demo --gibbs``: the Gibbs energy of a reaction from two jobs, against ASE on the same model in torchani's hands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from aiida import orm

from aiida_mlpotential.cli import demo, demo_gibbs
from aiida_mlpotential.cli.progress import Steps
from aiida_mlpotential.data.reactions import SYMBOLS
from aiida_mlpotential.library import get_model
from aiida_mlpotential.worker.units import HARTREE, KCAL_PER_MOL

KCAL = KCAL_PER_MOL
#: Displacement of ASE's finite differences, angstrom. Curvatures of ANI jump where an argument of its CELU changes its
#: sign: with ASE's default of 0.01 the Gibbs energy is another one by 0.06 kcal/mol.
DELTA = 1e-5


def _row(text: str, first: str) -> list[str]:
    return next(line.split() for line in click.unstyle(text).splitlines() if line.split()[:1] == [first])


def _load_torchani(file: Path) -> Any:
    """Return ANI-1ccx in double precision, put together by torchani alone."""
    torch = pytest.importorskip('torch', reason='the torchani extra is not installed')
    arch = pytest.importorskip('torchani.arch', reason='the torchani extra is not installed')
    assembler = arch.Assembler()
    assembler.set_symbols(('H', 'C', 'N', 'O'))
    assembler.set_atomic_networks(ctor='ani1x')
    assembler.set_global_cutoff_fn('cosine')
    assembler.set_aev_computer(angular='ani1x', radial='ani1x')
    assembler.set_zeros_as_self_energies()
    model = assembler.assemble(8)
    model.load_state_dict(torch.load(file, weights_only=True))
    return model.double().requires_grad_(False).eval()


def _ase_thermochemistry(model: Any, name: str, folder: Path) -> dict[str, float]:
    """Return energies (eV) after ASE's LBFGS, Vibrations and IdealGasThermo."""
    import ase.io
    from ase.optimize import LBFGS
    from ase.thermochemistry import IdealGasThermo
    from ase.vibrations import Vibrations

    atoms = ase.io.read(Path(demo.__file__).parent / 'demo_data' / f'{name}.xyz')
    atoms.calc = model.ase()
    assert LBFGS(atoms, logfile=None).run(fmax=demo_gibbs.FORCE_TOLERANCE, steps=2000)
    vibrations = Vibrations(atoms, delta=DELTA, name=str(folder / name))
    vibrations.run()
    quanta = np.sort(vibrations.get_energies().real)[-(3 * len(atoms) - 6) :]
    energy = atoms.get_potential_energy()
    gas = IdealGasThermo(
        vib_energies=quanta, geometry='nonlinear', potentialenergy=energy, atoms=atoms, symmetrynumber=1, spin=0
    )
    enthalpy = gas.get_enthalpy(demo_gibbs.TEMPERATURE, verbose=False)
    gibbs = gas.get_gibbs_energy(demo_gibbs.TEMPERATURE, demo_gibbs.PRESSURE, verbose=False)
    return {'ΔE': energy, 'ΔZPE': quanta.sum() / 2, 'ΔH': enthalpy, '-TΔS': gibbs - enthalpy, 'ΔG': gibbs}


@pytest.mark.slow
def test_against_ase(code: orm.InstalledCode, shared_data: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    """The acceptance case in double precision: every reaction energy within 0.02 kcal/mol of ASE's own tools.

    Both optimizers go down to 1e-4 eV/angstrom; ASE's Hessian is made of central differences, ours of what the backend
    has. No mode is low enough to be left out, so that the formulas are the same.
    """
    monkeypatch.setenv('AIIDA_MLPOTENTIAL_MODELS', str(shared_data / 'models' / 'torchani'))
    reference = _load_torchani(shared_data / 'models' / 'torchani' / 'ani1ccx_state_dict.pt')
    nodes = demo_gibbs.run(code, get_model('ANI-1ccx'), demo.get_structures(), Steps())
    optimization, thermochemistry = nodes
    results = thermochemistry.outputs.results
    assert results.get_array('n_excluded').tolist() == [0, 0]
    assert results.get_array('n_imaginary').tolist() == [0, 0]
    assert thermochemistry.inputs.structures.pk == optimization.outputs.output_structures.pk
    assert thermochemistry.inputs.model.pk == optimization.inputs.model.pk

    educt, product = (_ase_thermochemistry(reference, name, tmp_path) for name in (demo.EDUCT, demo.PRODUCT))
    ours = {SYMBOLS[name]: item for name, item in demo_gibbs.reaction(results).items()}
    for name, energy in educt.items():
        assert ours[name].value[0] / KCAL == pytest.approx((product[name] - energy) / KCAL, abs=0.02), name

    members = results.get_array('member_gibbs_energies')[:, :, 0]
    assert ours['ΔG'].std[0] == pytest.approx((members[1] - members[0]).std(ddof=1))
    printed = capsys.readouterr().out
    assert float(_row(printed, 'ΔG')[1]) == pytest.approx(ours['ΔG'].value[0] / KCAL, abs=0.005)
    assert 'Reaction Gibbs energy: +6.00 ± ' in click.unstyle(printed)


@pytest.fixture
def results(make_results) -> Any:
    """Return educt and product of two atoms each, with two members, and numbers that are easy to tell apart."""
    pair = np.ones((2, 1))
    shift = np.array([[0.0], [1.0]]) * KCAL
    frequencies = [0.0] * 5 + [1000.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2000.0]
    return make_results(
        [2, 2],
        [0, 0],
        energies=np.array([-1.0, -1.0 + 5 * KCAL]),
        member_energies=np.array([[-1.0, -1.0 + 4 * KCAL], [-1.0, -1.0 + 6 * KCAL]]),
        zero_point_energies=np.array([1.0, 2.0]) * KCAL,
        enthalpies=-1.0 + 10 * KCAL * pair + 6 * shift,
        entropies=30 * KCAL / demo_gibbs.TEMPERATURE * pair + 2 * shift / demo_gibbs.TEMPERATURE,
        gibbs_energies=-1.0 - 20 * KCAL * pair + 4 * shift,
        gibbs_energies_quasi_rrho=-1.0 - 20 * KCAL * pair + 3 * shift,
        member_gibbs_energies=np.array([[[0.0], [1.0]], [[3.0], [6.0]]]) * KCAL,
        frequencies=frequencies,
        member_frequencies=np.array([frequencies, frequencies]),
        n_rigid=np.array([5, 5], 'i4'),
        n_imaginary=np.array([0, 0], 'i4'),
        stationary=np.array([1, 1], 'i4'),
    )


def _numbers(results) -> dict[str, tuple[float, float]]:
    """Return values and spreads, kcal/mol."""
    found = demo_gibbs.reaction(results)
    return {SYMBOLS[name]: (item.value[0] / KCAL, item.std[0] / KCAL) for name, item in found.items()}


def test_reaction(results) -> None:
    """Differences of the means, and the spread of the differences of the members."""
    found = _numbers(results)
    assert found['ΔE'] == pytest.approx((5.0, np.sqrt(2)))
    assert found['ΔZPE'] == pytest.approx((1.0, 0.0))
    assert found['ΔH'] == pytest.approx((6.0, np.sqrt(2)))
    assert found['-TΔS'] == pytest.approx((-2.0, 0.0), abs=1e-9)  # G - H is -1 kcal/mol more for both members
    assert found['ΔG'] == pytest.approx((4.0, np.sqrt(2)))  # 3 and 5 kcal/mol
    assert found['ΔG, quasi-RRHO'] == pytest.approx((3.0, np.sqrt(2)))  # their energies, with equal modes


def test_members_have_their_own_zero_point(results) -> None:
    """A stiffer mode of a member has a larger zero-point energy; one that is too low adds no spread."""
    frequencies = results.get_array('member_frequencies')
    frequencies[1, 11] = 2100.0
    results.set_array('member_frequencies', frequencies)
    half = 0.5 * 1.23984198e-4  # eV for a wavenumber
    assert _numbers(results)['ΔZPE'][1] == pytest.approx(100 * half / KCAL / np.sqrt(2), rel=1e-4)
    frequencies[1, 11] = -300.0
    results.set_array('member_frequencies', frequencies)
    assert _numbers(results)['ΔZPE'][1] == pytest.approx(0.0, abs=1e-9)


def test_table(results, make_results) -> None:
    """A line for each structure, and one for each difference."""
    optimization = make_results([2, 2], [0, 0], steps=np.array([79, 59], 'i4'))
    text = click.unstyle(demo_gibbs.format_results(optimization, results, ('educt', 'product')))
    row = _row(text, 'educt')
    assert row[1:7] == [
        f'{-1 / HARTREE:.8f}',
        '1.00',
        '10.00',
        '30.00',
        '-20.00',
        f'{(-1 - 20 * KCAL) / HARTREE:.8f}',
    ]
    assert 'minimum after 79 steps, lowest mode 1000.0 cm⁻¹' in text
    assert _row(text, 'ΔE')[1:] == ['+5.00', '±', '1.41']
    assert _row(text, '-TΔS')[1:] == ['-2.00', '±', '0.00']
    assert _row(text, 'ΔG,')[2:] == ['+3.00', '±', '1.41']
    assert 'Reaction Gibbs energy: +4.00 ± 1.41 kcal/mol' in text
    combined = np.hypot(1 / np.sqrt(2), 3 / np.sqrt(2))
    assert f'as if independent, give {combined:.2f} kcal/mol' in text


def test_first_job_fails(localhost: orm.Computer, emt, aiida_profile_clean) -> None:
    """Without a minimum there is no second job; its message ends the demo."""
    code = orm.InstalledCode(label='false', computer=localhost, filepath_executable='/bin/false').store()
    with pytest.raises(click.ClickException, match='GeometryOptimizationCalculation<'):
        demo_gibbs.run(code, emt, demo.get_structures(), Steps())
    assert orm.QueryBuilder().append(orm.CalcJobNode).count() == 1
