#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Build and run the tests; the last line says how many passed and failed.
set -uo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
source "$top/tests/lib/packages.sh"
source "$top/tests/lib/phases.sh"

usage() {
    cat <<'HELP'
usage: tests/run.sh [--quick] [--phase PHASE]... [--suite SUITE]... [TEST]...

  --quick        one build, and what is fast: the developer's loop
  --phase PHASE  only this phase; may be repeated:
                   plain     gcc, every suite (tidy and package included); in a run of
                             all phases not what asan runs just so
                   asan      address and undefined-behaviour sanitizers
                   tsan      clang with the lock annotations as errors, and the
                             thread sanitizer
                   valgrind  the unit tests of the plain build under valgrind
  --suite SUITE  only this suite: unit, tools, users, crash, model, tidy, package; may
                 be repeated
  TEST           only these tests, by name (test-coroutine); in the plain phase
                 unless --phase says otherwise

Environment:
  BLOCKGRAPH_TEST_BUILDS    where the builds go, instead of build-tests/
  BLOCKGRAPH_TEST_CORPUS    where the image corpus is kept, instead of corpus/ there
  BLOCKGRAPH_TEST_QEMU_IMG  the qemu-img to compare with, instead of the installed
                            one; likewise _QEMU_IO, _QEMU_NBD, _QSD
  BLOCKGRAPH_TEST_USERS     where test-users finds libguestfs and libvirt, and unpacks
                            them when it does not; else it takes what is installed
  BLOCKGRAPH_TEST_SEED      the seed that a randomised test starts from
  BLOCKGRAPH_NO_INSTALL     install no packages
  CI=true                   warnings are errors, and so is a skipped test that
                            tests/skips.txt does not list
HELP
}

quick=false
phases=()
suites=()
tests=()
while [[ $# -gt 0 ]]; do
    case $1 in
        --quick) quick=true ;;
        --phase | --suite)
            [[ $# -ge 2 ]] || { usage >&2; exit 2; }
            if [[ $1 == --phase ]]; then phases+=("$2"); else suites+=("$2"); fi
            shift ;;
        -h | --help) usage; exit 0 ;;
        -*) usage >&2; exit 2 ;;
        *) tests+=("$1") ;;
    esac
    shift
done
for phase in "${phases[@]}"; do
    [[ $phase =~ ^(plain|asan|tsan|valgrind)$ ]] || { usage >&2; exit 2; }
done
complete=false
if [[ ${#phases[@]} -eq 0 ]]; then
    phases=(plain)
    if ! $quick && [[ ${#tests[@]} -eq 0 ]]; then
        phases=(plain asan tsan valgrind)
        [[ ${#suites[@]} -gt 0 ]] || complete=true
    fi
fi

need_packages "${packages_test[@]}" || exit 1
builds=${BLOCKGRAPH_TEST_BUILDS:-$top/build-tests}
mkdir -p "$builds"
# The images that the tool tests read; made once, and anew for another QEMU.
export BLOCKGRAPH_TEST_CORPUS=${BLOCKGRAPH_TEST_CORPUS:-$builds/corpus}
results=$(mktemp)
trap 'rm -f "$results"' EXIT

for phase in "${phases[@]}"; do
    run_phase "$phase"
done
judge_skips
print_summary
