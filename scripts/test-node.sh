#!/bin/bash
# Tests of XDP, tuning, VXLAN, WireGuard and probing with a Debian kernel, in a virtual machine that tests/vm makes: that
# kernel has what the host's may lack, WireGuard and fq, and its verifier is another one. With `xdp`, only those of XDP.
# Where the machine cannot run it, it says why, also in test-skips.txt, and ends with 0.
set -euo pipefail
cd "$(dirname "$0")/.."

# What could not be installed, the guest names.
tests/vm/install.sh || echo "tests/vm/install.sh failed" >&2

# The features of the whole workspace, as in `make test`: nothing is compiled twice. TEST_FLAGS takes their place.
read -ra flags <<<"${TEST_FLAGS:---workspace}"
flags+=(--release --locked --message-format json-render-diagnostics)
# Not its tests of datagrams: an emulated processor is too slow for what they send.
sources=(dwcp-ebpf/src/lib.rs dwcp-ebpf/tests/{guard,kernel}.rs)
selected=(--lib --test guard --test kernel)
if [ "${1:-}" != xdp ]; then
    sources+=(dwcp-core/node/tests/{tune,vxlan,wireguard,probe}.rs)
    selected+=(--test tune --test vxlan --test wireguard --test probe)
fi
built=$(cargo test "${flags[@]}" --no-run "${selected[@]}")
files=()
commands='set -e; mount -t bpf bpf /sys/fs/bpf; '
for source in "${sources[@]}"; do
    program=$(grep -F "\"src_path\":\"$PWD/$source\"" <<<"$built" |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1)
    files+=(-f "${program:?}")
    commands+="$program --test-threads=1 --show-output; "
done
modules=()
for module in wireguard vxlan tun bridge sch_fq sch_tbf tcp_bbr; do
    modules+=(-m "$module")
done
files+=(-f "$(PATH=$PATH:/usr/sbin:/sbin command -v tc)")

said=$(mktemp)
trap 'rm -f "$said"' EXIT
code=0
nice tests/vm/run.sh -t 1200 "${files[@]}" "${modules[@]}" "$commands" | tee "$said" || code=${PIPESTATUS[0]}
if [ "$code" = 77 ]; then
    sed -n 's/^SKIP.*/& [test-node]/p' "$said" >>"${CARGO_TARGET_DIR:-target}/test-skips.txt"
    exit 0
fi
# That kernel has everything: a test that was skipped there has not shown what it is for.
if [ "$code" = 0 ] && grep '^SKIP' "$said"; then
    echo "skipped where nothing should be" >&2
    code=1
fi
exit "$code"
