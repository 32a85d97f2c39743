#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# From nothing to a disk read back: installs what is missing, builds a release
# into build/, and takes a real file system from raw to qcow2, to compressed qcow2,
# and back to raw. Where qemu-img is installed, it is asked for a second opinion.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
source "$top/tests/lib/packages.sh"
PATH=$PATH:/usr/sbin:/sbin # mke2fs and e2fsck are there on Debian
img=$top/build/tools/blockgraph-img

say() {
    printf '\n== %s\n' "$*"
}

run() {
    printf '$ %s\n' "${*//"$top/build/tools/"/}"
    "$@"
}

build() {
    if [[ ! -e $top/build/build.ninja ]]; then
        meson setup "$top/build" "$top" --buildtype=release -Dtests=false > "$work/log" 2>&1 ||
            { cat "$work/log"; exit 1; }
    fi
    ninja -C "$top/build" > "$work/log" 2>&1 || { tail -n 40 "$work/log"; exit 1; }
}

fingerprint() {
    sha256sum < "$1" | awk '{ print $1 }'
}

# What qemu-img, if there is one, says about image $1 of $2: both whether it is
# whole and whether it holds the bytes of disk.raw.
second_opinion() {
    if command -v qemu-img > /dev/null; then
        run qemu-img check -f "$2" "$1"
        run qemu-img compare -f raw -F "$2" disk.raw "$1"
    fi
}

need_packages "${packages_demo[@]}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say 'Building a release into build/'
build
run "$img" --version
cd "$work"

say "A real disk: an ext4 file system with this repository's docs"
run mke2fs -q -t ext4 -d "$top/docs" disk.raw 32M
run "$img" convert -f raw -O raw disk.raw copy.raw
run "$img" compare -f raw -F raw disk.raw copy.raw
run e2fsck -fn copy.raw

say 'The same as qcow2, written by our own writer: what it is, and which nodes it opens as'
run "$img" convert -f raw -O qcow2 disk.raw disk.qcow2
run "$img" check -f qcow2 disk.qcow2
second_opinion disk.qcow2 qcow2
run "$img" info disk.qcow2
run "$img" graph disk.qcow2

say 'Where its data lies'
run "$img" map disk.qcow2

say 'Compressed'
run "$img" convert -f qcow2 -O qcow2 -c -o compression_type=zstd disk.qcow2 small.qcow2
run "$img" check -f qcow2 small.qcow2
second_opinion small.qcow2 qcow2
run ls -s --block-size=1K disk.qcow2 small.qcow2

say 'Back to raw'
run "$img" convert -f qcow2 -O raw small.qcow2 out.raw
run "$img" compare -f raw -F raw disk.raw out.raw
run sha256sum disk.raw out.raw
[[ $(fingerprint out.raw) == "$(fingerprint disk.raw)" ]] ||
    { printf 'The bytes differ.\n'; exit 1; }
run e2fsck -fn out.raw

printf '\nProved: the ext4 disk went through qcow2 and compressed qcow2 of our own writer and came '
printf 'back byte for byte.\n'
if command -v qemu-img > /dev/null; then
    printf 'Second opinion: %s found both images whole and their content the same.\n' \
        "$(qemu-img --version | awk 'NR == 1 { print $1, $3 }')"
else
    printf 'Second opinion: none, qemu-img is not installed.\n'
fi
