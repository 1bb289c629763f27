#!/usr/bin/env bash
# Two keyrings side by side, from their making to their unmounting, told as it goes.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
cd "$workspace"
mkdir keys stores prod staging
chmod 700 keys stores
umask 077

tell() { printf '\n%s\n' "$*"; }
# show 'COMMAND': prints and runs it, its output indented; the example ends if it fails.
show() {
    local output
    echo "  \$ $1"
    output=$(eval "$1" 2>&1) || fail "$1: $output"
    [[ -z $output ]] || sed 's/^/    /' <<<"$output"
}
# show_refused 'COMMAND': likewise, but it has to fail.
show_refused() {
    local output
    echo "  \$ $1"
    if output=$(eval "$1" 2>&1); then fail "$1 succeeded: $output"; fi
    sed 's/^/    /' <<<"$output"
}

echo "Letterlock keeps an environment's secrets as files: mounted, sealed on disk, rotatable."

tell "1. Two environments, a keyring each. What opens a keyring here is a key file (it could be a passphrase)."
for name in prod staging; do
    show "(umask 077; openssl rand -base64 32 >keys/$name.key)"
    show "letterlock init stores/$name --key-service keyfile:keys/$name.key"
done

tell "2. Mounted side by side, each is an ordinary directory."
for name in prod staging; do
    show "letterlock mount stores/$name $name -o key-service=keyfile:keys/$name.key"
done
show "findmnt --noheadings --types fuse.letterlock --output SOURCE,FSTYPE,TARGET | grep $workspace | sed 's|$workspace/||'"

tell "3. An administrator (umask 077) writes secrets; owners and modes are the usual ones."
show "chmod 711 prod staging; mkdir --mode=711 prod/shop staging/shop"
show "echo 'correct-horse-battery' >prod/shop/database-password"
show "echo 'only-for-staging-xyzzy' >staging/shop/database-password"
show "chown nobody prod/shop/database-password; chmod 400 prod/shop/database-password"

tell "4. An application reads its secret as a file, as its own user; the others' it may not read."
as_nobody="setpriv --reuid=65534 --regid=65534 --clear-groups"
show "$as_nobody cat prod/shop/database-password"
show_refused "$as_nobody cat staging/shop/database-password"

tell "5. On disk there is neither a secret nor a name: only sealed records."
show "sync --file-system prod/shop staging/shop; ls stores/prod"
for word in correct-horse only-for-staging database-password; do
    if grep --recursive --quiet --text --fixed-strings "$word" stores; then fail "'$word' is readable on disk"; fi
    echo "    '$word': not found in $(find stores -type f | wc -l) files, $(du -sh --apparent-size stores | cut -f1)"
done

tell "6. Rotation: writing to a control file makes a new key version; no file is touched."
show "echo 1 >prod/.letterlock/keys/rotate"
show "echo 'a-token-of-the-new-key' >prod/shop/api-token"
show "letterlock key list prod"

tell "7. Which file is under which version? Every file tells, and every version lists its own."
for file in database-password api-token; do
    show "getfattr --only-values --name user.letterlock.kek_version prod/shop/$file; echo"
done
show "tr '\\0' '\\n' <prod/.letterlock/keys/1/paths"

tell "8. The old version disabled: what it protects is refused at once, the rest goes on. Enabled, it is back."
show "letterlock key disable prod 1"
show_refused "cat prod/shop/database-password"
show "cat prod/shop/api-token"
show "letterlock key enable prod 1"
show "cat prod/shop/database-password"

tell "9. Unmounted, the secrets are gone from sight; the keyrings verify."
for name in prod staging; do show "letterlock umount $name"; done
show "ls -A prod"
for name in prod staging; do show "letterlock verify stores/$name --key-service keyfile:keys/$name.key"; done

tell "ok: done; what the demo made is removed again."
