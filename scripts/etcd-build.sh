#!/bin/bash
# Prints the path of the etcd that benches compare with: the newest release, built once from its Go module into the cache
# folder. Where that cannot be done, it says why and prints Debian's etcd.
set -euo pipefail

version=${ETCD_VERSION:-3.7.3}
# Counts what this script makes of a version.
build=1
cache=${XDG_CACHE_HOME:-$HOME/.cache}/novacron-dwcp/etcd-$version-$build
PATH=$PATH:/usr/local/go/bin

debian() {
    echo "etcd $version cannot be built: $1" >&2
    command -v etcd || { echo "and there is no other etcd (Debian's package etcd-server)" >&2 && exit 1; }
    exit 0
}

if [ ! -x "$cache/etcd" ]; then
    command -v go >/dev/null || debian "go is not there"
    echo "building etcd $version in $cache" >&2
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    cd "$work"
    # A module of its own: `go install` takes none that replaces others, as etcd's does.
    {
        go mod init build
        go get "go.etcd.io/etcd/server/v3@v$version"
        go build -trimpath -o etcd go.etcd.io/etcd/server/v3
    } >log 2>&1 || debian "$(tail -n 1 log)"
    mkdir -p "$cache"
    # Complete, or not there.
    mv etcd "$cache/etcd.new"
    mv "$cache/etcd.new" "$cache/etcd"
fi
echo "$cache/etcd"
