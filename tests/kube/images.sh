#!/bin/bash
# images.sh load ARCHIVE...: gives images (docker archives, as deploy/images/build.sh makes) to all nodes of a test cluster
# that runs. images.sh pause: puts the image of pods' first container where nodes find it when they start.
set -euo pipefail
. "$(dirname "$0")/cluster.sh"

load() {
    local node archive
    for node in "$dir"/node?; do
        for archive; do
            nsenter --target "$(first_process "$(basename "$node")")" --net --pid --mount \
                ctr -n k8s.io images import - <"$archive"
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
    pause) pause ;;
    *) exit 2 ;;
esac
