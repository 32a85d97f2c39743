#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# with-libvirtd.sh COMMAND [ARGUMENT]...: run a command beside a libvirtd of its own.
# For enter.sh only: it takes /etc, /run and /var/lib for its own.
set -e
mkdir -p /run/libvirt /etc/libvirt
# No user of its own, no cgroups, no devices of the machine's.
cat > /etc/libvirt/qemu.conf <<'CONF'
user = "root"
group = "root"
security_driver = "none"
namespaces = []
cgroup_controllers = []
CONF
# The users that Debian's package makes; this libvirtd knows their names, and no more.
echo 'libvirt-qemu:x:64055:64055::/nonexistent:/bin/false' >> /etc/passwd
printf '%s\n' libvirt:x:64056: libvirt-qemu:x:64055: >> /etc/group
# In the background it is ready when it returns.
libvirtd --daemon --pid-file /run/libvirtd.pid
status=0
"$@" || status=$?
kill "$(cat /run/libvirtd.pid)"
exit $status
