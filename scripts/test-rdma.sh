#!/bin/bash
# Tests of RDMA on Soft-RoCE, in a virtual machine that tests/vm makes: the driver's own tests and its whole suite with
# links over RDMA, then the stream alone between two processes, one of which is killed. With `--compare`, also what a stream,
# a connection over RDMA and over TCP, and perftest's verbs tools carry over one wire in the same guest, in turns (COMPARE_ROUNDS,
# 7); with `--compare-only`, only that. The medians go into docs/benchmarks.md. A software device on an emulated processor
# says nothing of the speed of hardware.
#
# Where the machine cannot run it, it says why, also in test-skips.txt, and ends with 0.
set -euo pipefail
cd "$(dirname "$0")/.."

compare= only=
case ${1:-} in
    --compare) compare=1 ;;
    --compare-only) compare=1 only=1 ;;
esac
# What could not be installed, the guest names.
tests/vm/install.sh || echo "tests/vm/install.sh failed" >&2

# The features of the whole workspace, as in `make test`: nothing is compiled twice.
executable() {
    grep -F "\"src_path\":\"$PWD/$1\"" | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1
}
flags=(--release --locked --workspace --message-format json-render-diagnostics)
driver=$(cargo test "${flags[@]}" --no-run --test driver | executable dwcp-core/tests/driver/main.rs)
loopback=$(cargo build "${flags[@]}" --example rdma-loopback | executable dwcp-core/sys/examples/rdma-loopback/main.rs)
: "${driver:?}" "${loopback:?}"

said=$(mktemp)
trap 'rm -f "$said"' EXIT

# Runs commands in a guest with these files. 77: it cannot be made here.
guest() {
    local code=0
    nice tests/vm/run.sh "$@" | tee "$said" || code=${PIPESTATUS[0]}
    if [ "$code" = 77 ]; then
        sed -n 's/^SKIP.*/& [test-rdma]/p' "$said" >>"${CARGO_TARGET_DIR:-target}/test-skips.txt"
        exit 0
    fi
    return "$code"
}

if [ -z "$only" ]; then
echo "== the driver's tests of RDMA"
guest -f "$driver" "$driver --test-threads=1 --show-output rdma::"
# There is a device: only the test of what is done without one has nothing to do.
if grep '^SKIP' "$said" | grep -v '^SKIP: there is a device here'; then
    echo "these were to run here" >&2
    exit 1
fi

# Not these: they measure or stop the TCP connections that carry frames, or wait for several. Over RDMA there is one link.
tcp_only=$(printf -- '--skip %s ' latency:: zerocopy:: metrics:: over_several_links opens_no_more_links \
    says_at_once_how_many a_handshake_that_hangs retired_and_added thirty_links_die \
    reload:: events_lie_in_the_span)
# Nor these: datagrams go by UDP, whatever carries frames, and an emulated processor is too slow for the rates they ask for.
tcp_only+=' --skip datagrams::'
echo "== the driver's suite over RDMA, from one device to another over a wire"
guest -t 1800 -f "$driver" "
$(cat tests/vm/wire.sh)
DWCP_TEST_RDMA_ZONE=10.9.0.0/24 DWCP_TEST_ADDRESS=10.9.0.2 $driver --test-threads=1 --skip rdma:: $tcp_only"

echo "== 256 MiB and small messages, in one process, between two over a wire, and to one that is killed"
guest -f "$loopback" "
set -e
$loopback
$(cat tests/vm/wire.sh)
$loopback listen 10.9.0.2:7000 & listening=\$!
$loopback connect 10.9.0.2:7000
wait \$listening
$loopback listen 10.9.0.2:7001 & listening=\$!
$loopback connect 10.9.0.2:7001 & connecting=\$!
sleep 3
kill -9 \$listening
wait \$connecting && exit 1 || echo 'the survivor says so'
"
fi

if [ -n "$compare" ]; then
    echo "== beside the verbs tools, on one wire"
    link_bench=$(cargo build "${flags[@]}" --example link_bench | executable dwcp-core/examples/link_bench.rs)
    send_lat=$(command -v ib_send_lat) write_bw=$(command -v ib_write_bw)
    # Not nice: what competes for the processors would be measured.
    code=0
    tests/vm/run.sh -t 1200 -f "$loopback" -f "${link_bench:?}" -f "$send_lat" -f "$write_bw" "
LOOPBACK=$loopback LINK_BENCH=$link_bench IB_SEND_LAT=$send_lat IB_WRITE_BW=$write_bw ROUNDS=${COMPARE_ROUNDS:-7}
$(cat tests/vm/wire.sh tests/vm/rdma-compare.sh)" | tee "$said" || code=${PIPESTATUS[0]}
    [ "$code" = 0 ] || exit "$code"
    scripts/rdma-table.sh "$said" docs/benchmarks.md
fi
