#!/usr/bin/env bash
# PostgreSQL on the loopback interface, with a user and a database `aiida`, password `aiida`. Data are not kept safe.
#   POSTGRES_DIR=... POSTGRES_PORT=... postgres.sh up | down | create DATABASE
# `up` may be repeated; `create` makes another database of that user. PostgreSQL does not run as root: the user
# `aiidapg` is made for it.
set -euo pipefail
directory=${POSTGRES_DIR:?directory for the database}
port=${POSTGRES_PORT:?port of the database}
programs=$(find /usr/lib/postgresql -maxdepth 2 -name bin | sort -V | tail -n 1)

as_owner() {
    (cd "$directory" && runuser -u aiidapg -- "$@")
}

sql() {
    as_owner "$programs/psql" -X -q -v ON_ERROR_STOP=1 -h "$directory" -p "$port" -U postgres "$@"
}

runs() {
    as_owner "$programs/pg_ctl" -D "$directory/data" status >/dev/null 2>&1
}

up() {
    id aiidapg >/dev/null 2>&1 || useradd --system --no-create-home --shell /bin/bash aiidapg
    mkdir -p "$directory"
    chown aiidapg "$directory"
    if [ ! -s "$directory/data/PG_VERSION" ]; then
        as_owner "$programs/initdb" -D "$directory/data" -U postgres --encoding=UTF8 --locale=C --no-sync \
            --auth-local=trust --auth-host=scram-sha-256 >/dev/null
    fi
    local options="-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories=$directory"
    options+=' -c fsync=off -c synchronous_commit=off -c full_page_writes=off'
    runs || as_owner "$programs/pg_ctl" -s -w -D "$directory/data" -l "$directory/log" -o "$options" start
    if [ -z "$(sql -tAc "SELECT 1 FROM pg_database WHERE datname = 'aiida'")" ]; then
        sql -c "CREATE USER aiida PASSWORD 'aiida'" -c 'CREATE DATABASE aiida OWNER aiida'
    fi
}

case ${1:-} in
up) up ;;
down) if runs; then as_owner "$programs/pg_ctl" -s -m fast -w -D "$directory/data" stop; fi ;;
create) sql -c "CREATE DATABASE \"${2:?name of the database}\" OWNER aiida" ;;
*)
    sed -n '2,5{s/^# //p}' "$0" >&2
    exit 2
    ;;
esac
