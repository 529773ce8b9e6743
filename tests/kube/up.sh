#!/bin/bash
# Starts a test cluster (see cluster.sh for which) and prints the path of its kubeconfig: a control plane and two nodes,
# each a machine of its own made of namespaces. A cluster that runs already is left as it is; what is left of one that
# does not is removed first. If KUBE_IMAGES names a folder, its nodes have the images of all archives (*.tar) in it.
set -euo pipefail
. "$(dirname "$0")/cluster.sh"

# Seconds until the API server answers, and until nodes are ready.
up_seconds=180

[ "$(id -u)" = 0 ] || die "a cluster needs root"
"$here/install.sh" >&2
programs=$("$here/build.sh")
if [ "$datastore" = etcd ]; then
    store=$("$repository/scripts/etcd-build.sh")
else
    store=${KUBE_STORE:-${CARGO_TARGET_DIR:-$repository/target}/release/novacron-consensus}
    [ -x "$store" ] || die "$store is not there: cargo build --release --bin novacron-consensus"
fi

if [ -e "$dir/up" ] && first_process control >/dev/null; then
    echo "$kubeconfig"
    exit 0
fi
"$here/down.sh"
trap '[ -e "$dir/up" ] || { echo "it did not come up; logs are in $dir" >&2; }' EXIT
mkdir -p "$dir/images" "$dir/volumes"
chmod 711 "$dir"
"$here/certificates.sh"
"$here/images.sh" pause
if [ -n "${KUBE_IMAGES:-}" ]; then
    ln -s "$(realpath "$KUBE_IMAGES")"/*.tar "$dir/images/"
fi

# machine NAME COMMAND...: runs it as the first process of namespaces of its own; all that it starts ends with it.
machine() {
    local name=$1
    shift
    # shellcheck disable=SC2016 # For the shell that it starts.
    setsid nsenter --net="/run/netns/$prefix-$name" \
        unshare --pid --fork --kill-child --mount --mount-proc --uts --ipc -- \
        sh -c 'hostname "$0"; exec "$@"' "$name" "$@" </dev/null >"$dir/$name.log" 2>&1 &
}
in_machine() { ip netns exec "$prefix-$1" "${@:2}"; }

# A network namespace with lo, that forwards, and answers whichever way questions came.
network() {
    ip netns add "$prefix-$1"
    # shellcheck disable=SC2016
    in_machine "$1" sh -c 'ip link set lo up; cd /proc/sys/net/ipv4; echo 1 >ip_forward
        for i in all default; do echo 0 >conf/$i/rp_filter; echo 0 >conf/$i/send_redirects; done'
}
# The wire to the machines, all on one bridge at the control plane.
wire() {
    ip link add "$1" netns "$2" type veth peer name "$3" netns "$prefix-control"
    in_machine control ip link set "$3" master machines up
}

network control
in_machine control sh -c "ip link add machines type bridge; ip addr add $control/24 dev machines; ip link set machines up"
ip link add "$prefix" type veth peer name host netns "$prefix-control"
in_machine control ip link set host master machines up
ip addr add "$host/24" dev "$prefix"
ip link set "$prefix" up
ip route add "$pods" via "$control"
ip route add "$services" via "$control"
in_machine control ip route add "$services" via "$(node_address 1)"
for ((node = 1; node <= nodes; node++)); do
    network "node$node"
    wire eth0 "$prefix-node$node" "node$node"
    in_machine "node$node" sh -c "ip addr add $(node_address $node)/24 dev eth0; ip link set eth0 up
        ip route add default via $control; echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables"
    in_machine control ip route add "$(node_pods $node)" via "$(node_address $node)"
    for ((other = 1; other <= nodes; other++)); do
        [ $other = $node ] || in_machine "node$node" ip route add "$(node_pods $other)" via "$(node_address $other)"
    done
    for hierarchy in cpu cpuacct cpuset memory devices freezer blkio pids systemd; do
        group=/sys/fs/cgroup/$hierarchy/$prefix
        [ -d "/sys/fs/cgroup/$hierarchy" ] || continue
        mkdir -p "$group/node$node"
        [ $hierarchy = cpuset ] || continue
        # Empty sets take no processes.
        for set in cpus mems; do
            cat "/sys/fs/cgroup/cpuset/cpuset.$set" >"$group/cpuset.$set"
            cat "/sys/fs/cgroup/cpuset/cpuset.$set" >"$group/node$node/cpuset.$set"
        done
    done
done

machine control "$here/control.sh" "$programs" "$store"
for ((node = 1; node <= nodes; node++)); do
    machine "node$node" "$here/node.sh" "$programs" "$node"
done

kubectl() { "$programs/kubectl" --kubeconfig "$kubeconfig" "$@"; }
deadline=$((SECONDS + up_seconds))
until [ -e "$dir/control/up" ]; do
    [ $SECONDS -lt $deadline ] || die "the API server does not answer: $dir/control/kube-apiserver.log"
    sleep 0.2
done
kubectl apply -f "$here/cluster.yaml" >/dev/null
until [ "$(kubectl get nodes --no-headers 2>/dev/null | grep -cw Ready)" = "$nodes" ]; do
    [ $SECONDS -lt $deadline ] || die "nodes are not ready: $dir/node*/kubelet.log"
    sleep 0.5
done
touch "$dir/up"
echo "$kubeconfig"
