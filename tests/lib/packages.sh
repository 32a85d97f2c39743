# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Sourced by the scripts: which Debian packages each of them needs, and how to
# install what is missing. The lists are here and nowhere else.

# To build the library and the tools.
packages_build=(gcc libc6-dev meson ninja-build pkg-config python3
    libglib2.0-dev libjson-glib-dev liburing-dev zlib1g-dev libzstd-dev libdeflate-dev
    libedit-dev systemtap-sdt-dev)

# tools/demo.sh makes a file system on top of that.
packages_demo=("${packages_build[@]}" e2fsprogs)

# The tests: a second compiler, the tools that serve as second opinion.
packages_test=("${packages_demo[@]}" libcmocka-dev clang libclang-rt-dev llvm valgrind
    qemu-utils bximage gdb binutils util-linux)

# .ci/run adds nothing that is installed; it unpacks QEMU 10.0 on the side, and the
# programs of tests/users.

packages_missing() {
    local name
    for name in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) == installed ]] ||
            printf '%s\n' "$name"
    done
}

as_root() {
    if [[ $(id -u) -eq 0 ]]; then
        DEBIAN_FRONTEND=noninteractive "$@"
    else
        sudo DEBIAN_FRONTEND=noninteractive "$@"
    fi
}

# need_packages NAME...: install what of it is missing, and say so. Silent when
# there is nothing to do. With BLOCKGRAPH_NO_INSTALL set, nothing is looked at:
# for other distributions, once their equivalents are there.
need_packages() {
    local missing name
    [[ -z ${BLOCKGRAPH_NO_INSTALL:-} ]] || return 0
    if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
        printf 'This is no Debian system: nothing is installed. Needed is what Debian calls\n'
        printf '  %s\n' "$*"
        printf 'Install their equivalents and set BLOCKGRAPH_NO_INSTALL=1.\n'
        exit 1
    fi
    mapfile -t missing < <(packages_missing "$@")
    [[ ${#missing[@]} -gt 0 ]] || return 0

    printf 'Installing: %s\n' "${missing[*]}"
    for name in "${missing[@]}"; do
        if ! apt-cache policy "$name" 2>/dev/null | grep -q 'Candidate: [^(]'; then
            as_root apt-get -q update
            break
        fi
    done
    # Lists can be there and be too old, which shows only when fetching fails.
    as_root apt-get -q -y --no-install-recommends install "${missing[@]}" || {
        as_root apt-get -q update
        as_root apt-get -q -y --no-install-recommends install "${missing[@]}"
    }
}
