#!/bin/bash
# What runs of a test cluster (see cluster.sh for which): its machines, nodes and pods. The exit code is 1 if none does.
set -euo pipefail
. "$(dirname "$0")/cluster.sh"

if [ ! -e "$dir/up" ] || ! first_process control >/dev/null; then
    echo "cluster $cluster is down"
    exit 1
fi
programs=$("$here/build.sh" --cached)
echo "KUBECONFIG=$kubeconfig"
for machine in control $(cd "$dir" && ls -d node?); do
    echo "$machine: $(ip netns pids "$prefix-$machine" | wc -l) processes beside those of pods; logs in $dir/$machine"
done
"$programs/kubectl" --kubeconfig "$kubeconfig" get nodes -o wide
"$programs/kubectl" --kubeconfig "$kubeconfig" get pods -A -o wide
