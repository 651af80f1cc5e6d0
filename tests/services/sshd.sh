#!/usr/bin/env bash
# An SSH server on the loopback interface, for whoever has the key that it makes.
#   SSHD_DIR=... SSHD_PORT=... sshd.sh up | down
# `up` may be repeated. SSHD_ENVIRONMENT ('A=1 B=2') is what sessions find in their environment; SSHD_HOST is the name
# of the server in the client's settings, which are written to $SSHD_DIR/home/.ssh/config: $SSHD_DIR/home is a HOME.
set -euo pipefail
# shellcheck source=tests/services/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
directory=${SSHD_DIR:?directory for the SSH server}
port=${SSHD_PORT:?port of the SSH server}
host=${SSHD_HOST:-mlcluster}

write_settings() {
    mkdir -p "$directory/home/.ssh" /run/sshd
    chmod 700 "$directory/home" "$directory/home/.ssh"
    [ -f "$directory/host_key" ] || ssh-keygen -q -t ed25519 -N '' -f "$directory/host_key"
    [ -f "$directory/home/.ssh/id" ] || ssh-keygen -q -t ed25519 -N '' -f "$directory/home/.ssh/id"
    install -m 600 "$directory/home/.ssh/id.pub" "$directory/authorized_keys"
    cat >"$directory/sshd_config" <<END
ListenAddress 127.0.0.1:$port
HostKey $directory/host_key
PidFile $directory/sshd.pid
AuthorizedKeysFile $directory/authorized_keys
StrictModes no
PasswordAuthentication no
UsePAM no
UseDNS no
PermitRootLogin prohibit-password
MaxStartups 100
MaxSessions 100
Subsystem sftp internal-sftp
${SSHD_ENVIRONMENT:+SetEnv $SSHD_ENVIRONMENT}
END
    # A dead connection is noticed within seconds; by default it hangs for minutes.
    cat >"$directory/home/.ssh/config" <<END
Host $host
  HostName 127.0.0.1
  Port $port
  User $(id -un)
  IdentityFile $directory/home/.ssh/id
  UserKnownHostsFile $directory/home/.ssh/known_hosts
  IdentitiesOnly yes
  ConnectTimeout 5
  ServerAliveInterval 3
  ServerAliveCountMax 2
END
    printf '[127.0.0.1]:%s %s\n' "$port" "$(cut -d' ' -f1,2 "$directory/host_key.pub")" >"$directory/home/.ssh/known_hosts"
}

answers() {
    ssh -F "$directory/home/.ssh/config" -o BatchMode=yes "$host" true
}

case ${1:-} in
up)
    write_settings
    alive "$directory/sshd.pid" || "$(command -v sshd || echo /usr/sbin/sshd)" -f "$directory/sshd_config" -E "$directory/sshd.log"
    wait_for answers
    ;;
down) stop "$directory/sshd.pid" ;;
*) usage ;;
esac
