#!/bin/bash
# How much of the code the tests run: a table of files, and lcov.info in the target folder. Ends with 1 when a test fails, or when lines that they run
# are less than COVERAGE_MIN per cent, which is to be what was measured last: without it, nothing is asked.
#
#   [COVERAGE_MIN=PER CENT] deploy/ci/coverage.sh [ARGUMENTS OF cargo test]
set -euo pipefail
cd "$(dirname "$0")/../.."

version=0.9.1
minimum=${COVERAGE_MIN:-0}
target=${CARGO_TARGET_DIR:-target}
[ $# -gt 0 ] || set -- --workspace

rustup component add llvm-tools
cargo llvm-cov --version 2>/dev/null | grep -q " $version\$" || cargo install --locked cargo-llvm-cov --version "$version"
mkdir -p "$target"
cargo llvm-cov --release --locked --lcov --output-path "$target/lcov.info" "$@"
cargo llvm-cov report --release --fail-under-lines "$minimum"
