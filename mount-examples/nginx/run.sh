#!/usr/bin/env bash
# nginx serves TLS with a key that lies on a Letterlock mount, and takes a new one at a reload.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
command -v nginx >/dev/null || fail "nginx is not installed"

new_keyring prod
secrets=$workspace/prod
letterlock mount "$workspace/stores/prod" "$secrets" -o "key-service=keyfile:$workspace/keys/prod.key"
mkdir --mode=700 "$secrets/web"

# make_key NAME: a key that never touches another file system, and a certificate for it.
make_key() {
    (umask 077 && openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=$1" \
        -keyout "$secrets/web/server.key" -out "$secrets/web/server.crt" 2>/dev/null)
}
make_key first.example
fetch() { curl --silent --show-error --insecure --max-time 10 --noproxy '*' "https://127.0.0.1:$port/"; }
subject() {
    openssl s_client -connect "127.0.0.1:$port" </dev/null 2>/dev/null | openssl x509 -noout -subject
}

mkdir "$workspace/temporary"
started=
for _ in 1 2 3 4 5; do
    port=$((20000 + RANDOM % 10000))
    sed -e "s|@WORKSPACE@|$workspace|" -e "s|@SECRETS@|$secrets|" -e "s|@PORT@|$port|" \
        "$examples/nginx/nginx.conf" >"$workspace/nginx.conf"
    # Another's port is no reason to fail.
    if nginx -c "$workspace/nginx.conf" -e "$workspace/nginx.log" 2>"$workspace/nginx.start"; then
        started=yes
        break
    fi
done
[[ $started ]] || fail "nginx does not start: $(cat "$workspace/nginx.start")"
wait_for 30 test -s "$workspace/nginx.pid" || fail "nginx wrote no pid file"
master=$(cat "$workspace/nginx.pid")
at_end "kill $master; wait_for 30 eval '! kill -0 $master'"

wait_for 30 fetch || fail "nginx does not answer"
[[ $(fetch) == "served under a key that is nowhere on disk" ]] || fail "nginx serves something else"
[[ $(subject) == *first.example* ]] || fail "nginx shows another certificate: $(subject)"
echo "nginx serves TLS with its key on the mount"

make_key second.example
kill -HUP "$master"
new_certificate() { [[ $(subject) == *second.example* ]]; }
wait_for 30 new_certificate || fail "nginx did not take the new key"
echo "a new key was taken at the reload"

if grep --recursive --quiet --text --fixed-strings "PRIVATE KEY" "$workspace/stores"; then fail "a key is on disk"; fi
kill -QUIT "$master"
wait_for 30 eval "! kill -0 $master" || fail "nginx does not end"
letterlock umount "$secrets"
echo "ok: nginx with its TLS key on the mount"
