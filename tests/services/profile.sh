#!/usr/bin/env bash
# An AiiDA profile for the cluster of cluster.sh, with a running daemon, to work with by hand.
#   CLUSTER_DIR=... CLUSTER_PORT=... profile.sh up | down
# PYTHON (python3) is the interpreter that has aiida and this package; the jobs use it, too. DAEMON_WORKERS (1) is how
# many workers the daemon has. Afterwards `. $CLUSTER_DIR/activate` sets HOME, AIIDA_PATH and PATH; the computer is
# `mlcluster`, the code `python@mlcluster`. Configuration, database and repository lie in $CLUSTER_DIR/aiida.
set -euo pipefail
# shellcheck source=tests/services/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
directory=${CLUSTER_DIR:?directory of the cluster}
python=$(command -v "${PYTHON:-python3}")
activate=$directory/activate

write_settings() {
    mkdir -p "$directory/aiida/.aiida"
    cat >"$activate" <<END
export HOME=$directory/home AIIDA_PATH=$directory/aiida PATH=$(dirname "$python"):\$PATH
END
    cat >"$directory/computer.yml" <<END
label: mlcluster
hostname: mlcluster
description: SLURM behind SSH, for tests
transport: core.ssh_async
scheduler: core.slurm
work_dir: $directory/scratch/aiida
mpirun_command: srun -n {tot_num_mpiprocs}
mpiprocs_per_machine: 1
shebang: '#!/bin/bash'
use_double_quotes: false
prepend_text: ''
append_text: ''
END
    cat >"$directory/computer-configure.yml" <<END
host: mlcluster
max_io_allowed: 8
authentication_script: None
backend: asyncssh
use_login_shell: true
safe_interval: 0
END
    cat >"$directory/code.yml" <<END
label: python
computer: mlcluster
filepath_executable: $python
default_calc_job_plugin: mlpotential.single_point
END
}

up() {
    write_settings
    # shellcheck disable=SC1090
    . "$activate"
    if ! verdi -p cluster status --no-rmq >/dev/null 2>&1; then
        verdi presto --use-zeromq --profile-name cluster
        verdi -p cluster config set runner.poll.interval 1
        verdi -p cluster config set daemon.timeout 30
        verdi -p cluster config set transport.task_retry_initial_interval 5
        verdi -p cluster computer setup --non-interactive --config "$directory/computer.yml"
        verdi -p cluster computer configure core.ssh_async mlcluster --non-interactive \
            --config "$directory/computer-configure.yml"
        "$python" -c "import aiida; aiida.load_profile('cluster')
from aiida.orm import load_computer
load_computer('mlcluster').set_minimum_job_poll_interval(1)"
        verdi -p cluster code create core.code.installed --non-interactive --config "$directory/code.yml"
    fi
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
