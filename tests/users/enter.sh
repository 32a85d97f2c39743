#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# enter.sh FOLDER COMMAND [ARGUMENT]...: run a command that sees what fetch-programs.sh
# unpacked into FOLDER as if it were installed. Only the command and its children see
# that: a mount namespace of their own, which ends with them, and so does what they
# write to /etc, /run, /var/lib, /var/cache and /var/log.
set -e
folder=$1
shift
exec unshare --mount --net --propagation private sh -e -c '
    mount -t tmpfs tmpfs /run
    mount -t overlay overlay -o "lowerdir=$0/files/usr:/usr" /usr
    for top in /var/lib /var/cache /var/log "$0/files/etc:/etc"; do
        own=/run/written${top##*:}
        mkdir -p "$own/upper" "$own/work"
        mount -t overlay overlay \
            -o "lowerdir=$top,upperdir=$own/upper,workdir=$own/work" "${top##*:}"
    done
    exec "$@"' "$folder" "$@"
