#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# fetch-qemu10.sh FOLDER: unpack QEMU 10.0's tools into FOLDER, for the tests
# that compare with the reference version, and print FOLDER.
#
# The machine stays as it is: nothing is installed, and apt works on lists and
# a cache of its own below FOLDER. The archive is the one that the machine's
# own apt sources name; Debian 12 has QEMU 10.0 in its backports. A folder
# that holds working tools already is left alone.
set -euo pipefail

tools=(qemu-img qemu-io qemu-nbd qemu-storage-daemon)
packages=(qemu-utils qemu-block-extra qemu-system-common)

die() {
    printf 'fetch-qemu10: %s\n' "$*" >&2
    exit 1
}

works() {
    local tool line
    for tool in "${tools[@]}"; do
        line=$("$1/$tool" --version 2>/dev/null | head -n 1) || return 1
        [[ $line =~ $tool\ (version )?10\.0 ]] || return 1
    done
}

# The URI of the machine's source for its own release.
machine_source() {
    apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
        awk -v r="$1" '$1 == r && $2 == "main" { print $3; exit }'
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
uri=$(machine_source "$codename")
[[ -n $uri ]] || die "no apt source for $codename/main found; apt-get update has to run first"
key=/usr/share/keyrings/debian-archive-keyring.gpg
[[ -e $key ]] || key=

apt=$folder/apt
mkdir -p "$apt"/{lists/partial,cache/archives/partial,parts} "$folder/root"
# The release itself stays in the list: what a tool needs may be in either.
for s in "$codename" "$suite"; do
    printf 'deb %s%s %s main\n' "${key:+[signed-by=$key] }" "$uri" "$s"
done | sort -u > "$apt/sources.list"

options=(-q
    -o Dir::Etc::sourcelist="$apt/sources.list"
    -o Dir::Etc::sourceparts="$apt/parts"
    -o Dir::Etc::preferences=/dev/null
    -o Dir::Etc::preferencesparts="$apt/parts"
    -o Dir::State::lists="$apt/lists"
    -o Dir::State::extended_states="$apt/extended_states"
    -o Dir::Cache="$apt/cache"
    -o APT::Sandbox::User=root
    -o APT::Update::Post-Invoke::= -o APT::Update::Post-Invoke-Success::=
    -o Acquire::Retries=3
    -o Acquire::Languages=none)

apt-get "${options[@]}" update >&2

# What apt would install here, were it asked to: the tools and what they lack.
mapfile -t wanted < <(apt-get "${options[@]}" -s --no-install-recommends --no-remove \
    -t "$suite" install "${packages[@]}" |
    awk '/^Inst / { v = $3 ~ /^\[/ ? $4 : $3; sub(/^\(/, "", v); print $2 "=" v }')
[[ ${#wanted[@]} -gt 0 ]] || die "apt finds no way to QEMU 10.0 in $suite"

mkdir -p "$apt/debs"
(cd "$apt/debs" && apt-get "${options[@]}" download "${wanted[@]}" >&2)
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
