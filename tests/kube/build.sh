#!/bin/bash
# Prints the folder with Kubernetes' programs, which are built once from their Go modules into the cache folder. With
# `--cached`, it does not build: the exit code is 1 when they are not there.
set -euo pipefail
cd "$(dirname "$0")/programs"

version=$(sed -n 's/^\tk8s.io\/kubernetes v//p; s/^require k8s.io\/kubernetes v//p' go.mod)
# Counts what this script makes of a version.
build=1
cache=${XDG_CACHE_HOME:-$HOME/.cache}/novacron-dwcp/kubernetes-$version-$build
PATH=$PATH:/usr/local/go/bin

if [ -x "$cache/kubelet" ]; then
    echo "$cache"
    exit 0
fi
[ "${1:-}" != --cached ] || exit 1
command -v go >/dev/null || { echo "go is not there (https://go.dev/dl, or Debian's golang-go)" >&2 && exit 1; }
echo "building Kubernetes $version in $cache; this takes a while, once" >&2

mkdir -p "$(dirname "$cache")"
# One at a time; whoever waited finds it done.
exec 9>"$cache.lock"
flock 9
if [ ! -x "$cache/kubelet" ]; then
    work=$(mktemp -d "$cache.new-XXXXXX")
    trap 'rm -rf "$work"' EXIT
    # Static, so that they run wherever they are put; without what only a debugger reads.
    CGO_ENABLED=0 go build -trimpath -buildvcs=false -mod=readonly -ldflags "-s -w \
        -X k8s.io/component-base/version.gitVersion=v$version -X k8s.io/component-base/version.gitMajor=${version%%.*} \
        -X k8s.io/component-base/version.gitMinor=$(echo "$version" | cut -d. -f2) \
        -X k8s.io/client-go/pkg/version.gitVersion=v$version" \
        -o "$work/" ./kube ./dns ./volumes ./pause >&2
    for part in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubectl kubelet; do
        ln -s kube "$work/$part"
    done
    # Complete, or not there.
    chmod 755 "$work"
    rm -rf "$cache"
    mv "$work" "$cache"
fi
echo "$cache"
