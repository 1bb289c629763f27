#!/usr/bin/env bash
# Rotation on schedule, an emergency revocation, and the end of a key version.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
cd "$workspace"
new_keyring prod
letterlock mount stores/prod prod --key-service "keyfile:$workspace/keys/prod.key"
control=prod/.letterlock
mkdir prod/web prod/database
echo 'first password' >prod/database/password
openssl genpkey -algorithm ed25519 >prod/web/key.pem 2>/dev/null

expect() { [[ $2 == "$3" ]] || fail "$1: '$2' instead of '$3'"; }
version() { getfattr --only-values --absolute-names --name user.letterlock.kek_version "$1"; }
flag() { getfattr --only-values --absolute-names --name user.letterlock.needs_regeneration "$1"; }

echo "1. On schedule: a new version every thirty days, and one now."
expect "next rotation" "$(cat $control/keys/next_rotation)" never
echo 30d >$control/keys/auto_rotate_period
[[ $(cat $control/keys/next_rotation) == 20* ]] || fail "no rotation is due"
letterlock rotate prod
expect "an old file's version" "$(version prod/database/password)" 1
letterlock rewrap prod --dry-run
letterlock rewrap prod --wait
expect "its version after rewrapping" "$(version prod/database/password)" 2

echo "2. An emergency: version 2 may be known to others."
letterlock revoke prod 2 --reason 'laptop lost' --wait
expect "the state of version 2" "$(cat $control/keys/2/state)" compromised
expect "the value" "$(cat prod/database/password)" 'first password'
expect "the file's version" "$(version prod/database/password)" 3
expect "the flag" "$(flag prod/database/password)" 1
echo 'second password' >prod/database/password
expect "the flag of a new value" "$(flag prod/database/password)" 0
grep -q '"/web/key.pem"' $control/revoke || fail "the report does not name the key"

echo "3. Whoever had a file's own key: re-encrypted, all of it or a part."
letterlock reencrypt prod /web --wait
letterlock reencrypt prod --wait --json

echo "4. The end of version 1: disabled, its destruction scheduled, called off."
expect "files under version 1" "$(cat $control/keys/1/files)" 0
letterlock key disable prod 1
if letterlock key destroy prod 1 --days 7 2>/dev/null; then fail "destroyed although it is not allowed"; fi
echo 1 >$control/keys/deletion_allowed
letterlock key destroy prod 1 --days 7
expect "its state" "$(cat $control/keys/1/state)" pending-destruction
letterlock key cancel-destroy prod 1
expect "its state" "$(cat $control/keys/1/state)" disabled

letterlock key list prod
letterlock umount prod
letterlock verify stores/prod --key-service "keyfile:$workspace/keys/prod.key"
echo "ok: rotated, revoked, retired"
