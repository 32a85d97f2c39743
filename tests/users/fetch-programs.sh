#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# fetch-programs.sh FOLDER: unpack libguestfs's tools, libvirt, virt-install, QEMU's
# emulator and a kernel into FOLDER/files, for test-users.
#
# Nothing is installed, and nothing runs that a package brings for its installation:
# tests/users/enter.sh lays the files over the machine's for one program and its
# children. A folder that is complete already is left alone.
set -euo pipefail
source "$(dirname "$0")/../lib/private-apt.sh"

programs=(guestfish guestfs-tools virtinst libvirt-daemon libvirt-daemon-driver-qemu
    libvirt-clients strace kmod)
# What Debian has them depend on and the test has no use for: libguestfs's list is that
# of its whole appliance, and the test makes a smaller one.
unused='perl|systemd|udev|mdadm|cpio|fdisk|dhcp|btrfs|cryptsetup|debootstrap|exfat|extlinux'
unused+='|f2fs|grub|fuse3|icoutils|netpbm|kpartx|ldm|lsscsi|lvm2|lzop|mtools|ntfs|scrub'
unused+='|sleuthkit|squashfs|syslinux|zerofree|ipxe|gawk|db-util|db5.3|pciutils|pci.ids|usb.ids'
unused+='|dmeventd|dosfstools|efi|l10n|supermin|timesyncd'
unused+='|glib-networking|libburn|libiso|libjte|xorriso'

[[ $# -eq 1 ]] || die "usage: fetch-programs.sh FOLDER"
mkdir -p "$1"
folder=$(cd "$1" && pwd)
# What other scripts made is made anew.
version=$(cat "$0" "${0%/*}/make-appliance.py" | cksum)
[[ $(cat "$folder/complete" 2>/dev/null) != "$version" ]] || exit 0

[[ $(dpkg --print-architecture) == amd64 ]] || die "the appliance is for amd64 alone"
codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
apt=$folder/apt
rm -rf "$apt" "$folder/files" "$folder/appliance"
private_apt "$apt" "$codename"

kernel=$(apt-cache "${apt_options[@]}" depends linux-image-cloud-amd64 |
    awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2; exit }')
[[ -n $kernel ]] || die "apt knows no kernel"
mapfile -t wanted < <(would_install install "${programs[@]}" | grep -v -E "^[^=]*($unused)")
[[ ${#wanted[@]} -gt 0 ]] || die "apt finds no way to ${programs[*]}"
fetch_debs "$apt/debs" "${wanted[@]}" "$kernel"

mkdir -p "$folder"/files/usr/{bin,sbin,lib,lib64} "$folder/files/etc"
for name in bin sbin lib lib64; do
    ln -s "usr/$name" "$folder/files/$name"
done
for deb in "$apt"/debs/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$folder/files" --keep-directory-symlink \
        --no-same-owner --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' \
        --exclude='./usr/share/locale/*'
done
rm -rf "$apt"
printf '%s\n' "$version" > "$folder/complete"
