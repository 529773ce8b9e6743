# Sourced by test.sh: every experiment of deploy/chaos, made by hand on the pods of a release with the limits of production, while clients write to the
# store and use the API. Nothing that was acknowledged may be lost, and no request may fail for good. Where an experiment takes any pod, this takes the
# worst: the member that leads.
# shellcheck shell=bash disable=SC2154,SC2329

. "$here/release.sh"
work=$images/chaos
experiments=$repository/deploy/chaos/experiments.yaml
# Seconds that a fault lasts: many elections, and no more patience than a test has.
fault_seconds=10
# Traffic of a node is the host's to cut, and the disk of a member's process to delay.
! no_tools "chaos" helm || return 0
for program in stress-ng strace; do
    command -v "$program" >/dev/null && continue
    without "chaos: no $program (tests/kube/install.sh)"
    return 0
done
mkdir "$work" "$work/novacron"
. "$here/operator/load.sh"

# number NAME KEY: what an experiment says.
number() { sed -n "/^  name: $1\$/,/^---/s/.*\b$2: \([0-9]*\).*/\1/p" "$experiments" | head -1; }
address() { in_namespace get pod "$1" -o 'jsonpath={.status.podIP}'; }
restarts() { in_namespace get pod "$1" -o 'jsonpath={.status.containerStatuses[0].restartCount}'; }
replica() { in_namespace get pods -l app.kubernetes.io/component=api --field-selector status.phase=Running -o 'jsonpath={.items[0].metadata.name}'; }
# process PROGRAM POD: its number on the host.
process() {
    local uid group
    uid=$(in_namespace get pod "$2" -o 'jsonpath={.metadata.uid}')
    # Processes that end meanwhile are none.
    { grep -l "pod$uid" /proc/[0-9]*/cgroup 2>/dev/null || true; } | while read -r group; do
        [[ $(readlink "$(dirname "$group")/exe") != */"$1" ]] || basename "$(dirname "$group")"
    done | head -1
}
# The member that leads, by its own metrics.
leading() {
    local pod
    for pod in novacron-consensus-{0,1,2}; do
        ! curl -sf --max-time 2 "http://$(address "$pod"):8081/metrics" | grep -c '^consensus_is_leader\b.* 1$' >/dev/null || echo "$pod"
    done | head -1
}
leads() { leader=$(leading) && [ -n "$leader" ]; }
all_ready() {
    in_namespace rollout status deployment/novacron-api --timeout 1s >/dev/null 2>&1 &&
        [ "$(in_namespace get statefulset novacron-consensus -o 'jsonpath={.status.readyReplicas}')" = 3 ]
}
# in_group PID COMMAND...: as what it uses is counted for the container of a process, and limited.
in_group() {
    local pid=$1
    shift
    (
        while IFS=: read -r _ controllers path; do
            [ ! -d "/sys/fs/cgroup/${controllers#name=}$path" ] || echo $BASHPID >"/sys/fs/cgroup/${controllers#name=}$path/cgroup.procs"
        done <"/proc/$pid/cgroup"
        exec "$@"
    )
}
# What a container's group counts: memory memory.usage_in_bytes, cpuacct cpuacct.usage.
counted() {
    local path
    path=$(sed -n "s/^[0-9]*:\(\|[a-z,]*,\)$2\(\|,[a-z,]*\)://p" "/proc/$1/cgroup")
    cat "/sys/fs/cgroup/$2$path/$3"
}

novacron-pod-kill() {
    local pod
    for pod in "$leader" "$(replica)"; do
        in_namespace delete pod "$pod" --force --grace-period 0 >/dev/null 2>&1
    done
    gone() { ! in_namespace get pod "$pod" >/dev/null 2>&1; }
    within "$ready_seconds" gone || fail "$pod does not go"
    sleep "$fault_seconds"
}
# Both directions, at the member's own interface.
novacron-partition() {
    local pid others cut
    pid=$(process novacron-consensus "$leader")
    others=$(in_namespace get pods -l app.kubernetes.io/component=consensus -o 'jsonpath={.items[*].status.podIP}' | tr ' ' '\n' | grep -vx "$(address "$leader")" | paste -sd,)
    nsenter --target "$pid" --net nft -f - <<NFT
table ip chaos {
    chain in { type filter hook input priority 0; ip saddr {$others} counter drop; }
    chain out { type filter hook output priority 0; ip daddr {$others} counter drop; }
}
NFT
    sleep "$fault_seconds"
    cut=$(nsenter --target "$pid" --net nft list table ip chaos | grep -o 'packets [0-9]*' | awk '{sum += $2} END {print sum}')
    [ "$cut" -gt 0 ] || fail "nothing was cut off"
    other_leads() { [ "$(leading)" != "$leader" ] && [ -n "$(leading)" ]; }
    other_leads || fail "no other member leads"
    nsenter --target "$pid" --net nft delete table ip chaos
    echo "$cut packets dropped; $(leading) leads instead of $leader"
}
novacron-cpu() {
    local pod pid before used
    pod=$(replica)
    pid=$(process novacron-api "$pod")
    before="$(restarts "$pod")" used=$(counted "$pid" cpuacct cpuacct.usage)
    in_group "$pid" stress-ng --quiet --cpu "$(number novacron-cpu workers)" --cpu-load "$(number novacron-cpu load)" --timeout "${fault_seconds}s" || fail "stress-ng"
    used=$(($(counted "$pid" cpuacct cpuacct.usage) - used))
    [ "$(restarts "$pod")" = "$before" ] || fail "$pod was restarted"
    echo "its group used $((used / fault_seconds / 10000000)) % of a CPU"
}
novacron-memory() {
    local pod pid before stress size
    pod=$(replica)
    pid=$(process novacron-api "$pod")
    before=$(restarts "$pod")
    size=$(($(number novacron-memory size) * 1000000000))
    in_group "$pid" stress-ng --quiet --vm "$(number novacron-memory workers)" --vm-bytes "$size" --vm-hang 0 --vm-populate &
    stress=$!
    taken() { [ "$(counted "$pid" memory memory.usage_in_bytes)" -ge "$size" ]; }
    within "$ready_seconds" taken || fail "its group has $(counted "$pid" memory memory.usage_in_bytes) bytes"
    sleep "$fault_seconds"
    taken || fail "it was taken away"
    # Its shell waits for it.
    kill "$(pgrep -P $stress)"
    wait $stress || true
    [ "$(restarts "$pod")" = "$before" ] || fail "$pod was restarted"
    echo "its group had more than $size bytes"
}
# What a file system that is slow would do: every call on a file takes so much longer.
novacron-io-delay() {
    local pid delay calls=fsync,fdatasync,pwrite64,pwritev,pwritev2,pread64,preadv,openat,ftruncate,fallocate,rename,renameat,renameat2,unlink
    pid=$(process novacron-consensus "$leader")
    delay=$(number novacron-io-delay delay)
    timeout --signal INT "$fault_seconds" strace -f -qq -o "$work/calls" -p "$pid" -e "trace=$calls" \
        -e "inject=$calls:delay_enter=$((delay * 1000))" || [ $? = 124 ] || fail "strace"
    [ "$(grep -c DELAYED "$work/calls")" -gt 0 ] || fail "nothing was delayed"
    echo "$(grep -c DELAYED "$work/calls") calls delayed by $delay ms, of them $(grep -c 'sync(' "$work/calls") of fsync and fdatasync"
}

step "chaos: a release with the limits of production"
KUBE_DATASTORE=etcd KUBE_NODES=3 KUBE_IMAGES=$images start
echo "nameserver $control" >"$work/resolv.conf"
# What members ask for is less: three nodes are one machine here.
install "${three[@]}" --set agent.enabled=false --set region=local \
    --set api.resources.requests.cpu=500m --set api.resources.limits.cpu=2 --set api.resources.limits.memory=4Gi \
    --set consensus.resources.requests.cpu=500m --set consensus.resources.limits.cpu=4 --set consensus.resources.limits.memory=8Gi
echo "Authorization: Bearer $token" >"$work/novacron/authorization"
mapfile -t names_of_experiments < <(sed -n 's/^  name: //p' "$experiments")
for experiment in "${names_of_experiments[@]}"; do
    [ "$(type -t "$experiment")" = function ] || fail "nobody here makes the experiment $experiment"
    step "chaos: $experiment"
    within "$ready_seconds" leads || fail "no member leads"
    load_begin novacron
    # Both clients are there, and use it.
    sleep 2
    "$experiment"
    within "$ready_seconds" all_ready || fail "$experiment: not all are ready again"
    sleep 2
    load_end novacron
done
stop
