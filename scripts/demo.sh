#!/bin/bash
# What `make run` shows: a real tree of at least 1 GiB goes over TLS with adaptive compression from one process to
# another, is verified, and is compared with plain copying: tar on both ends of one TCP connection.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target"
target=$(realpath "$target")
novacron=$target/release/novacron
peers=$target/release/dwcp-peers

work=$(mktemp -d "$target/demo.XXXXXX")
background=()
cleanup() {
    for pid in "${background[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap cleanup EXIT

# The first line that a program prints into a file, waited for.
first_line() {
    for _ in $(seq 100); do
        if [ -s "$1" ] && [ "$(wc -l <"$1")" -ge 1 ]; then
            head -1 "$1"
            return
        fi
        sleep 0.1
    done
    echo "nothing within 10 s in $1" >&2
    return 1
}

seconds_since() {
    awk -v start="$1" -v end="$EPOCHREALTIME" 'BEGIN { printf "%.2f", end - start }'
}

# A real tree: the toolchain, and if that is too small the registry's sources as well. What is still missing is made up:
# text from a seed, the same each time.
minimum=$((1 << 30))
sources=("$(rustc --print sysroot)")
sum_bytes() {
    find "${sources[@]}" -type f -printf '%s\n' | awk '{ sum += $1 } END { printf "%.0f\n", sum }'
}
bytes=$(sum_bytes)
registry=${CARGO_HOME:-$HOME/.cargo}/registry
if [ "$bytes" -lt $minimum ] && [ -d "$registry" ]; then
    sources+=("$registry")
    bytes=$(sum_bytes)
fi
if [ "$bytes" -lt $minimum ]; then
    echo "the toolchain and cargo's registry have $bytes bytes only: the rest of 1 GiB is generated"
    mkdir "$work/generated"
    # `head` has enough at some time, and the others then end by SIGPIPE.
    { openssl enc -aes-128-ctr -nosalt -K 00 -iv 00 </dev/zero | base64 || true; } 2>/dev/null |
        head -c $((minimum - bytes)) >"$work/generated/text"
    sources+=("$work/generated")
    bytes=$(sum_bytes)
fi
files=$(find "${sources[@]}" -type f | wc -l)
free=$(df -B1 --output=avail "$work" | tail -1)
if [ "$free" -lt $((bytes * 2 + (1 << 30))) ]; then
    echo "not enough room below $target: twice $bytes bytes are needed, $free are free" >&2
    exit 1
fi
echo "tree: ${sources[*]}: $files files, $bytes bytes"
# Both ways then read from memory.
find "${sources[@]}" -type f -exec cat {} + >/dev/null

# Plain: no encryption, no checksum, no resume, nothing waits for the disk.
plain=0
for source in "${sources[@]}"; do
    "$peers" tar-server --into "$work/plain/$(basename "$source")" >"$work/tar.out" &
    background+=($!)
    took=$("$peers" tar-client "$(first_line "$work/tar.out")" "$source")
    plain=$(awk -v a="$plain" -v b="$took" 'BEGIN { printf "%.2f", a + b }')
done
rm -rf "$work/plain"
sync -f "$work"

"$novacron" certs --out "$work/certs" --node localhost --node sender 2>"$work/certs.log"
tls() {
    echo --ca "$work/certs/ca.pem" --cert "$work/certs/$1.pem" --key "$work/certs/$1.key"
}
# shellcheck disable=SC2046
"$novacron" recv --listen 127.0.0.1:0 --into "$work/received" --once $(tls localhost) \
    >"$work/recv.out" 2>"$work/recv.log" &
receiver=$!
background+=($receiver)
address=$(first_line "$work/recv.log")
port=${address##*:}

echo
echo "novacron send ${sources[*]} localhost:$port"
start=$EPOCHREALTIME
# shellcheck disable=SC2046
"$novacron" send "${sources[@]}" "localhost:$port" $(tls sender)
took=$(seconds_since "$start")
if ! wait "$receiver"; then
    cat "$work/recv.log" >&2
    exit 1
fi

echo
echo "novacron compared the BLAKE3 of every file before it got its name; now diff compares the trees:"
for source in "${sources[@]}"; do
    diff -r --no-dereference "$source" "$work/received/$(basename "$source")"
done
echo "no difference"

echo
awk -v bytes="$bytes" -v plain="$plain" -v took="$took" 'BEGIN {
    printf "%-44s %8s %10s\n", "", "seconds", "MB/s"
    printf "%-44s %8.2f %10.0f\n", "tar over one TCP connection, not verified", plain, bytes / plain / 1e6
    printf "%-44s %8.2f %10.0f\n", "novacron over TLS, verified, on disk", took, bytes / took / 1e6
}'
echo "Loopback has no delay and no loss, which is where plain copying is at its best; see docs/benchmarks.md for WANs."

# The store: three members keep a key while they are stopped and started again. Beside it two agents, which find each other.
up() {
    # The first ports that are free; members keep theirs over a restart.
    for port in $ports; do
        "$novacron" up --data-dir "$work/store-$port" --port "$port" --agent-port $((port + 6509)) --api-port $((port + 5701)) \
            >"$work/up.out" 2>"$work/up.log" &
        member=$!
        background+=($member)
        for _ in $(seq 200); do
            [ ! -s "$work/up.out" ] || return 0
            kill -0 "$member" 2>/dev/null || break
            sleep 0.1
        done
        kill "$member" 2>/dev/null || true
    done
    cat "$work/up.log" >&2
    return 1
}
ports="2379 12379 22379 32379"
echo
echo "novacron up --data-dir ..."
up
ports=$port
endpoints=$(sed -n 's/.*ETCDCTL_ENDPOINTS=//p' "$work/up.out")
echo "ETCDCTL_ENDPOINTS=$endpoints"
"$novacron" kv --endpoints "$endpoints" put greeting "hello from three members"
kill "$member"
wait "$member"
up
echo "after a restart: $("$novacron" kv --endpoints "$endpoints" get greeting)"
if command -v etcdctl >/dev/null; then
    ETCDCTL_API=3 etcdctl --endpoints "$endpoints" endpoint status -w table
fi
node() {
    "$novacron" node --socket "$work/store-$port/agent-1/agent.sock" "$@"
}
for _ in $(seq 100); do
    ! node peers | grep -q agent-2 || break
    sleep 0.1
done
echo
echo "novacron node peers, send"
node peers
node send "$novacron" agent-2
cmp "$novacron" "$work/store-$port/agent-2/vms/novacron"
kill "$member"
wait "$member"
