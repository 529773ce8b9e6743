#!/bin/bash
# Names, places and addresses of a test cluster; sourced by the scripts beside it.
#
# KUBE_CLUSTER (0..15) is its number: clusters with different numbers run side by side and do not meet. KUBE_NODES is how
# many nodes it begins with, KUBE_DATASTORE what the API server keeps its objects in: `etcd`, or `novacron`, three members
# of this project's store.
# shellcheck disable=SC2034 # Used by those who source it.

cluster=${KUBE_CLUSTER:-0}
nodes=${KUBE_NODES:-2}
datastore=${KUBE_DATASTORE:-etcd}
# More have no addresses.
clusters_max=16
nodes_max=8

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../.." && pwd)
# A file system that overlayfs can lie on.
dir=${KUBE_DIR:-/var/tmp/novacron-kube}/$cluster
kubeconfig=$dir/admin.kubeconfig
# Of network namespaces, the interface that the host has, and control groups.
prefix=nvk$cluster

# 10.160.0.0/16 and those after it, one a cluster: machines, pods and services.
net=10.$((160 + cluster))
control=$net.0.1
host=$net.0.254
pods=$net.16.0/20
services=$net.128.0/20
# The first of services, which Kubernetes gives to its API server.
api_service=$net.128.1
domain=cluster.local

node_address() { echo "$net.0.$((10 + $1))"; }
node_pods() { echo "$net.$((16 + $1)).0/24"; }
node_gateway() { echo "$net.$((16 + $1)).1"; }

# The first process of a machine: the one of its network namespace that is one PID namespace below ours and 1 there.
first_process() {
    local pid
    for pid in $(ip netns pids "$prefix-$1" 2>/dev/null); do
        if awk '/^NSpid:/ {exit !(NF == 3 && $3 == 1)}' "/proc/$pid/status" 2>/dev/null; then
            echo "$pid"
            return
        fi
    done
    return 1
}

die() {
    echo "$*" >&2
    exit 1
}

[[ $cluster =~ ^[0-9]+$ && $cluster -lt $clusters_max ]] || die "KUBE_CLUSTER: 0 to $((clusters_max - 1))"
[[ $nodes =~ ^[0-9]+$ && $nodes -ge 1 && $nodes -le $nodes_max ]] || die "KUBE_NODES: 1 to $nodes_max"
[[ $datastore == etcd || $datastore == novacron ]] || die "KUBE_DATASTORE: etcd or novacron"
PATH=$PATH:/usr/sbin:/sbin
