#!/bin/bash
# What it costs a core to drop a flood, in XDP and in user space; to receive datagrams, by AF_XDP and by recvmmsg; and
# what XDP costs TCP beside them. Writes what the benches said into the section bench:xdp of docs/benchmarks.md, unless one
# of them could not run here.
set -euo pipefail
cd "$(dirname "$0")/.."

said=$(mktemp)
trap 'rm -f "$said" "$said.document"' EXIT
cargo bench --locked -p dwcp-ebpf --features xdp --bench drop_rate --bench datagram_receive --bench other_traffic | tee "$said"
if grep -q SKIP "$said"; then
    exit 0
fi
table=$(
    echo "$(nproc) cores, commit $(git rev-parse --short=12 HEAD), $(date -u '+%Y-%m-%d %H:%M UTC'), \`make bench-xdp\`; load average of the machine then: $(cut -d" " -f1-2 /proc/loadavg)."
    echo
    echo '```'
    cat "$said"
    echo '```'
)
TABLE=$table awk '
    /^<!-- [/]bench:xdp -->/ { skipping = 0 }
    !skipping { print }
    /^<!-- bench:xdp -->/ { print ENVIRON["TABLE"]; skipping = 1 }
' docs/benchmarks.md >"$said.document"
cat "$said.document" >docs/benchmarks.md
