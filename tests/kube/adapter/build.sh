#!/bin/bash
# Prints the folder with prometheus-adapter (`adapter`), which is built once from its Go modules into the cache folder: those that it is released
# with, which are not those of the cluster's Kubernetes.
set -euo pipefail
cd "$(dirname "$0")"

version=$(sed -n 's/^require sigs.k8s.io\/prometheus-adapter v//p' go.mod)
# Counts what this script makes of a version.
build=1
cache=${XDG_CACHE_HOME:-$HOME/.cache}/novacron-dwcp/prometheus-adapter-$version-$build
PATH=$PATH:/usr/local/go/bin

mkdir -p "$(dirname "$cache")"
# One at a time; whoever waited finds it done.
exec 9>"$cache.lock"
flock 9
if [ ! -x "$cache/adapter" ]; then
    command -v go >/dev/null || { echo "go is not there (https://go.dev/dl, or Debian's golang-go)" >&2 && exit 1; }
    echo "building prometheus-adapter $version in $cache; this takes a while, once" >&2
    mkdir -p "$cache"
    # Static, so that it runs wherever it is put; without what only a debugger reads.
    CGO_ENABLED=0 go build -trimpath -buildvcs=false -mod=readonly -ldflags "-s -w" -o "$cache/adapter.new" sigs.k8s.io/prometheus-adapter/cmd/adapter >&2
    mv "$cache/adapter.new" "$cache/adapter"
fi
echo "$cache"
