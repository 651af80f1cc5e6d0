# shellcheck shell=bash
# What the scripts of this folder share; sourced, never run.

# gone PID: whether there is no such process; one that ended and that nobody has asked about yet (Z) is gone.
gone() {
    ! grep -qsE '^State:[[:space:]]+[^ZX]' "/proc/$1/status"
}

# alive FILE: whether the process whose number stands in FILE lives.
alive() {
    [ -s "$1" ] && ! gone "$(cat "$1")"
}

# wait_for COMMAND...: until it succeeds, for 20 seconds at most.
wait_for() {
    local try
    for try in $(seq 200); do
        if "$@" >/dev/null 2>&1; then return 0; fi
        sleep 0.1
    done
    echo "not there after $try tries: $*" >&2
    return 1
}

# stop FILE [SIGNAL]: end the process whose number stands in FILE, and wait until it is gone.
stop() {
    local pid
    if alive "$1"; then
        pid=$(cat "$1")
        kill -s "${2:-TERM}" "$pid"
        wait_for gone "$pid" || kill -s KILL "$pid"
    fi
    rm -f "$1"
}

usage() {
    sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0" >&2
    exit 2
}
