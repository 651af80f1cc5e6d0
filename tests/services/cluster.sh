#!/usr/bin/env bash
# A cluster on this machine: a login host behind SSH with SLURM and two nodes, which have files of their own.
#   CLUSTER_DIR=... CLUSTER_PORT=... cluster.sh up | down | exec COMMAND...
#       | kill-node NODE | start-node NODE | stop-ssh | start-ssh
# `up` may be repeated. Five ports from CLUSTER_PORT on are taken; the nodes are called ml${CLUSTER_PORT}n1 and ...n2.
# Login host and nodes live in mount and host-name namespaces of their own: $CLUSTER_DIR/scratch, a file system in
# memory (CLUSTER_SCRATCH_SIZE, 2G), is seen there only, and the directories in CLUSTER_HIDE (a:b:c) are empty there.
# CLUSTER_CPUS (2) and CLUSTER_MEMORY (4000 MB) are what each node has. `exec` runs a command on the login host.
# HOME=$CLUSTER_DIR/home makes `ssh mlcluster` work. `down` ends every process in the namespaces.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/services/common.sh
. "$here/common.sh"
directory=${CLUSTER_DIR:?directory for the cluster}
port=${CLUSTER_PORT:?first of five ports for the cluster}
export CLUSTER_SCRATCH_SIZE=${CLUSTER_SCRATCH_SIZE:-2G} CLUSTER_HIDE=${CLUSTER_HIDE:-}
export SLURM_CONF=$directory/slurm/slurm.conf
export SSHD_DIR=$directory SSHD_PORT=$((port + 4)) SSHD_ENVIRONMENT=SLURM_CONF=$SLURM_CONF
holder=$directory/namespace.pid

inside() {
    nsenter --target "$(cat "$holder")" --mount --uts -- "$@"
}

# Processes of the namespace, but for this script's own.
processes_inside() {
    local namespace process
    namespace=$(readlink "/proc/$(cat "$holder")/ns/mnt")
    for process in /proc/[0-9]*; do
        if [ "$(readlink "$process/ns/mnt" 2>/dev/null)" = "$namespace" ]; then basename "$process"; fi
    done
}

# Make the namespaces, kept by a process that sleeps in them.
make_namespace() {
    alive "$holder" && return
    mkdir -p "$directory/scratch" "$directory/home"
    chmod 755 "$directory"
    # shellcheck disable=SC2016
    setsid unshare --mount --uts --propagation private bash -euc '
        hostname mlcluster
        mount -t tmpfs -o "size=$CLUSTER_SCRATCH_SIZE,mode=755" cluster-scratch "$1/scratch"
        mkdir -p /run/mysqld /run/sshd
        mount -t tmpfs -o mode=755 cluster-run /run/mysqld
        sed "1i 127.0.0.1 mlcluster" /etc/hosts >"$1/hosts"
        mount --bind "$1/hosts" /etc/hosts
        IFS=:
        for hidden in $CLUSTER_HIDE; do mount -t tmpfs -o size=1M cluster-hidden "$hidden"; done
        echo $$ >"$1/namespace.pid"
        exec sleep infinity
    ' cluster "$directory" </dev/null >"$directory/namespace.log" 2>&1 &
    wait_for alive "$holder"
}

down() {
    alive "$holder" || return 0
    inside "$here/slurm.sh" down
    local pid kept
    kept=$(cat "$holder")
    for pid in $(processes_inside); do
        [ "$pid" = "$kept" ] || kill -s KILL "$pid" 2>/dev/null || true
    done
    stop "$holder" KILL # the scratch file system goes with the last process
    rm -f "$directory/sshd.pid"
}

# The connections, too: what sshd serves goes on when only the listening process ends.
stop_ssh() {
    local pid
    for pid in $(processes_inside); do
        if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = sshd ]; then kill -s KILL "$pid" 2>/dev/null || true; fi
    done
    rm -f "$directory/sshd.pid"
}

case ${1:-} in
up)
    make_namespace
    inside "$here/slurm.sh" up
    inside "$here/sshd.sh" up
    ;;
down) down ;;
exec) shift && inside "$@" ;;
kill-node) inside "$here/slurm.sh" kill "${2:?name of the node}" ;;
start-node) inside "$here/slurm.sh" start "${2:?name of the node}" ;;
stop-ssh) stop_ssh ;;
start-ssh) inside "$here/sshd.sh" up ;;
*) usage ;;
esac
