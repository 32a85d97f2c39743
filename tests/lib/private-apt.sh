# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Sourced by scripts that unpack Debian packages into a private folder. The machine
# stays as it is: apt works on lists and a cache of its own below that folder. The
# archive is the one that the machine's own apt sources name.

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# machine_source RELEASE: the URI of the machine's source of a release.
machine_source() {
    apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
        awk -v r="$1" '$1 == r && $2 == "main" { print $3; exit }'
}

# private_apt FOLDER RELEASE [SUITE]: set the array apt_options for an apt of its own in
# FOLDER, that knows a release and perhaps a further suite, and fetch the lists.
private_apt() {
    local apt=$1 release=$2 suite=${3:-$2} uri key=/usr/share/keyrings/debian-archive-keyring.gpg s
    uri=$(machine_source "$release")
    [[ -n $uri ]] || die "no apt source for $release/main found; apt-get update has to run first"
    [[ -e $key ]] || key=
    mkdir -p "$apt"/{lists/partial,cache/archives/partial,parts,debs}
    # The release itself stays in the list: what a tool needs may be in either.
    for s in "$release" "$suite"; do
        printf 'deb %s%s %s main\n' "${key:+[signed-by=$key] }" "$uri" "$s"
    done | sort -u > "$apt/sources.list"

    apt_options=(-q
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
    apt-get "${apt_options[@]}" update >&2
}

# would_install ARGUMENT...: what apt would install here, were it asked to: lines
# "package=version", of what is named and of what that lacks.
would_install() {
    apt-get "${apt_options[@]}" -s --no-install-recommends "$@" |
        awk '/^Inst / { v = $3 ~ /^\[/ ? $4 : $3; sub(/^\(/, "", v); print $2 "=" v }'
}

# fetch_debs FOLDER PACKAGE=VERSION...: the packages' files, into FOLDER.
fetch_debs() {
    local folder=$1
    shift
    (cd "$folder" && apt-get "${apt_options[@]}" download "$@" >&2)
}
