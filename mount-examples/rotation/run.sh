#!/usr/bin/env bash
# The life of a key: rotated on schedule, revoked in an emergency, retired and on its way to destruction.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
cd "$workspace"
new_keyring prod
key="keyfile:$workspace/keys/prod.key"
letterlock mount stores/prod prod --key-service "$key"
control=prod/.letterlock
mkdir prod/web prod/database
echo 'first password' >prod/database/password
openssl genpkey -algorithm ed25519 >prod/web/key.pem 2>/dev/null
made=$(stat --format '%Y %Z %i' prod/database/password)

expect() { [[ $2 == "$3" ]] || fail "$1: '$2' instead of '$3'"; }
refused() { if "$@" >/dev/null 2>&1; then fail "not refused: $*"; fi; }
version() { getfattr --only-values --absolute-names --name user.letterlock.kek_version "$1"; }
flag() { getfattr --only-values --absolute-names --name user.letterlock.needs_regeneration "$1"; }

echo "1. On schedule: a new version every thirty days, and one now."
expect "next rotation" "$(cat $control/keys/next_rotation)" never
echo 30d >$control/keys/auto_rotate_period
[[ $(cat $control/keys/next_rotation) == 20* ]] || fail "no rotation is due"
refused letterlock rotate prod --if-latest 7
letterlock rotate prod --dry-run
expect "the latest version after a dry run" "$(cat $control/keys/rotate)" 1
letterlock rotate prod --if-latest 1
expect "an old file's version" "$(version prod/database/password)" 1
letterlock backup prod before.backup

echo "2. What is there already is wrapped anew, and nothing else of it changes."
letterlock rewrap prod --dry-run
letterlock rewrap prod --wait
expect "its version" "$(version prod/database/password)" 2
expect "its times and number" "$(stat --format '%Y %Z %i' prod/database/password)" "$made"

echo "3. An emergency: version 2 may be known to others."
letterlock revoke prod 2 --reason 'laptop lost' --dry-run
letterlock revoke prod 2 --reason 'laptop lost' --wait
expect "the state of version 2" "$(cat $control/keys/2/state)" compromised
expect "the value" "$(cat prod/database/password)" 'first password'
expect "the file's version" "$(version prod/database/password)" 3
expect "the flag" "$(flag prod/database/password)" 1
grep -q '"/web/key.pem"' $control/revoke || fail "the report does not name the key"
cat prod/web/key.pem >/dev/null
grep -q '"readers":\[{"path":"/' $control/revoke || fail "the report does not name who has read the files"
grep -q '{"step":"report","state":"done"' $control/revoke || fail "the report is not written"
grep -q '"type":"revocation"' $control/audit/tail || fail "the report is not in the audit log"
refused letterlock key enable prod 2
# Only a new value helps against those who know the old one.
echo 'second password' >prod/database/password
expect "the flag of a new value" "$(flag prod/database/password)" 0
expect "the flag of an old one" "$(flag prod/web/key.pem)" 1
# What was copied before knows nothing of all this.
letterlock restore before.backup stores/before --key-service "$key"
mkdir before
letterlock mount stores/before before --key-service "$key"
expect "the value in the backup" "$(cat before/database/password)" 'first password'
expect "its version there" "$(version before/database/password)" 1
letterlock umount before

echo "4. Whoever had a file's own key: a part re-encrypted, then all."
letterlock reencrypt prod /web --dry-run
letterlock reencrypt prod /web --wait
letterlock reencrypt prod --dry-run --json
letterlock reencrypt prod --wait --json

echo "5. The end of version 1: disabled, its destruction scheduled, called off."
expect "files under version 1" "$(cat $control/keys/1/files)" 0
letterlock key disable prod 1 --dry-run
letterlock key disable prod 1
refused letterlock key destroy prod 1 --days 7
echo 1 >$control/keys/deletion_allowed
refused letterlock key destroy prod 1 --days 6
refused letterlock key destroy prod 3 --days 7
letterlock key destroy prod 1 --days 7 --json
expect "its state" "$(cat $control/keys/1/state)" pending-destruction
letterlock key cancel-destroy prod 1
expect "its state" "$(cat $control/keys/1/state)" disabled
echo "   And by itself from now on: disabled after 30 days without use as the primary, erased a week after 90."
echo 30d >$control/keys/disable_after
echo 90d >$control/keys/destroy_after
expect "the period" "$(cat $control/keys/destroy_after)" 7776000

letterlock key list prod
letterlock umount prod
letterlock verify stores/prod --key-service "$key"
echo "ok: rotated, revoked, retired"
