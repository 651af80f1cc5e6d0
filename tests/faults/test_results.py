"""Results that arrive damaged, or in a form that this version of the plugin does not know."""

from __future__ import annotations

import sys
import textwrap

import pytest
from aiida import orm

from aiida_mlpotential.calculations.single_point import SinglePointCalculation
from aiida_mlpotential.parsers.single_point import SinglePointParser
from aiida_mlpotential.worker import schema

pytestmark = [pytest.mark.daemon, pytest.mark.slow, pytest.mark.timeout(600)]

_CODES = SinglePointCalculation.exit_codes


@pytest.mark.fault(
    what='A retrieved file is cut short',
    injected='The transport loses the second half of the largest array and reports success',
    then='The exit code is `ERROR_RESULTS_INVALID` and names the array; a job with `parent_folder` fetches the results '
    'again and computes nothing',
)
def test_a_retrieved_file_cut_short(site, faulty_code, nothing_lost):
    site.arm('cut_short')
    node = site.finish(site.submit(code=faulty_code))
    assert not site.armed('cut_short')
    assert node.exit_status == _CODES.ERROR_RESULTS_INVALID.status
    assert 'forces.npy is truncated' in node.exit_message
    assert 'results' not in node.outputs

    again = site.finish(site.submit(code=faulty_code, parent_folder=node.outputs.remote_folder))
    assert again.is_finished_ok, again.exit_message
    nothing_lost(again.outputs.results)


#: Turns the worker of this checkout into one of a later version.
_NEWER_WORKER = """
    #!{python}
    import sys
    from aiida_mlpotential.worker import schema
    schema.RESULTS_VERSION += 1
    from aiida_mlpotential.worker.__main__ import main
    sys.exit(main())
"""


@pytest.mark.fault(
    what='A newer worker is installed on the computer',
    injected='A code with `metadata.options.worker = "installed"` whose worker has the next results version',
    then='It computes nothing; the exit code is `ERROR_RESULTS_VERSION` and says what to update; the uploaded worker, '
    'which is the default, does the job',
)
def test_an_installed_worker_of_a_newer_version(site, nothing_lost, tmp_path):
    script = tmp_path / 'newer-worker'
    script.write_text(textwrap.dedent(_NEWER_WORKER).lstrip().format(python=sys.executable))
    script.chmod(0o755)
    newer = orm.InstalledCode(
        label='newer', computer=orm.load_node(site.code).computer, filepath_executable=str(script)
    ).store()
    node = site.finish(site.submit(code=newer, metadata={'options': {'worker': 'installed'}}))
    assert node.exit_status == _CODES.ERROR_RESULTS_VERSION.status
    assert 'install the same version of aiida-mlpotential on both sides' in node.exit_message
    assert site.gate.computed() == []

    again = site.finish(site.submit())
    nothing_lost(again.outputs.results)


@pytest.mark.fault(
    what='A results file of a newer version is retrieved',
    injected='The format version in `results.json` is raised at the end of the job',
    then='The exit code is `ERROR_RESULTS_VERSION`, all files are kept; after an update of the plugin they are parsed '
    'again, without a job',
)
def test_a_results_file_of_a_newer_version(site, nothing_lost, monkeypatch):
    newer = schema.FORMAT_VERSION + 1
    edit = f'sed -i \'s/"format_version": {schema.FORMAT_VERSION}/"format_version": {newer}/\' {schema.RESULTS_FILE}'
    node = site.finish(site.submit(metadata={'options': {'append_text': edit}}))
    assert node.exit_status == _CODES.ERROR_RESULTS_VERSION.status
    assert f'format_version {newer}, this plugin reads up to {schema.FORMAT_VERSION}: update it' in node.exit_message
    assert 'results' not in node.outputs

    monkeypatch.setattr(schema, 'FORMAT_VERSION', newer)  # the update
    outputs, parsed = SinglePointParser.parse_from_node(orm.load_node(node.pk))
    assert parsed.is_finished_ok, parsed.exit_message
    nothing_lost(outputs['results'])
