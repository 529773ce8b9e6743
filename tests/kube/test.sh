#!/bin/bash
# Tests in a cluster of their own: the files beside this one that docs/kubernetes-tests.md lists (KUBE_PARTS: which); each cluster is then removed,
# and nothing of it may be left. Needs the programs of this repository, built (PROGRAMS).
#
# Where Kubernetes is not in the cache and KUBE_BUILD is not set, or something is missing, it says why, also in
# test-skips.txt, and ends with 0.
set -euo pipefail
export KUBE_CLUSTER=${KUBE_CLUSTER:-15}
. "$(dirname "$0")/cluster.sh"
target=${CARGO_TARGET_DIR:-$repository/target}
export PROGRAMS=${PROGRAMS:-$target/release}
export KUBE_STORE=$PROGRAMS/novacron-consensus
summary="tests in a cluster:"
# Seconds for everything to become ready, and for what was killed to come back.
# shellcheck disable=SC2034 # Parts use it.
ready_seconds=180

skip() {
    mkdir -p "$target"
    echo "SKIP: $* [test-kube]" | tee -a "$target/test-skips.txt"
    echo "$summary 0 passed, 0 failed, 1 skipped"
    exit 0
}
fail() {
    kubectl get pods -A -o wide || true
    kubectl -n novacron get events --sort-by=.metadata.creationTimestamp | tail -20 || true
    kubectl -n novacron-system logs --prefix -l app.kubernetes.io/component=operator --tail 20 2>/dev/null || true
    kubectl get ncc,ncr -A 2>/dev/null || true
    echo "FAIL: $*" >&2
    exit 1
}
kubectl() { "$programs/kubectl" --kubeconfig "$kubeconfig" "$@"; }
kubectl_in() { kubectl -n novacron "$@"; }
address_of() { kubectl_in get "$1" -o "jsonpath={$2}"; }
store() { ETCDCTL_API=3 etcdctl --endpoints "$1:2379" "${@:2}"; }
# What reads a pipe reads all of it: who writes would fail of what `grep -q` leaves.
# within SECONDS COMMAND...: until it succeeds.
within() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.5
    done
}
seconds_since() { awk -v a="$1" -v b="$(date +%s.%N)" 'BEGIN {printf "%.1f s\n", b - a}'; }
now() { date +%s.%N; }
settings_of_host() { sysctl -n vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys net.ipv4.ip_forward; }

[ "$(id -u)" = 0 ] || skip "a cluster needs root"
"$here/install.sh" || echo "tests/kube/install.sh failed" >&2
for program in containerd runc nft ip openssl curl buildah etcdctl unshare nsenter objcopy; do
    command -v "$program" >/dev/null || skip "no $program here (tests/kube/install.sh installs it)"
done
for hierarchy in cpu cpuacct cpuset memory; do
    [ -d "/sys/fs/cgroup/$hierarchy" ] || skip "no control groups of version 1 here, which this cluster's nodes use"
done
for program in novacron-api novacron-consensus novacron-dwcp novacron-operator; do
    [ -x "$PROGRAMS/$program" ] || fail "$PROGRAMS/$program is not there: make programs"
done
if ! programs=$("$here/build.sh" --cached); then
    [ -n "${KUBE_BUILD:-}" ] || skip "Kubernetes is not built yet: make kube-build does it, once"
    programs=$("$here/build.sh") || skip "Kubernetes cannot be built here"
fi

# All of it is in two clusters side by side: most of the time pods are waited for. Each lane's parts go one after the other.
lanes=("region datastore operator chaos guides" "admitted chart autoscaling federation")
side_by_side() {
    local lane broken=0
    # Not local: what ends the script reads them.
    said=$(mktemp -d) pids=()
    trap 'kill "${pids[@]}" 2>/dev/null || true; wait; rm -rf "$said"' EXIT
    for lane in "${!lanes[@]}"; do
        KUBE_CLUSTER=$(((KUBE_CLUSTER + clusters_max - lane) % clusters_max)) KUBE_PARTS=${lanes[lane]} "$here/test.sh" >"$said/$lane" 2>&1 &
        pids+=($!)
    done
    for lane in "${!lanes[@]}"; do
        wait "${pids[lane]}" || broken=1
        grep -v "^$summary" "$said/$lane" || true
    done
    cat "$said"/* | awk -v summary="$summary" '
        index($0, summary) == 1 { passed += $5; skipped += $9; whole++ }
        END { print summary, passed + 0, "passed,", '${#lanes[@]}' - whole, "failed,", skipped + 0, "skipped" }'
    exit $broken
}
[ -n "${KUBE_PARTS:-}" ] || side_by_side

before=$(settings_of_host)
[ -z "$("$here/left.sh")" ] || "$here/down.sh"
images=$(mktemp -d)
trap 'rm -rf "$images"; "$here/down.sh"' EXIT

start() {
    local began
    began=$(now)
    "$here/up.sh" >/dev/null
    echo "up in $(seconds_since "$began")"
}
# Removes the cluster; nothing may be left.
stop() {
    local began left
    began=$(now)
    "$here/down.sh"
    echo "down in $(seconds_since "$began")"
    left=$("$here/left.sh")
    [ -z "$left" ] || fail "left of the cluster: $left"
    [ "$(settings_of_host)" = "$before" ] || fail "the host's settings have changed: $before, now $(settings_of_host)"
}

passed=0
skipped=0
# without WHY: a part that cannot run here; those after it can.
without() {
    mkdir -p "$target"
    echo "SKIP: $* [test-kube]" | tee -a "$target/test-skips.txt"
    skipped=$((skipped + 1))
}
# step WHAT: begins the next part; the one before it has passed.
step() {
    echo "== $*"
    passed=$((passed + 1))
}

step "images"
"$repository/deploy/images/build.sh" "$images" api consensus dwcp
for part in $KUBE_PARTS; do
    # shellcheck source=/dev/null
    . "$here/$part.sh"
done
echo "$summary $passed passed, 0 failed, $skipped skipped"
