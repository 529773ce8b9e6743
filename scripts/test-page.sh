#!/bin/bash
# Tests the page of the HTTP API: that what is in git is what npm builds, its types, and, in headless Chromium against real
# daemons, that it shows what there is, moves VMs, can be used by keyboard, and has no faults that axe finds.
#
# usage: scripts/test-page.sh [ARGUMENTS OF playwright test]      after cargo build --workspace --release
#
# Where the machine cannot run it, it says why, also in test-skips.txt, and ends with 0.
#
# SCREENSHOTS=FOLDER puts pictures there; docs/images has them so. CHROMIUM names another browser than Debian's.
set -euo pipefail
cd "$(dirname "$0")/.."

root=$PWD
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")/release
skip() {
    mkdir -p "$target"
    echo "SKIP: $* [test-page]" | tee -a "$target/../test-skips.txt"
    exit 0
}
for program in novacron novacron-api novacron-dwcp; do
    [ -x "$target/$program" ] || skip "there is no $target/$program (cargo build --workspace --release)"
done

# Debian's packages: Playwright's own browsers would be fetched from elsewhere.
packages=
command -v node >/dev/null || packages+=" nodejs"
command -v npm >/dev/null || packages+=" npm"
[ -n "${CHROMIUM:-}" ] || command -v chromium >/dev/null || packages+=" chromium"
if [ -n "$packages" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing with apt-get:$packages"
    # shellcheck disable=SC2086
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $packages; } >/dev/null || true
fi
command -v npm >/dev/null || skip "there is no npm"
major=$(node -p 'process.versions.node.split(".")[0]')
[ "$major" -ge 20 ] || skip "node $major is too old: the page is built with 20"
CHROMIUM=${CHROMIUM:-$(command -v chromium || true)}
[ -x "$CHROMIUM" ] || skip "there is no Chromium"
export CHROMIUM

# In a copy: what is in git is compared, and never written over.
work=$(mktemp -d)
background=()
cleanup() {
    for pid in "${background[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    # They end before what they write to is gone.
    wait || true
    rm -rf "$work"
}
trap cleanup EXIT
page=$work/page
mkdir "$page"
tar -C daemons/api/page --exclude=./node_modules --exclude=./dist -c . | tar -C "$page" -x
cd "$page"
npm ci --prefer-offline >"$work/npm.log" 2>&1 || skip "npm ci: $(tail -n 1 "$work/npm.log")"
npm run --silent check
npm run --silent build
if ! diff -r dist "$root/daemons/api/page/dist"; then
    echo "daemons/api/page/dist is not what its sources make: npm ci && npm run build there" >&2
    exit 1
fi

store=24790 agents=29880 open=29088 login=29089
"$target/novacron" up --no-api --data-dir "$work/up" --port $store --agent-port $agents >"$work/up.log" 2>&1 &
background+=($!)
# An agent that sends slowly, so that there is something to see, and to cancel.
vms=$work/agent-3/vms
mkdir -p "$vms/db-1"
head -c $((256 << 20)) /dev/urandom >"$vms/db-1/disk.img"
"$target/novacron-dwcp" --node-id agent-3 --region region-3 --listen 127.0.0.1:$((agents + 4)) \
    --datagrams-listen 127.0.0.1:$((agents + 5)) --metrics-listen off --discovery-store "http://127.0.0.1:$store" \
    --discovery-interval 1s --control-socket "$work/agent-3/agent.sock" --transfers-from "$vms" --transfers-into "$vms" \
    --transport-pacing-bytes-per-second 2MiB --node-tune-state "$work/agent-3/tune" --node-mtu-state "$work/agent-3/mtu" \
    --tunnels-state "$work/agent-3/tunnels" >"$work/agent-3.log" 2>&1 &
background+=($!)
export AGENT_PID=$!
sockets=agent-1=$work/up/agent-1/agent.sock,agent-2=$work/up/agent-2/agent.sock,agent-3=$work/agent-3/agent.sock
replica=("$target/novacron-api" --store-endpoints "http://127.0.0.1:$store" --agents-sockets "$sockets" --metrics-listen off
    --limits-rate off --log-level warn)
"${replica[@]}" --replica open --data-dir "$work/open" --listen 127.0.0.1:$open >"$work/open.log" 2>&1 &
background+=($!)
"${replica[@]}" --replica login --data-dir "$work/login" --auth-tokens true --listen 127.0.0.1:$login >"$work/login.log" 2>&1 &
background+=($!)
export PAGE_URL=http://127.0.0.1:$open PAGE_LOGIN_URL=http://127.0.0.1:$login
for url in $PAGE_URL $PAGE_LOGIN_URL; do
    for _ in $(seq 600); do
        if curl -fsS -o /dev/null "$url/ready" 2>/dev/null; then break; fi
        sleep 0.1
    done
done
PAGE_TOKEN=$("${replica[@]}" --data-dir "$work/token" --auth-tokens true --create-token page)
post() {
    curl -fsS -H 'Content-Type: application/json' "$@"
}
vm() {
    post -o /dev/null "$PAGE_URL/api/v1/vms" -d '{"name": "'"$1"'", "cpus": 2, "memory_bytes": 268435456, "image": "disk.img",
        "region": "'"$2"'", "desired_state": "stopped", "node": "'"$3"'"}'
}
vm db-1 region-3 agent-3
vm sample region-1 agent-1
vm markup region-1 "<img src=x onerror=document.title='hit'>"
mkdir -p "$work/up/agent-1/vms/sample"
head -c $((16 << 20)) /dev/urandom >"$work/up/agent-1/vms/sample/disk.img"
PAGE_VIEWER_TOKEN=$(post -H "Authorization: Bearer $PAGE_TOKEN" "$PAGE_LOGIN_URL/api/v1/tokens" \
    -d '{"name": "viewer", "grants": [{"role": "viewer", "region": "region-1"}]}' | sed 's/.*"token":"\([^"]*\)".*/\1/')
export PAGE_TOKEN PAGE_VIEWER_TOKEN
if ! npm test --silent -- "$@"; then
    tail -n 20 "$work"/*.log >&2
    exit 1
fi
if grep -E 'panicked|ERROR' "$work"/*.log; then
    exit 1
fi
