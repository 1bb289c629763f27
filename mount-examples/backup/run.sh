#!/usr/bin/env bash
# A week of backups of a keyring that is in use, and the day on which they are needed.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
cd "$workspace"
new_keyring prod
key="keyfile:$workspace/keys/prod.key"
letterlock mount stores/prod prod --key-service "$key"
mkdir prod/shop backups
echo 'first password' >prod/shop/database-password
head -c 300000 /dev/urandom >prod/shop/keystore

expect() { [[ $2 == "$3" ]] || fail "$1: '$2' instead of '$3'"; }
refused() { if "$@" >/dev/null 2>&1; then fail "not refused: $*"; fi; }

echo "1. On Sunday everything, on the other days what has changed since the day before."
letterlock backup prod backups/sunday
echo 'second password' >prod/shop/database-password
letterlock backup prod backups/monday --incremental backups/sunday
letterlock rotate prod
echo new >prod/shop/token
letterlock backup prod backups/tuesday --incremental backups/monday
for day in monday tuesday; do
    (($(stat --format %s backups/$day) < 20000)) || fail "the backup of $day is as large as a full one"
done

echo "2. Tried before it is needed: all of it is verified, and nothing is made."
letterlock restore --dry-run backups/{sunday,monday,tuesday} --key-service "$key"
refused letterlock restore --dry-run backups/{sunday,tuesday} --key-service "$key"
refused letterlock restore --dry-run backups/{monday,tuesday} --key-service "$key"

echo "3. The store is lost."
letterlock umount prod
rm -r stores/prod
letterlock restore backups/{sunday,monday,tuesday} stores/prod --key-service "$key"
letterlock mount stores/prod prod --key-service "$key"
expect "the password" "$(cat prod/shop/database-password)" 'second password'
expect "the token" "$(cat prod/shop/token)" new
expect "the primary version" "$(cat prod/.letterlock/keys/primary)" 2

echo "4. One for the safe, which a recipient opens besides."
if command -v age-keygen >/dev/null; then
    age-keygen -o keys/safe 2>/dev/null
    letterlock backup prod backups/safe --recovery-recipient "$(age-keygen -y keys/safe)"
    letterlock restore --dry-run backups/safe --key-service age:keys/safe
    refused letterlock restore --dry-run backups/sunday --key-service age:keys/safe
else
    echo "   left out: age is not installed"
fi
echo "done"
