#!/bin/bash
# images.sh load ARCHIVE...: gives images (docker archives, as deploy/images/build.sh makes) to all nodes of a test cluster
# that runs. images.sh tag OLD NEW: their images novacron/NAME:OLD are novacron/NAME:NEW as well. images.sh pack
# FOLDER IMAGE PROGRAM ARCHIVE: makes one of a folder. images.sh pause: puts the image of pods' first container where nodes find it when they start.
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

# pack FOLDER IMAGE PROGRAM ARCHIVE: an image is a layer, what to run of it, and a list of both. No tool is needed.
pack() {
    local work id
    work=$(mktemp -d)
    tar -C "$1" --owner 0 --group 0 --mtime @0 -cf "$work/layer.tar" .
    id=$(sha256sum <"$work/layer.tar" | cut -d' ' -f1)
    cat >"$work/config.json" <<JSON
{"architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["$3"], "User": "65535:65535"},
    "rootfs": {"type": "layers", "diff_ids": ["sha256:$id"]}}
JSON
    echo "[{\"Config\": \"config.json\", \"RepoTags\": [\"$2\"], \"Layers\": [\"layer.tar\"]}]" >"$work/manifest.json"
    tar -C "$work" -cf "$4" manifest.json config.json layer.tar
    rm -rf "$work"
}
pause() {
    local root
    root=$(mktemp -d)
    chmod 755 "$root"
    cp "$("$here/build.sh" --cached)/pause" "$root/"
    pack "$root" localhost/pause:1 /pause "$dir/images/pause.tar"
    rm -rf "$root"
}

what=$1
shift
case $what in
    load) load "$@" ;;
    tag) tag "$@" ;;
    pack) pack "$@" ;;
    pause) pause ;;
    *) exit 2 ;;
esac
