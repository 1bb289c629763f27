#!/usr/bin/env bash
# What the examples share: the program, a workspace that is cleaned up whatever happens, and a keyring in it.
# To be sourced.
set -euo pipefail
examples=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(dirname "$examples")

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

((EUID == 0)) || fail "run this as root: it mounts, and becomes other users"

# The program to show: $LETTERLOCK, else what was built last of release and debug, else an installed one.
if [[ -z ${LETTERLOCK:-} ]]; then
    LETTERLOCK=$(ls -t "$repository"/.build/{release,debug}/letterlock 2>/dev/null | head -n 1 || true)
    [[ -n $LETTERLOCK ]] || LETTERLOCK=$(command -v letterlock) || fail "no letterlock: run 'make build' first"
fi
LETTERLOCK=$(realpath "$LETTERLOCK")

workspace=$(mktemp -d "${TMPDIR:-/tmp}/letterlock-example.XXXXXX")
chmod 711 "$workspace"
mkdir "$workspace/bin"
ln -s "$LETTERLOCK" "$workspace/bin/letterlock"
export PATH="$workspace/bin:$PATH:/usr/sbin:/sbin"
# The examples forget what they have seen: nothing of them stays on the machine.
export LETTERLOCK_STATE_DIRECTORY="$workspace/state"

# Commands to be run at the end, the newest first.
cleanups=()
at_end() { cleanups=("$*" "${cleanups[@]}"); }

cleanup() {
    local status=$? command mounted
    trap - EXIT
    set +e
    for command in "${cleanups[@]}"; do eval "$command" >/dev/null 2>&1; done
    # What an example left mounted because it failed half-way.
    while read -r mounted; do
        letterlock umount "$mounted" >/dev/null 2>&1 || umount --lazy "$mounted" 2>/dev/null
    done < <(awk -v below="$workspace/" 'index($5, below) == 1 { print $5 }' /proc/self/mountinfo | tac)
    cd /
    rm -rf --one-file-system "$workspace"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# mount(8) finds the helper of a file system type in /sbin. Puts one there for the time of the example, if none is.
need_mount_helper() {
    local helper
    for helper in mount.fuse.letterlock umount.fuse.letterlock; do
        [[ -e /sbin/$helper ]] && continue
        ln -s "$LETTERLOCK" "/sbin/$helper"
        at_end "rm -f /sbin/$helper"
    done
}

# new_keyring NAME: a key file, a keyring that it opens, and a directory to mount it on.
new_keyring() {
    local name=$1
    mkdir -p "$workspace/keys" "$workspace/stores" "$workspace/$name"
    chmod 700 "$workspace/keys" "$workspace/stores"
    (umask 077 && openssl rand -base64 32 >"$workspace/keys/$name.key")
    letterlock init "$workspace/stores/$name" --name "$name" --key-service "keyfile:$workspace/keys/$name.key"
}

# wait_for SECONDS COMMAND…: until it succeeds.
wait_for() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}
