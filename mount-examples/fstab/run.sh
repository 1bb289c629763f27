#!/usr/bin/env bash
# Mounts two keyrings with mount(8) from one fstab, and unmounts them with umount(8).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
need_mount_helper

for name in prod staging; do new_keyring "$name"; done
table=$workspace/fstab
sed -e "s|/srv/letterlock/|$workspace/stores/|" -e "s|/secrets/|$workspace/|" -e "s|/etc/letterlock/|$workspace/keys/|" \
    "$examples/fstab/fstab" >"$table"

mount --fstab "$table" --all
for name in prod staging; do
    [[ $(findmnt --noheadings --output FSTYPE "$workspace/$name") == fuse.letterlock ]] || fail "$name is not mounted"
    [[ $(findmnt --noheadings --output SOURCE "$workspace/$name") == "$name" ]] || fail "$name has another source"
    echo "secret of $name" >"$workspace/$name/secret"
done
echo "both are mounted from one fstab"

mount --fstab "$table" --all
echo "a second mount -a leaves them alone"

for name in prod staging; do
    umount "$workspace/$name"
    [[ ! -e $workspace/$name/secret ]] || fail "$name is still mounted"
    mount --fstab "$table" "$workspace/$name"
    [[ $(cat "$workspace/$name/secret") == "secret of $name" ]] || fail "$name lost its secret"
    umount "$workspace/$name"
done
echo "unmounted and mounted again, each has its secret"
echo "ok: prod and staging from one fstab"
