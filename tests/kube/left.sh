#!/bin/bash
# Prints what there is of a test cluster (see cluster.sh for which) on this machine, and nothing if there is nothing: also
# processes and mounts that nobody would find by the cluster's names.
set -euo pipefail
. "$(dirname "$0")/cluster.sh"

ip netns list | grep -E "^$prefix-" | sed 's/^/network namespace: /' || true
ip -o link | grep -E " ${prefix}[@:]" | sed 's/^/interface: /' || true
ip route | grep -F "$net." | sed 's/^/route: /' || true
find /sys/fs/cgroup -maxdepth 2 -name "$prefix" | sed 's/^/control group: /'
[ ! -e "$dir" ] || echo "folder: $dir"
for process in /proc/[0-9]*; do
    # Also mounts that only this process sees. It may end meanwhile.
    {
        ! grep -qF -e " $dir/" -e "$prefix-" "$process/mountinfo" || echo "mounts of process ${process#/proc/}"
        ! grep -qF "/$prefix/" "$process/cgroup" || echo "process ${process#/proc/}: its control group"
        [[ $(readlink "$process/cwd") != "$dir"* ]] || echo "process ${process#/proc/}: its folder"
    } 2>/dev/null || true
done
