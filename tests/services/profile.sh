#!/usr/bin/env bash
# An AiiDA profile for the cluster of cluster.sh, with a running daemon, to work with by hand.
#   CLUSTER_DIR=... CLUSTER_PORT=... profile.sh up | down
# PYTHON (python3) is the interpreter that has aiida and this package; the jobs use it, too. DAEMON_WORKERS (1) is how
# many workers the daemon has. Afterwards `. $CLUSTER_DIR/activate` sets HOME, AIIDA_PATH and PATH; the profile is
# `cluster`, the computer `mlcluster`, the code `python@mlcluster`. All of it lies in $CLUSTER_DIR/aiida.
set -euo pipefail
# shellcheck source=tests/services/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
directory=${CLUSTER_DIR:?directory of the cluster}
python=$(command -v "${PYTHON:-python3}")
activate=$directory/activate

# One interpreter for all: a call of verdi takes seconds.
fill_profile() {
    "$python" - "$directory/scratch/aiida" <<'END'
import sys

from aiida import load_profile, orm
from aiida.manage.configuration import get_config

load_profile('cluster')
config = get_config()
for name, value in {'runner.poll.interval': 1, 'daemon.timeout': 30, 'transport.task_retry_initial_interval': 5}.items():
    config.set_option(name, value, scope='cluster')
config.store()
computer = orm.Computer(
    label='mlcluster',
    hostname='mlcluster',
    description='SLURM behind SSH, for tests',
    transport_type='core.ssh_async',
    scheduler_type='core.slurm',
    workdir=sys.argv[1],
)
computer.set_mpirun_command(['srun', '-n', '{tot_num_mpiprocs}'])
computer.set_default_mpiprocs_per_machine(1)
computer.store()
computer.configure(host='mlcluster', backend='asyncssh', safe_interval=0, use_login_shell=True)
computer.set_minimum_job_poll_interval(1)
plugin = 'mlpotential.single_point'
orm.InstalledCode(
    label='python', computer=computer, filepath_executable=sys.executable, default_calc_job_plugin=plugin
).store()
END
}

up() {
    if [ ! -e "$activate" ]; then
        rm -rf "$directory/aiida"
        mkdir -p "$directory/aiida/.aiida"
        local settings="export HOME=$directory/home AIIDA_PATH=$directory/aiida PATH=$(dirname "$python"):\$PATH"
        eval "$settings"
        verdi presto --use-zeromq --profile-name cluster
        fill_profile
        echo "$settings" >"$activate" # the last, so that an `up` that was interrupted begins anew
    fi
    # shellcheck disable=SC1090
    . "$activate"
    verdi -p cluster daemon status >/dev/null 2>&1 || verdi -p cluster daemon start "${DAEMON_WORKERS:-1}"
}

case ${1:-} in
up) up ;;
down)
    # shellcheck disable=SC1090
    . "$activate"
    verdi -p cluster daemon stop
    ;;
*) usage ;;
esac
