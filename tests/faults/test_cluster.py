"""What breaks on a cluster: SLURM behind SSH, whose files the AiiDA host cannot see."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.servers, pytest.mark.slow]

_NODE_FAILURE = 140


def test_kill_of_slurmd(cluster, cluster_site, nothing_lost):
    site = cluster_site
    node = site.submit_half(metadata={'options': {'max_wallclock_seconds': 600}})
    print(node.get_job_id(), cluster.node_of(node.get_job_id()))
    name = cluster.node_of(node.get_job_id())
    import os, signal, time
    pid = int(cluster.shell(f'cat {cluster.directory}/slurm/run/slurmd-{name}.pid'))
    os.kill(pid, signal.SIGKILL)
    t=time.time()
    site.finish(node)
    print(time.time()-t, node.exit_status, node.exit_message)
    import subprocess; print(subprocess.run('ps aux | grep worker.pyz; ', shell=True, capture_output=True, text=True).stdout)
    print(node.outputs.results.status if 'results' in node.outputs else None)
    print(cluster.shell('sinfo; squeue'))
    site.gate.open()
    cluster.start_node(name)
    again = site.finish(site.submit(parent_folder=node.outputs.remote_folder))
    assert again.is_finished_ok, again.exit_message
    nothing_lost(again.outputs.results, computed_again=100)
