#!/bin/bash
# rdma-table.sh SAID DOC: writes what rdma-compare.sh has said into the section bench:rdma of a document: medians, and the
# medians of the rounds' ratios. Used by test-rdma.sh.
set -euo pipefail
said=$1 document=$2

series() {
    sed -n "s/^result $1 //p" "$said"
}
# Of numbers on stdin, one a line.
middle() {
    sort -n | awk '{ v[NR] = $1 } END { if (NR) printf "%.3f", v[int((NR + 1) / 2)]; else print "-" }'
}
median() {
    series "$1" | middle | sed 's/..$//'
}
# row WHAT NAME
row() {
    echo "| $1 | $(median "$2_round_trip_us") | $(median "$2_bulk_mib_s") |"
}
# ratio WHAT OURS THEIRS RELATION BOUND
# The median of the rounds' ratios, because the speed of the guest changes between rounds.
ratio() {
    paste <(series "$2") <(series "$3") | awk '$2 > 0 { print $1 / $2 }' | middle |
        awk -v what="$1" -v relation="$4" -v bound="$5" '{
            met = bound == "" ? "reported" : (relation == "≤" ? $1 <= bound : $1 >= bound) ? "yes" : "no"
            printf "| %s | %s | %s | %s |\n", what, $1, bound == "" ? "-" : relation " " bound, met
        }'
}
rounds=$(grep -c '^result stream_bulk' "$said") || true
table=$(
    echo "Medians of $rounds rounds, in turns. Guest with 2 emulated processors (QEMU TCG) on $(nproc) cores, $(sed -n 's/^kernel //p' "$said"), commit $(git rev-parse --short=12 HEAD), $(date -u '+%Y-%m-%d %H:%M UTC'), \`scripts/test-rdma.sh --compare\`; load average of the machine then: $(cut -d" " -f1-2 /proc/loadavg)."
    echo
    echo "| over the wire between v0 and v1 | round trip p50, 64 bytes, us | bulk, MiB/s |"
    echo "|---|---:|---:|"
    echo "| ib_send_lat (2 x typical), polls | $(median ib_send_lat_round_trip_us) | - |"
    echo "| ib_send_lat -e (2 x typical), sleeps | $(median ib_send_lat_events_round_trip_us) | - |"
    echo "| ib_write_bw, 64 KiB, one-sided | - | $(median ib_write_bw_bulk_mib_s) |"
    row "stream of dwcp-sys" stream
    row "connection over RDMA" rdma
    row "connection over TCP" tcp
    echo
    echo "| what | value | must | met |"
    echo "|---|---:|---:|---|"
    ratio "round trip: stream / ib_send_lat" stream_round_trip_us ib_send_lat_round_trip_us "≤" 1.2
    ratio "bulk: stream / ib_write_bw" stream_bulk_mib_s ib_write_bw_bulk_mib_s "≥" 0.85
    ratio "round trip: connection over RDMA / over TCP" rdma_round_trip_us tcp_round_trip_us "≤" ""
    ratio "bulk: connection over RDMA / over TCP" rdma_bulk_mib_s tcp_bulk_mib_s "≥" ""
)
echo "$table"
TABLE=$table awk '
    /^<!-- [/]bench:rdma -->/ { skipping = 0 }
    !skipping { print }
    /^<!-- bench:rdma -->/ { print ENVIRON["TABLE"]; skipping = 1 }
' "$document" >"$said.document"
cat "$said.document" >"$document"
rm "$said.document"
