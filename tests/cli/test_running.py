"""What the commands of workflows share; with real workflows in test_launch_reaction.py and test_launch_minima.py."""

from __future__ import annotations

import click
import pytest
from aiida import orm
from click.testing import CliRunner

from aiida_mlpotential.cli import running
from aiida_mlpotential.cli.inputs import scheduler_options
from aiida_mlpotential.workflows.thermochemistry import ThermochemistryWorkChain


def test_options_of_the_scheduler_are_collected():
    """Those that are given, by the names that AiiDA has for them."""
    found = []

    @click.command()
    @running.queue_options
    def command(**arguments):
        found.append(scheduler_options(arguments))

    runner = CliRunner()
    assert runner.invoke(command, ['-w', '60', '-q', 'short']).exit_code == 0
    assert runner.invoke(command, ['--account', 'me']).exit_code == 0
    assert found == [{'max_wallclock_seconds': 60, 'queue_name': 'short'}, {'account': 'me'}]


def test_protocols_are_those_of_the_workflows():
    assert set(running.PROTOCOLS) == set(ThermochemistryWorkChain.get_available_protocols())


def test_inputs_that_are_refused_are_one_sentence(code, emt):
    builder = ThermochemistryWorkChain.get_builder_from_protocol(code, emt, orm.StructureData(cell=[[9, 0, 0]] * 3))
    with pytest.raises(click.ClickException) as caught:
        running.run_workflow(builder, 'nothing')
    assert '\n' not in caught.value.message


def test_submission_without_a_broker(code, emt):
    structure = orm.StructureData(pbc=False)
    structure.append_atom(position=(0, 0, 0), symbols='Cu')
    builder = ThermochemistryWorkChain.get_builder_from_protocol(code, emt, structure)
    with pytest.raises(click.ClickException, match=r'has no broker.*: leave out --daemon, or add one with'):
        running.submit_workflow(builder)
    assert orm.QueryBuilder().append(orm.ProcessNode).count() == 0


@pytest.fixture
def broker(aiida_profile_clean, monkeypatch):
    """Let the profile have a broker."""
    monkeypatch.setattr(type(aiida_profile_clean), 'process_control_backend', 'core.zeromq')


def test_submission_without_a_daemon(broker):
    """Whatever the broker: what is submitted now would lie there until somebody starts the daemon."""
    with pytest.raises(click.ClickException, match='is not running: start it with `verdi daemon start`, or leave out'):
        running.check_daemon()


def test_a_daemon_that_is_there(broker, monkeypatch):
    monkeypatch.setattr('aiida.engine.daemon.client.DaemonClient.get_daemon_pid', lambda self: 1)
    running.check_daemon()


def test_a_daemon_that_is_gone(daemon, monkeypatch):
    """The file with its number is there, and nobody answers: one sentence with the remedy."""

    def submit(process, inputs):
        raise ConnectionError('Broker did not become ready within 10.0s.')

    monkeypatch.setattr('aiida.engine.submit', submit)
    with pytest.raises(click.ClickException) as caught:
        running.submit_to_daemon(ThermochemistryWorkChain, {})
    assert caught.value.message == (
        'the daemon cannot be reached (Broker did not become ready within 10.0s): start it anew with `verdi daemon '
        'restart`, or leave out --daemon to wait for the results here.'
    )


@pytest.mark.slow
def test_a_workflow_does_not_wait_for_a_minute(code, emt, monkeypatch):
    """AiiDA's default for profiles without a broker is a minute for each process that is waited for."""
    from aiida.manage.manager import Manager

    intervals, original = [], Manager.create_runner

    def create_runner(self, **settings):
        intervals.append(settings.get('poll_interval'))
        return original(self, **settings)

    monkeypatch.setattr(Manager, 'create_runner', create_runner)
    structure = orm.StructureData(pbc=False)
    structure.append_atom(position=(0, 0, 0), symbols='Cu')
    builder = ThermochemistryWorkChain.get_builder_from_protocol(code, emt, structure)
    node = running.run_workflow(builder, 'an atom')
    assert node.is_finished_ok, node.exit_message
    assert intervals[0] == running.POLL_INTERVAL <= 1


@pytest.mark.slow
def test_a_workflow_needs_no_broker(code, emt, monkeypatch):
    """The broker of a ZeroMQ profile is part of the daemon: where that does not run, connecting to it fails."""
    from aiida.manage.manager import Manager

    def get_communicator(self):
        raise ConnectionError('Broker did not become ready within 10.0s')

    monkeypatch.setattr(Manager, 'get_communicator', get_communicator)
    structure = orm.StructureData(pbc=False)
    structure.append_atom(position=(0, 0, 0), symbols='Cu')
    builder = ThermochemistryWorkChain.get_builder_from_protocol(code, emt, structure)
    assert running.run_workflow(builder, 'an atom').is_finished_ok
