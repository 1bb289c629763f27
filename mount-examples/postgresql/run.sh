#!/usr/bin/env bash
# A PostgreSQL client takes its password from a file on a Letterlock mount.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
binaries=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort --version-sort | tail -n 1)
[[ -x $binaries/initdb ]] || fail "PostgreSQL's server is not installed"
id postgres >/dev/null || fail "there is no user postgres"
as_postgres() { setpriv --reuid=postgres --regid=postgres --init-groups --reset-env env LC_ALL=C.UTF-8 "$@"; }

new_keyring prod
secrets=$workspace/prod
letterlock mount "$workspace/stores/prod" "$secrets" -o "key-service=keyfile:$workspace/keys/prod.key"
chmod 711 "$secrets"
install --directory --owner=postgres --mode=700 "$secrets/shop"

# The password is made on the mount and read from there; it is in no argument and no environment.
cluster=$workspace/cluster
install --directory --owner=postgres --mode=700 "$cluster"
new_password() {
    (umask 077 && openssl rand -hex 24 >"$secrets/shop/password.new")
    chown postgres "$secrets/shop/password.new"
    mv "$secrets/shop/password.new" "$secrets/shop/password"
}
write_password_file() {
    (umask 077 && {
        printf '127.0.0.1:*:*:postgres:'
        cat "$secrets/shop/password"
    } >"$secrets/shop/pgpass.new")
    chown postgres "$secrets/shop/pgpass.new"
    mv "$secrets/shop/pgpass.new" "$secrets/shop/pgpass"
}
new_password
as_postgres "$binaries/initdb" --pgdata="$cluster/data" --auth=scram-sha-256 --username=postgres \
    --pwfile="$secrets/shop/password" --no-sync >"$cluster/initdb.log" 2>&1 || fail "initdb: $(cat "$cluster/initdb.log")"
write_password_file

# The working directory must be one that the server's user may enter.
cd "$cluster"
at_end "as_postgres '$binaries/pg_ctl' --pgdata='$cluster/data' --mode=immediate stop"
started=
for _ in 1 2 3 4 5; do
    port=$((30000 + RANDOM % 10000))
    if as_postgres "$binaries/pg_ctl" --pgdata="$cluster/data" --wait --timeout=60 --log="$cluster/server.log" \
        --options="-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories='' -c fsync=off" \
        start >/dev/null; then
        started=yes
        break
    fi
done
[[ $started ]] || fail "the server does not start: $(cat "$cluster/server.log")"

query() {
    as_postgres PGPASSFILE="$1" PGCONNECT_TIMEOUT=20 psql --no-psqlrc --no-password --host=127.0.0.1 --port="$port" \
        --username=postgres --dbname=postgres --tuples-only --no-align --command="$2"
}
[[ $(query "$secrets/shop/pgpass" 'select 6 * 7') == 42 ]] || fail "the password on the mount is refused"
echo "psql took its password from the mount"

printf '127.0.0.1:*:*:postgres:wrong\n' >"$cluster/wrong"
chown postgres "$cluster/wrong"
chmod 600 "$cluster/wrong"
if query "$cluster/wrong" 'select 1' 2>/dev/null; then fail "a wrong password is taken"; fi
echo "a wrong password is refused"

letterlock rotate "$secrets"
new_password
# The statement comes by standard input, so that the password shows in no process list.
{
    printf "alter user postgres password '"
    tr --delete '\n' <"$secrets/shop/password"
    printf "';\n"
} | as_postgres PGPASSFILE="$secrets/shop/pgpass" psql --quiet --no-psqlrc --no-password --host=127.0.0.1 \
    --port="$port" --username=postgres --dbname=postgres
write_password_file
[[ $(query "$secrets/shop/pgpass" 'select 1') == 1 ]] || fail "the new password is refused"
version=$(getfattr --absolute-names --only-values --name user.letterlock.kek_version "$secrets/shop/pgpass")
[[ $version == 2 ]] || fail "the new password is under KEK version $version"
echo "after a rotation the new password is under KEK version 2, and works"

as_postgres "$binaries/pg_ctl" --pgdata="$cluster/data" --mode=fast --wait stop >/dev/null
letterlock umount "$secrets"
echo "ok: PostgreSQL with its password file on the mount"
