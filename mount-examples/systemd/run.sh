#!/usr/bin/env bash
# Checks the template unit, and runs two instances of it as systemd would. --verify-only UNIT: the check alone.
set -euo pipefail

# systemd-analyze wants to see the programs that a unit names: it is shown a copy that names ones that are here.
verify() {
    local directory
    directory=$(mktemp -d)
    sed -e 's|/usr/local/bin/letterlock|/bin/true|' "$1" >"$directory/letterlock@.service"
    if ! systemd-analyze verify --man=no "$directory/letterlock@prod.service"; then
        rm -r "$directory"
        return 1
    fi
    rm -r "$directory"
}
if [[ ${1:-} == --verify-only ]]; then
    verify "$2"
    exit
fi

source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
unit=$examples/systemd/letterlock@.service

if command -v systemd-analyze >/dev/null; then
    verify "$unit" || fail "systemd does not take the unit"
    echo "systemd takes the unit"
fi
for directive in Type=notify NoNewPrivileges=yes LimitCORE=0 LoadCredentialEncrypted= SWIFT_BACKTRACE=enable=no; do
    grep --quiet --fixed-strings "$directive" "$unit" || fail "the unit lacks $directive"
done

# The unit's own command line, with an instance's name and this workspace in place of the machine's paths.
command_line() {
    sed --quiet 's/^ExecStart=//p' "$unit" \
        | sed -e "s|%i|$1|g" -e "s|/usr/local/bin/letterlock|letterlock|" \
            -e "s|/srv/letterlock/|$workspace/stores/|" -e "s|/secrets/|$workspace/|"
}

declare -A server
for name in prod staging; do
    new_keyring "$name"
    credentials=$workspace/credentials-$name
    mkdir --mode=700 "$credentials"
    install --mode=400 "$workspace/keys/$name.key" "$credentials/letterlock.$name"
    rm "$workspace/keys/$name.key"

    socket=$workspace/$name.socket
    python3 "$examples/systemd/notify-socket.py" "$socket" >"$workspace/$name.states" &
    listener=$!
    at_end "kill $listener"
    wait_for 30 grep --quiet listening "$workspace/$name.states" || fail "no notification socket"

    read -ra words < <(command_line "$name")
    CREDENTIALS_DIRECTORY=$credentials NOTIFY_SOCKET=$socket SWIFT_BACKTRACE=enable=no "${words[@]}" &
    server[$name]=$!
    at_end "kill ${server[$name]}"
    wait_for 60 grep --quiet READY=1 "$workspace/$name.states" || fail "$name never said that it is ready"
    grep --quiet "MAINPID=${server[$name]}" "$workspace/$name.states" || fail "$name named another process"
    echo "secret of $name" >"$workspace/$name/secret"
done
echo "both instances said READY=1, and are mounted"

for name in prod staging; do
    [[ $(cat "$workspace/$name/secret") == "secret of $name" ]] || fail "$name lost its secret"
    kill -TERM "${server[$name]}"
    wait "${server[$name]}" || fail "$name ended with status $?"
    grep --quiet STOPPING=1 "$workspace/$name.states" || wait_for 10 grep --quiet STOPPING=1 "$workspace/$name.states" \
        || fail "$name did not say that it stops"
    if mountpoint --quiet "$workspace/$name"; then fail "$name is still mounted"; fi
done
echo "SIGTERM unmounted both"
echo "ok: prod and staging as instances of one unit"
