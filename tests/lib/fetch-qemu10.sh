#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# fetch-qemu10.sh FOLDER: unpack QEMU 10.0's tools into FOLDER, for the tests
# that compare with the reference version, and print FOLDER.
#
# The machine stays as it is: nothing is installed. Debian 12 has QEMU 10.0 in its
# backports. A folder that holds working tools already is left alone.
set -euo pipefail
source "$(dirname "$0")/private-apt.sh"

tools=(qemu-img qemu-io qemu-nbd qemu-storage-daemon)
packages=(qemu-utils qemu-block-extra qemu-system-common)

works() {
    local tool line
    for tool in "${tools[@]}"; do
        line=$("$1/$tool" --version 2>/dev/null | head -n 1) || return 1
        [[ $line =~ $tool\ (version )?10\.0 ]] || return 1
    done
}

[[ $# -eq 1 ]] || die "usage: fetch-qemu10.sh FOLDER"
mkdir -p "$1"
folder=$(cd "$1" && pwd)
if works "$folder"; then
    printf '%s\n' "$folder"
    exit 0
fi

codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
case $codename in
    bookworm) suite=bookworm-backports ;;
    trixie) suite=trixie ;;
    *) die "QEMU 10.0 is taken from Debian 12 or 13, and this is '$codename'" ;;
esac
apt=$folder/apt
mkdir -p "$folder/root"
private_apt "$apt" "$codename" "$suite"
mapfile -t wanted < <(would_install --no-remove -t "$suite" install "${packages[@]}")
[[ ${#wanted[@]} -gt 0 ]] || die "apt finds no way to QEMU 10.0 in $suite"
fetch_debs "$apt/debs" "${wanted[@]}"
for deb in "$apt"/debs/*.deb; do
    dpkg -x "$deb" "$folder/root"
done

triplet=$(cd "$folder/root/usr/lib" && echo *-linux-gnu*)
for tool in "${tools[@]}"; do
    cat > "$folder/$tool" <<WRAPPER
#!/bin/sh
export LD_LIBRARY_PATH='$folder/root/usr/lib/$triplet:$folder/root/lib/$triplet'
export QEMU_MODULE_DIR='$folder/root/usr/lib/$triplet/qemu'
exec '$folder/root/usr/bin/$tool' "\$@"
WRAPPER
    chmod +x "$folder/$tool"
done
rm -rf "$apt"

works "$folder" || die "the unpacked tools in $folder do not run"
printf '%s\n' "$folder"
