#!/bin/bash
# Removes a test cluster (see cluster.sh for which) and everything that it was made of, however it ended. Nothing of it is
# kept in other places than its namespaces, control groups and folder, and all are found by their names.
set -euo pipefail
. "$(dirname "$0")/cluster.sh"

# Seconds for what the kernel takes down by itself.
down_seconds=30

namespaces() { ip netns list | awk '{print $1}' | grep -E "^$prefix-(control|node[0-9]+)$" || true; }

[ "$(id -u)" = 0 ] || die "a cluster needs root"
deadline=$((SECONDS + down_seconds))
# The first process of a machine takes all others with it, also those of pods.
for namespace in $(namespaces); do
    while pids=$(ip netns pids "$namespace") && [ -n "$pids" ]; do
        # shellcheck disable=SC2086
        kill -KILL $pids 2>/dev/null || true
        [ $SECONDS -lt $deadline ] || die "$namespace: processes do not end: $pids"
        sleep 0.1
    done
    ip netns del "$namespace"
done
# The other end went with the control plane, and this end with it.
while ip link show "$prefix" >/dev/null 2>&1; do
    ip link del "$prefix" 2>/dev/null || true
    [ $SECONDS -lt $deadline ] || die "$prefix: the interface stays"
    sleep 0.1
done
for group in /sys/fs/cgroup/*/"$prefix"; do
    [ -d "$group" ] || continue
    # A group is busy until the kernel is done with its last process.
    until find "$group" -depth -type d -exec rmdir {} + 2>/dev/null; do
        [ -d "$group" ] || break
        [ $SECONDS -lt $deadline ] || die "$group is busy"
        sleep 0.1
    done
done
# Mounts were the machines' own; one that is left would be emptied, not removed.
! grep -qF " $dir/" /proc/mounts || die "there are mounts in $dir: $(grep -F " $dir/" /proc/mounts)"
rm -rf --one-file-system "$dir"
rmdir "$(dirname "$dir")" 2>/dev/null || true
