#!/bin/bash
# node.sh PROGRAMS NUMBER: a node, as the first process of its machine (see machine.sh): containerd, kubelet, kube-proxy.
#
# Its mounts are its own, so it sees its own /run, /var/lib and /var/log, and everything that is mounted in them is gone
# with its last process.
set -euo pipefail
. "$(dirname "$0")/cluster.sh"
programs=$1 number=$2
name=node$number
pki=$dir/pki

own="$dir/$name"
mkdir -p "$own/lib" "$own/log" "$own/cni" "$own/sysctl"
mount --make-rprivate /
# Else it would hold the networks of other clusters.
umount --lazy /run/netns || true
mount -t tmpfs tmpfs /run
mount --bind "$own/lib" /var/lib
mount --bind "$own/log" /var/log
mkdir -p /var/lib/kubelet
# Mounts of volumes have to reach containers, as on any node.
mount --make-rshared /
cd "$own"

# The kubelet wants these values of the whole machine. It finds them here, and the host keeps its own.
pretend() {
    echo "$2" >"sysctl/${1//\//.}"
    mount --bind "sysctl/${1//\//.}" "/proc/sys/$1"
}
pretend vm/overcommit_memory 1
pretend vm/panic_on_oom 0
pretend kernel/panic 10
pretend kernel/panic_on_oops 1
pretend kernel/keys/root_maxkeys 1000000
pretend kernel/keys/root_maxbytes 25000000

keep() { "$here/keep.sh" "$@" & }

cat >containerd.toml <<TOML
version = 2
oom_score = 0
disabled_plugins = [
    "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/pause:1"
# Nobody here may lower it.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$own/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
TOML
cat >cni/10-bridge.conflist <<JSON
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
    {"type": "bridge", "bridge": "pods0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "$(node_pods "$number")"}]],
            "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "/run/cni"}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
]}
JSON
: >resolv.conf
cat >kubelet.yaml <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $(node_address "$number")
readOnlyPort: 0
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $pki/ca.crt}
authorization: {mode: Webhook}
tlsCertFile: $pki/$name.crt
tlsPrivateKeyFile: $pki/$name.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$prefix/$name
clusterDNS: [$control]
clusterDomain: $domain
resolvConf: $own/resolv.conf
volumePluginDir: /var/lib/kubelet/volume-plugins
# Volumes of Secrets follow these sooner than they would: a minute is what tests would wait for.
syncFrequency: 10s
failSwapOn: false
failCgroupV1: false
oomScoreAdj: 0
makeIPTablesUtilChains: false
enforceNodeAllocatable: [pods]
# The disk is the host's, whose state says nothing of the cluster.
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
YAML
cat >proxy.yaml <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: $pki/proxy.kubeconfig}
hostnameOverride: $name
clusterCIDR: $pods
detectLocalMode: ClusterCIDR
bindAddress: 0.0.0.0
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
oomScoreAdj: 0
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
YAML

keep containerd containerd -c containerd.toml
until ctr -n k8s.io version >/dev/null 2>&1; do sleep 0.1; done
for image in "$dir"/images/*.tar; do
    [ ! -e "$image" ] || ctr -n k8s.io images import "$image" >>images.log 2>&1
done
keep kube-proxy "$programs/kube-proxy" --config=proxy.yaml
keep kubelet "$programs/kubelet" --config=kubelet.yaml --kubeconfig="$pki/$name.kubeconfig" --hostname-override="$name" \
    --node-ip="$(node_address "$number")" --node-labels="topology.kubernetes.io/region=local,topology.kubernetes.io/zone=zone$number"
touch up
wait
