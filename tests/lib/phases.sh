# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Sourced by tests/run.sh: what each phase builds and runs, and the summary.
# Outcomes are lines "pass|fail|skip PHASE/TEST [reason]" in the file $results.

outcome() {
    printf '%s\n' "$*" >> "$results"
}

# What the phases PLAIN, ASAN and TSAN are built with. Lines are all that a sanitizer
# reports: less to know about variables takes a seventh off its build. Headers parsed
# once take off more; without them, PLAIN sees whether a file includes what it needs.
build_options() {
    local strict=false
    [[ ${CI:-} != true ]] || strict=true
    printf '%s\n' -Dwerror=$strict
    case $1 in
        plain) printf '%s\n' -Dbuildtype=debugoptimized ;;
        asan) printf '%s\n' -Db_sanitize=address,undefined -Db_lundef=false -Db_pch=true \
            -Doptimization=1 -Dc_args=-g1 ;;
        tsan) printf '%s\n' -Dthread_safety=true -Db_sanitize=thread -Db_lundef=false \
            -Db_pch=true -Doptimization=1 -Dc_args=-g1 ;;
    esac
}

# The linker for a phase, where there is a choice: the sanitizers' programs are large and
# many, and gold takes half of what the default takes for them.
linker() {
    [[ $1 == plain ]] || ! command -v ld.gold > /dev/null || printf gold
}

# Make the build of a phase up to date; its failure is one failed test.
build() {
    local phase=$1 dir=$builds/$1 log=$builds/$1.log options
    mapfile -t options < <(build_options "$phase")
    if [[ ! -e $dir/build.ninja ]]; then
        rm -rf "$dir"
        CC=$([[ $phase == tsan ]] && echo clang || echo gcc) CC_LD=$(linker "$phase") \
            meson setup "$dir" "$top" "${options[@]}" > "$log" 2>&1 || {
            rm -rf "$dir"
            tail -n 30 "$log"
            outcome "fail $phase/configure"
            return 1
        }
    elif [[ $(meson configure "$dir" 2>/dev/null | awk '$1 == "werror" { print $2 }') != \
        "${options[0]#-Dwerror=}" ]]; then
        meson configure "$dir" "${options[0]}"
    fi
    if ! timeout 900 ninja -k 20 -C "$dir" > "$log" 2>&1; then
        grep -E -A 12 'FAILED|error:|warning:' "$log" | tail -n 60
        outcome "fail $phase/build"
        return 1
    fi
    [[ $phase != tsan ]] || outcome "pass $phase/thread-safety-annotations"
}

# meson_test PHASE BUILD ARGUMENT...: run tests and note their outcomes.
meson_test() {
    local phase=$1 dir=$builds/$2/ suite
    shift 2
    local arguments=(--no-rebuild --print-errorlogs --logbase "$phase" "$@")
    for suite in "${suites[@]}"; do
        arguments+=(--suite "$suite")
    done
    # The corpus is read once: a part of it where time is short, else all of it.
    if $quick; then
        arguments+=(--no-suite slow)
    elif [[ $phase == plain && ${#tests[@]} -eq 0 ]]; then
        arguments+=(--no-suite part-of-corpus)
        # What the sanitizers run just so, both programs side by side, is run there only.
        ! $complete || arguments+=(--no-suite whole-in-asan)
    fi
    rm -f "$dir"meson-logs/"$phase"*.json
    # The time-outs of the single tests end a hang; this one ends the rest.
    # One more than processors: tests wait for disks a good part of their time.
    timeout 1500 meson test -C "$dir" --num-processes $(($(nproc) + 1)) "${arguments[@]}" \
        "${tests[@]}"
    python3 "$top/tests/lib/count.py" "$phase" "$dir"meson-logs/"$phase"*.json >> "$results" ||
        outcome "fail $phase/log"
}

run_phase() {
    local phase=$1 start=$SECONDS
    printf '\n== %s\n' "$phase"
    case $phase in
        plain)
            build plain && meson_test plain plain ;;
        asan)
            # GLib's slices hide leaks and overruns from the checkers.
            build asan && G_SLICE=always-malloc \
                ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1 \
                UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
                meson_test asan asan --no-suite tidy --no-suite package --no-suite no-asan \
                --no-suite whole-corpus -t 2 ;;
        tsan)
            build tsan && TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1 \
                meson_test tsan tsan --no-suite tools --no-suite tidy --no-suite package \
                --no-suite no-tsan -t 3 ;;
        valgrind)
            build plain && G_SLICE=always-malloc BLOCKGRAPH_TEST_VALGRIND=1 \
                meson_test valgrind plain --no-suite tools --no-suite tidy --no-suite package \
                --no-suite no-valgrind -t 5 \
                --wrap 'valgrind -q --error-exitcode=99 --leak-check=full --fair-sched=yes
                    --errors-for-leak-kinds=definite' ;;
    esac
    printf '== %s took %d s\n' "$phase" $((SECONDS - start))
}

# In CI a skip that tests/skips.txt does not list is a failure, and so, after a
# complete run, is an entry there that nothing needed.
judge_skips() {
    [[ ${CI:-} == true ]] || return 0
    local pattern reason line name used
    local -A listed=()
    while read -r pattern reason; do
        [[ -z $pattern || $pattern == \#* ]] || listed[$pattern]=0
    done < "$top/tests/skips.txt"
    while read -r line; do
        name=${line#skip }
        used=false
        for pattern in "${!listed[@]}"; do
            # shellcheck disable=SC2053
            if [[ $name == $pattern ]]; then
                listed[$pattern]=1
                used=true
            fi
        done
        $used || outcome "fail $name skipped, and not listed in tests/skips.txt"
    done < <(grep '^skip ' "$results")
    $complete || return 0
    for pattern in "${!listed[@]}"; do
        [[ ${listed[$pattern]} == 1 ]] ||
            outcome "fail $pattern listed in tests/skips.txt, and not skipped"
    done
}

# The last line; the exit status is that of the tests.
print_summary() {
    local passed failed skipped
    passed=$(grep -c '^pass ' "$results")
    failed=$(grep -c '^fail ' "$results")
    skipped=$(grep -c '^skip ' "$results")
    printf '\n'
    sed -n -e 's/^skip /skipped: /p' -e 's/^fail /FAILED: /p' "$results"
    printf '%d passed, %d failed' "$passed" "$failed"
    [[ $skipped -eq 0 ]] || printf ', %d skipped' "$skipped"
    printf '\n'
    [[ $failed -eq 0 ]]
}
