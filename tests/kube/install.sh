#!/bin/bash
# Installs what the test cluster needs from Debian and its kin. Does nothing when nothing is missing. A machine without
# root or apt-get goes without, and the tests say that they are skipped.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

packages=
missing() {
    [ -e "$1" ] || command -v "$1" >/dev/null || packages="$packages $2"
}
missing containerd containerd
missing runc runc
missing /usr/lib/cni/bridge containernetworking-plugins
missing nft nftables
missing iptables iptables
missing conntrack conntrack
missing buildah buildah
missing ip iproute2
missing openssl openssl
missing curl curl
missing unshare util-linux
missing etcdctl etcd-client
missing strace strace
missing stress-ng stress-ng
[ -n "$packages" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "not installed:$packages" >&2
    exit 0
fi
echo "installing with apt-get:$packages"
apt-get update -q
# Services that a package would start are not wanted: a cluster has its own.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
fi
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $packages
