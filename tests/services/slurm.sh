#!/usr/bin/env bash
# SLURM with accounting and two nodes, on the loopback interface and without systemd.
#   CLUSTER_DIR=... CLUSTER_PORT=... slurm.sh up | down | start NODE | kill NODE
# `up` may be repeated. Four ports from CLUSTER_PORT on are taken; the nodes are ml${CLUSTER_PORT}n1 and ...n2, of which
# the first has two make-believe GPUs. CLUSTER_CPUS and CLUSTER_MEMORY (MB) are what each node has. `kill` sends SIGKILL
# to a node's slurmd and to the jobs there, as if the machine had lost power; `start` brings it back.
# Start it in a mount namespace of its own (cluster.sh does): the database's socket lies in /run/mysqld.
set -euo pipefail
# shellcheck source=tests/services/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
PATH=$PATH:/usr/sbin:/sbin
D=${CLUSTER_DIR:?directory for the cluster}/slurm
port=${CLUSTER_PORT:?first of four ports for the cluster}
name=ml${port}n
nodes=("${name}1" "${name}2")
# The socket of a job lies at $D/spool/NODE/NODE_JOB.STEP, and the path of one has 107 characters at most.
if [ ${#D} -gt 63 ]; then
    echo "jobs would not start in CLUSTER_DIR=$CLUSTER_DIR, as its path is too long: take one of 57 characters at most" >&2
    exit 2
fi
export SLURM_CONF=$D/slurm.conf

# Memory limits need the first generation of control groups: the second is systemd's where systemd runs.
if [ -d /sys/fs/cgroup/memory ] && [ -d /sys/fs/cgroup/freezer ]; then
    tracking=cgroup task=cgroup
else
    tracking=linuxproc task=none
fi

write_settings() {
    mkdir -p "$D"/{state,spool,log,run}
    chmod 755 "$D" "$D/run"
    cat >"$D/slurmdbd.conf" <<END
AuthType=auth/munge
AuthInfo=socket=$D/run/munge.sock
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$((port + 1))
SlurmUser=root
LogFile=$D/log/slurmdbd.log
PidFile=$D/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
END
    chmod 600 "$D/slurmdbd.conf"
    cat >"$D/slurm.conf" <<END
ClusterName=$name
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$D/run/munge.sock
CredType=cred/munge
StateSaveLocation=$D/state
SlurmdSpoolDir=$D/spool/%n
SlurmctldPidFile=$D/run/slurmctld.pid
SlurmdPidFile=$D/run/slurmd-%n.pid
SlurmctldLogFile=$D/log/slurmctld.log
SlurmdLogFile=$D/log/slurmd-%n.log
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/$tracking
TaskPlugin=task/$task
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=NoShared
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,batch_sched_delay=0,sched_min_interval=0,defer
MpiDefault=none
ReturnToService=2
EnforcePartLimits=ALL
PropagateResourceLimits=NONE
SwitchType=switch/none
MinJobAge=60
KillWait=2
SlurmdTimeout=10
OverTimeLimit=0
InactiveLimit=0
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((port + 1))
AccountingStoragePass=$D/run/munge.sock
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=associations
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName=${nodes[0]} NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=${CLUSTER_CPUS:-2} RealMemory=${CLUSTER_MEMORY:-4000} Gres=gpu:fake:2 State=UNKNOWN
NodeName=${nodes[1]} NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((port + 3)) CPUs=${CLUSTER_CPUS:-2} RealMemory=${CLUSTER_MEMORY:-4000} State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=1440 DefMemPerCPU=500 State=UP
PartitionName=gpu Nodes=${nodes[0]} MaxTime=1440 DefMemPerCPU=500 State=UP
END
    local gpu
    for gpu in 0 1; do
        [ -c "$D/gpu$gpu" ] || mknod "$D/gpu$gpu" c 1 3
    done
    echo "NodeName=${nodes[0]} Name=gpu Type=fake File=$D/gpu[0-1]" >"$D/gres.conf"
    cat >"$D/cgroup.conf" <<END
CgroupAutomount=yes
ConstrainCores=no
ConstrainRAMSpace=yes
END
    if [ "$tracking" = cgroup ]; then echo CgroupPlugin=cgroup/v1 >>"$D/cgroup.conf"; fi
}

munge_answers() {
    munge -S "$D/run/munge.sock" -n | unmunge -S "$D/run/munge.sock"
}

start_munge() {
    alive "$D/run/munged.pid" && return
    [ -s "$D/munge.key" ] || (umask 077 && head -c 128 /dev/urandom >"$D/munge.key")
    rm -f "$D"/run/munge.sock*
    munged --force --key-file="$D/munge.key" --socket="$D/run/munge.sock" --pid-file="$D/run/munged.pid" \
        --log-file="$D/log/munged.log" --seed-file="$D/state/munge.seed"
    wait_for munge_answers
}

start_database() {
    local socket=/run/mysqld/mysqld.sock # where slurmdbd looks for it
    mkdir -p /run/mysqld
    if ! alive "$D/run/mariadbd.pid"; then
        [ -d "$D/db/mysql" ] || mariadb-install-db --no-defaults --auth-root-authentication-method=socket --user=root \
            --skip-test-db --datadir="$D/db" >"$D/log/mariadb-install.log" 2>&1
        rm -f "$D/run/mariadbd.pid"
        setsid mariadbd --no-defaults --user=root --datadir="$D/db" --socket="$socket" --pid-file="$D/run/mariadbd.pid" \
            --skip-networking --innodb-buffer-pool-size=64M --innodb-flush-log-at-trx-commit=0 \
            >"$D/log/mariadb.log" 2>&1 </dev/null &
    fi
    wait_for mariadb-admin --no-defaults -S "$socket" ping
    if ! alive "$D/run/slurmdbd.pid"; then
        rm -f "$D/run/slurmdbd.pid"
        setsid slurmdbd -D >"$D/log/slurmdbd.out" 2>&1 </dev/null &
    fi
    wait_for sacctmgr -n list cluster
    # slurmctld may have announced itself already
    sacctmgr -nP list cluster format=cluster | grep -qx "$name" || sacctmgr -iQ add cluster "$name" >/dev/null || true
}

start_node() {
    mkdir -p "$D/spool/$1"
    alive "$D/run/slurmd-$1.pid" && return
    rm -f "$D/run/slurmd-$1.pid"
    slurmd -N "$1" </dev/null >/dev/null
}

node_is_up() {
    sinfo -h -N -n "$1" -o %t | grep -qxE 'idle|mix|alloc|comp'
}

# The processes of a node: its slurmd, and those of its jobs, known by their environment or, the steps, by their title.
processes_of_node() {
    local process jobs
    jobs=$(timeout 5 squeue -h -t all -w "$1" -o %A | paste -sd '|')
    cat "$D/run/slurmd-$1.pid" 2>/dev/null || true
    for process in /proc/[0-9]*; do
        [ "$(readlink "$process/ns/mnt" 2>/dev/null)" = "$(readlink /proc/self/ns/mnt)" ] || continue
        if tr '\0' '\n' 2>/dev/null <"$process/environ" | grep -qxF "SLURMD_NODENAME=$1" ||
            grep -qsE "^slurmstepd: \[(${jobs:-none})[].]" "$process/cmdline"; then
            basename "$process"
        fi
    done
}

kill_node() {
    local pid
    # The slurmd first, so that it cannot tell of the end of its jobs.
    for pid in $(processes_of_node "$1" | awk '!seen[$0]++'); do
        kill -s KILL "$pid" 2>/dev/null || true
    done
    rm -f "$D/run/slurmd-$1.pid"
}

up() {
    write_settings
    start_munge
    start_database
    if ! alive "$D/run/slurmctld.pid"; then
        rm -f "$D/run/slurmctld.pid"
        slurmctld </dev/null >/dev/null
    fi
    wait_for scontrol ping
    local node
    for node in "${nodes[@]}"; do start_node "$node"; done
    for node in "${nodes[@]}"; do wait_for node_is_up "$node"; done
}

down() {
    local node
    timeout 5 scancel --quiet --user="$(id -un)" || true # a broken cluster must go down, too
    for node in "${nodes[@]}"; do stop "$D/run/slurmd-$node.pid"; done
    stop "$D/run/slurmctld.pid"
    stop "$D/run/slurmdbd.pid"
    stop "$D/run/mariadbd.pid"
    stop "$D/run/munged.pid"
}

case ${1:-} in
up) up ;;
down) down ;;
start)
    start_node "${2:?name of the node}"
    wait_for node_is_up "$2"
    ;;
kill) kill_node "${2:?name of the node}" ;;
*) usage ;;
esac
