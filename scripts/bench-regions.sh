#!/bin/bash
# How long changes take to be in all regions, and how many bytes: what two runs of the simulator of regions print, in the
# section bench:regions of docs/benchmarks.md. Seeds and times are simulated, so every machine prints the same.
set -euo pipefail
cd "$(dirname "$0")/.."

said=$(mktemp)
trap 'rm -f "$said" "$said.document"' EXIT
cargo test --release --locked -p consensus-regions --test sim -- --nocapture --test-threads 1 \
    ten_minutes_of_partitions without_faults | tee "$said"
rows=$(grep '^| ' "$said" | sort -r)
table=$(
    echo "| three regions | changes | in all regions, s: half | 99 of 100 | the last | MB of messages | / bytes of changes | leaders lost | equal, s after the last fault |"
    echo "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    echo "$rows"
    echo
    echo "Commit $(git rev-parse --short=12 HEAD), \`make bench-regions\`."
)
TABLE=$table awk '
    /^<!-- [/]bench:regions -->/ { skipping = 0 }
    !skipping { print }
    /^<!-- bench:regions -->/ { print ENVIRON["TABLE"]; skipping = 1 }
' docs/benchmarks.md >"$said.document"
cat "$said.document" >docs/benchmarks.md
