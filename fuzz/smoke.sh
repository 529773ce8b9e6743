#!/bin/sh
# Runs every fuzz target for a while: FUZZ_SECONDS each (30), beginning with the corpus in git.
# The instrumentation needs nightly flags of rustc; RUSTC_BOOTSTRAP=1 lets the stable one take them.
set -eu
cd "$(dirname "$0")"

skip() {
    echo "SKIP: $1"
    exit 0
}

if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "installing cargo-fuzz"
    cargo install cargo-fuzz --locked --quiet || skip "cargo-fuzz is not installed and could not be"
fi
command -v c++ >/dev/null || skip "no C++ compiler for libFuzzer"

export RUSTC_BOOTSTRAP=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for target in $(cargo fuzz list); do
    mkdir "$work/$target" # what is found goes here, not into the corpus in git
    cargo fuzz run "$target" "$work/$target" "corpus/$target" -- \
        -max_total_time="${FUZZ_SECONDS:-30}" -max_len=4096 -rss_limit_mb=1024 -print_final_stats=1
done
