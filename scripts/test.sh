#!/bin/bash
# `cargo test` with these arguments. libtest calls a test passed that printed `SKIP: why` and returned, and swallows what
# it printed. Here it counts as ignored in the line that closes its binary. All that were skipped are shown with their
# reasons at the end, then the names of those that failed; both are in test-skips.txt beside the programs, too. What
# passing tests print is in test.log there. TEST_NAME is another name for the two files.
#
# A program of tests that takes longer than TEST_SECONDS (900) has failed: one test that hangs must not keep the others
# from being run. libtest has then said which one it was.
set -euo pipefail

target=${CARGO_TARGET_DIR:-$(dirname "$0")/../target}
mkdir -p "$target"
log=$target/${TEST_NAME:-test}.log
skips=$target/${TEST_NAME:-test}-skips.txt

result='^test result: ([A-Za-z]+)\. ([0-9]+) passed; ([0-9]+) failed; ([0-9]+) ignored; (.*)$'
running='^ *(Running|Doc-tests) ([^(]*)(\((.*)\))?'

# Copies its input without what passing tests printed, and adds up.
report() {
    local line binary= name= said= passed=0 failed=0 ignored=0 skipped=() here=() broken=() failing= told=
    local -A why=()
    while IFS= read -r line; do
        if [[ $line =~ $running ]]; then
            # `target/release/deps/trees-0123456789abcdef`: without the folder and the hash.
            binary=${BASH_REMATCH[4]##*/}
            binary=${binary%-*}
            [ -n "$binary" ] || binary=${BASH_REMATCH[2]}
        elif [[ $line == "successes:" ]]; then
            said=1
            continue
        elif [[ $line == "failures:" ]]; then
            said=
        elif [[ $said && $line =~ ^----\ (.*)\ stdout\ ----$ ]]; then
            name=${BASH_REMATCH[1]}
        elif [[ ! $said && $line =~ ^----\ (.*)\ stdout\ ----$ ]]; then
            failing="$binary, ${BASH_REMATCH[1]}"
        elif [[ $told ]]; then
            why[$failing]+=" $line"
            told=
        elif [[ $failing && $line =~ ^thread.*\ panicked\ at\ (.*)$ ]]; then
            # What it said is in the next line.
            why[$failing]=": ${BASH_REMATCH[1]}"
            told=1
        elif [[ $said && $line == SKIP* ]]; then
            # A test may name several reasons and is one test.
            [[ " ${here[*]-} " == *" $name "* ]] || here+=("$name")
            skipped+=("$line [$binary, $name]")
        elif [[ $line =~ ^test\ (.*)\ \.\.\.\ FAILED$ ]]; then
            broken+=("$binary, ${BASH_REMATCH[1]}")
        elif [[ $line == "timeout: sending signal"* ]]; then
            # It has no result line any more.
            failed=$((failed + 1))
            broken+=("$binary, took too long")
        elif [[ $line =~ $result ]]; then
            said= failing=
            passed=$((passed + BASH_REMATCH[2] - ${#here[@]}))
            failed=$((failed + BASH_REMATCH[3]))
            ignored=$((ignored + BASH_REMATCH[4] + ${#here[@]}))
            line="test result: ${BASH_REMATCH[1]}. $((BASH_REMATCH[2] - ${#here[@]})) passed; ${BASH_REMATCH[3]} failed;"
            line+=" $((BASH_REMATCH[4] + ${#here[@]})) ignored; ${BASH_REMATCH[5]}"
            here=()
        fi
        [ -n "$said" ] || printf '%s\n' "$line"
    done
    {
        [ ${#skipped[@]} -eq 0 ] || printf '%s\n' "${skipped[@]}"
        for name in "${broken[@]}"; do
            echo "FAILED: [$name]${why[$name]-}"
        done
        echo "all tests: $passed passed, $failed failed, $ignored ignored or skipped"
    } >"$skips"
    echo
    cat "$skips"
}

host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
export "CARGO_TARGET_${host}_RUNNER=timeout --foreground --verbose -k 10 ${TEST_SECONDS:-900}"
"${CARGO:-cargo}" test "$@" -- --show-output 2>&1 | tee "$log" | report
