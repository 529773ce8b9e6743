#!/bin/sh
# Installs what tests/vm/run.sh needs, on Debian and its kin: QEMU, what its guest is made of, and rdma-core. Does nothing
# when nothing is missing. A machine without root or apt-get goes without, and the tests say that they are skipped.
set -eu

packages=
missing() {
    [ -e "$1" ] || command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ] || packages="$packages $2"
}
missing qemu-system-x86_64 qemu-system-x86
missing busybox busybox-static
missing cpio cpio
missing xz xz-utils
missing depmod kmod
missing ip iproute2
missing rdma iproute2
missing ib_send_lat perftest
missing /etc/libibverbs.d/rxe.driver ibverbs-providers
[ -n "$packages" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "not installed:$packages" >&2
    exit 0
fi

echo "installing with apt-get:$packages"
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# shellcheck disable=SC2086
if apt-get install -q -y --no-remove --no-install-recommends $packages; then
    exit 0
fi
# qemu-utils from backports does not go with the release's QEMU: then QEMU is from backports too, by lists of our own.
lists=$(mktemp -d)
trap 'rm -rf "$lists"' EXIT
mkdir -p "$lists/parts" "$lists/lists/partial"
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
sed "s/^Suites:.*/Suites: $release-backports/" /etc/apt/sources.list.d/debian.sources |
    awk 'BEGIN { RS = ""; ORS = "\n\n" } !/security/' >"$lists/parts/backports.sources"
set -- -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$lists/parts" -o "Dir::State::lists=$lists/lists" \
    -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
apt-get "$@" update -q
apt-get "$@" install -q -y --no-remove --no-install-recommends -t "$release-backports" qemu-system-x86 ||
    echo "QEMU is not to be had: tests that need it will be skipped" >&2
# The rest, which does not depend on it.
# shellcheck disable=SC2086
apt-get install -q -y --no-remove --no-install-recommends $(echo "$packages" | sed 's/qemu-system-x86//')
