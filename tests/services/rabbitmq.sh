#!/usr/bin/env bash
# RabbitMQ on the loopback interface, with its usual user `guest`, and without the time limit that AiiDA cannot have.
#   RABBITMQ_DIR=... RABBITMQ_PORT=... rabbitmq.sh up | down
# `up` may be repeated. Three ports from RABBITMQ_PORT on are taken.
set -euo pipefail
# shellcheck source=tests/services/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
directory=${RABBITMQ_DIR:?directory for the broker}
port=${RABBITMQ_PORT:?first of three ports for the broker}
programs=/usr/lib/rabbitmq/bin

export HOME=$directory/home LC_ALL=C.UTF-8
export RABBITMQ_BASE=$directory RABBITMQ_MNESIA_BASE=$directory/mnesia RABBITMQ_LOG_BASE=$directory/log
export RABBITMQ_CONFIG_FILE=$directory/rabbitmq.conf RABBITMQ_ADVANCED_CONFIG_FILE=$directory/advanced.config
export RABBITMQ_CONF_ENV_FILE=$directory/none RABBITMQ_ENABLED_PLUGINS_FILE=$directory/enabled_plugins
export RABBITMQ_NODENAME=aiida$port@localhost RABBITMQ_PID_FILE=$directory/pid RABBITMQ_DIST_PORT=$((port + 1))
export ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT=$((port + 2))
export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}'

up() {
    mkdir -p "$directory"/{mnesia,log,home}
    cat >"$directory/rabbitmq.conf" <<END
listeners.tcp.1 = 127.0.0.1:$port
log.file = $directory/log/rabbit.log
END
    echo '[{rabbit,[{consumer_timeout,undefined}]}].' >"$directory/advanced.config"
    echo '[].' >"$directory/enabled_plugins"
    if ! alive "$directory/pid"; then
        rm -f "$directory/pid"
        (cd "$directory" && setsid "$programs/rabbitmq-server" >log/out 2>&1 </dev/null &)
    fi
    timeout 60 "$programs/rabbitmqctl" --quiet wait --timeout 60 "$directory/pid"
}

down() {
    alive "$directory/pid" || return 0
    stop "$directory/pid"
    # The port mapper has a port of its own, so that it serves this broker only.
    epmd -port "$ERL_EPMD_PORT" -kill >/dev/null || true
}

case ${1:-} in
up) up ;;
down) down ;;
*) usage ;;
esac
