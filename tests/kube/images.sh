#!/bin/bash
# images.sh load ARCHIVE...: gives images (docker archives, as deploy/images/build.sh makes) to all nodes of a test cluster
# that runs. images.sh tag OLD NEW: their images novacron/NAME:OLD are novacron/NAME:NEW as well. images.sh pause: puts
# the image of pods' first container where nodes find it when they start.
set -euo pipefail
. "$(dirname "$0")/cluster.sh"

# on NODE COMMAND...: of its containerd.
on() {
    nsenter --target "$(first_process "$1")" --net --pid --mount ctr -n k8s.io images "${@:2}"
}
load() {
    local node archive
    for node in "$dir"/node?; do
        for archive; do
            on "$(basename "$node")" import - <"$archive"
        done
    done
}
tag() {
    local node image
    for node in "$dir"/node?; do
        for image in $(on "$(basename "$node")" list -q | grep "^docker.io/novacron/.*:$1$"); do
            on "$(basename "$node")" tag "$image" "${image%:*}:$2"
        done
    done
}

# An image is a layer, what to run of it, and a list of both: no tool is needed for one file.
pause() {
    local work id
    work=$(mktemp -d)
    mkdir "$work/root"
    cp "$("$here/build.sh" --cached)/pause" "$work/root/"
    tar -C "$work/root" --owner 0 --group 0 --mtime @0 -cf "$work/layer.tar" pause
    id=$(sha256sum <"$work/layer.tar" | cut -d' ' -f1)
    cat >"$work/config.json" <<JSON
{"architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
    "rootfs": {"type": "layers", "diff_ids": ["sha256:$id"]}}
JSON
    echo '[{"Config": "config.json", "RepoTags": ["localhost/pause:1"], "Layers": ["layer.tar"]}]' >"$work/manifest.json"
    tar -C "$work" -cf "$dir/images/pause.tar" manifest.json config.json layer.tar
    rm -rf "$work"
}

what=$1
shift
case $what in
    load) load "$@" ;;
    tag) tag "$@" ;;
    pause) pause ;;
    *) exit 2 ;;
esac
