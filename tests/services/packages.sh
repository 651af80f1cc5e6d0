#!/usr/bin/env bash
# The Debian packages that the servers of the tests come from.
#   packages.sh list      one a line
#   packages.sh install   install those that are missing (root), without starting them as services
set -euo pipefail

packages=(
    slurmctld slurmd slurm-client slurm-wlm-basic-plugins slurmdbd munge mariadb-server # the cluster
    openssh-server openssh-client
    rabbitmq-server postgresql
    bubblewrap # containerized code
    graphviz   # provenance graphs
    util-linux procps
)

case ${1:-} in
list) printf '%s\n' "${packages[@]}" ;;
install)
    missing=()
    for package in "${packages[@]}"; do
        dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || exit 0
    # The packages would start servers with settings of their own: this policy forbids it, unless there is one already.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        trap 'rm -f "$policy"' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
    ;;
*)
    sed -n '2,4p' "$0" >&2
    exit 2
    ;;
esac
