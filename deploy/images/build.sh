#!/bin/bash
# build.sh FOLDER [NAME...]: makes images of programs that are built already (all that are, if none is named: api,
# consensus, dwcp, jobs, operator) and puts each as NAME.tar, a docker archive, into FOLDER. PROGRAMS is the folder that has the
# programs, TAG what the images are tagged with. Nothing is pulled: of each Containerfile this is the last stage, which is
# from scratch.
set -euo pipefail
cd "$(dirname "$0")"
folder=$(mkdir -p "$1" && cd "$1" && pwd)
shift
programs=${PROGRAMS:-${CARGO_TARGET_DIR:-$PWD/../../target}/release}
tag=${TAG:-dev}
names=("$@")
program_of() { [ "$1" = jobs ] && echo "$programs/novacron" || echo "$programs/novacron-$1"; }
[ $# -gt 0 ] || for name in api consensus dwcp jobs operator; do
    [ ! -x "$(program_of "$name")" ] || names+=("$name")
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/cni"
# Storage of its own, and nothing of it in the folders that buildah has of this machine's: it keeps a cache there, whatever
# it is told.
buildah() {
    unshare --mount sh -c 'mount -t tmpfs tmpfs /var/lib && exec "$@"' sh \
        buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"
}
for name in "${names[@]}"; do
    case $name in
        jobs) jobs/root.sh "$programs" "$work/$name/image" ;;
        *) ./root.sh "$(program_of "$name")" "$work/$name/image" ;;
    esac
    sed '1,/^FROM scratch$/!b; /^FROM scratch$/!d' "$name/Containerfile" | sed 's/--from=build \/image/image/' \
        >"$work/$name/Containerfile"
    buildah bud --cni-config-dir "$work/cni" --isolation chroot --quiet -f "$work/$name/Containerfile" -t "localhost/novacron/$name:$tag" \
        "$work/$name" >/dev/null
    rm -f "$folder/$name.tar"
    buildah push --quiet "localhost/novacron/$name:$tag" "docker-archive:$folder/$name.tar:novacron/$name:$tag"
    echo "$folder/$name.tar novacron/$name:$tag $(stat -c %s "$folder/$name.tar") bytes"
done
