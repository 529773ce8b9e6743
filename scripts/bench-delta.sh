#!/bin/bash
# The second version of an image over the wire: DWCP beside `rsync -z` and `zstd --patch-from`. FOLDER (default: target/delta)
# needs room for about ten times SIZE_MIB.
#
# The data is made from this machine's own files, always in the same way for the same machine: a tar, and an ext4 image, of files
# below /usr up to SIZE_MIB (256); in the second version every fortieth file is longer by a line, has other bytes in its middle, or is
# gone, as after an upgrade of some packages. A third pair is the ext4 image with a tail of
# holes, to forty times SIZE_MIB: 10 GiB. Bytes do not depend on how busy the machine is; times do.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(realpath -m "${1:-${CARGO_TARGET_DIR:-target}/delta}")
size_mib=${SIZE_MIB:-256}
versions=${VERSIONS:-${CARGO_TARGET_DIR:-target}/release/examples/versions}
for tool in rsync zstd mkfs.ext4 debugfs tar bc; do
    command -v "$tool" >/dev/null || { echo "SKIP: bench-delta needs $tool"; exit 0; }
done

rm -rf "$folder" && mkdir -p "$folder/tree"
find /usr/bin /usr/lib /usr/share -xdev -type f -size -8M -printf '%s %p\n' 2>/dev/null | LC_ALL=C sort -k2 |
    awk -v max="$size_mib" 'NF == 2 { sum += $1 } NF == 2 && sum <= max * 1048576 { print $2 }' >"$folder/files"
xargs -d '\n' cp --parents --no-preserve=ownership -t "$folder/tree" <"$folder/files"
pack() {
    tar --sort=name --mtime=@0 --owner=0 --group=0 -C "$folder/tree" -cf "$folder/$1.tar" .
    E2FSPROGS_FAKE_TIME=1 mkfs.ext4 -q -U 00000000-0000-0000-0000-000000000001 -E hash_seed=00000000-0000-0000-0000-000000000002 \
        -O ^metadata_csum -d "$folder/tree" "$folder/$1.ext4" "$((size_mib * 2))M"
}
pack old
# The image that an upgrade leaves is the old one, written to: files are replaced, and new blocks are found for them.
cp --sparse=always "$folder/old.ext4" "$folder/new.ext4"
number=0
: >"$folder/commands"
while read -r file; do
    number=$((number + 1))
    [ $((number % 40)) -eq 0 ] || continue
    changed="$folder/tree$file"
    chmod u+w "$changed"
    case $((number / 40 % 3)) in
    0) echo "and a line that was not there, number $number" >>"$changed" ;;
    1)
        middle=$(($(stat -c %s "$changed") / 2))
        printf 'version %08d' "$number" | dd of="$changed" bs=1 seek="$middle" conv=notrunc status=none
        ;;
    2) rm "$changed" ;;
    esac
    echo "rm $file" >>"$folder/commands"
    [ -e "$changed" ] && echo "write $changed $file" >>"$folder/commands"
done <"$folder/files"
debugfs -w -f "$folder/commands" "$folder/new.ext4" >/dev/null 2>&1
tar --sort=name --mtime=@0 --owner=0 --group=0 -C "$folder/tree" -cf "$folder/new.tar" .
rm -rf "$folder/tree"
for version in old new; do
    cp --sparse=always "$folder/$version.ext4" "$folder/$version.sparse"
    truncate -s "$((size_mib * 40))M" "$folder/$version.sparse"
done

# rsync's two ends over a pipe: a remote shell that is none.
printf '#!/bin/sh\nshift\nexec "$@"\n' >"$folder/rsh"
chmod +x "$folder/rsh"

rsynced() {
    cp --sparse=always "$folder/old.$kind" "$folder/rsynced"
    local begin time
    begin=$(date +%s.%N)
    rsync -z -I --no-whole-file --stats -e "$folder/rsh" "$folder/new.$kind" "localhost:$folder/rsynced" >"$folder/rsync.txt" </dev/null
    time=$(echo "$(date +%s.%N) - $begin" | bc)
    awk -v time="$time" -v whole="$(stat -c %s "$folder/new.$kind")" '/^Total bytes (sent|received)/ { gsub(",", "", $4); sum += $4 }
        END { printf "%-44s %12d bytes  %8.4f %%  %7.2f s (not paced)\n", "second version, rsync -z", sum, 100 * sum / whole, time }' "$folder/rsync.txt"
    rm "$folder/rsynced"
}

patched() {
    local begin time
    begin=$(date +%s.%N)
    zstd -q -f "$@" --patch-from="$folder/old.$kind" "$folder/new.$kind" -o "$folder/patch.zst"
    time=$(echo "$(date +%s.%N) - $begin" | bc)
    printf '%-44s %12d bytes  %8.4f %%  %7.2f s (no wire)\n' "second version, zstd $* --patch-from" "$(stat -c %s "$folder/patch.zst")" \
        "$(echo "100 * $(stat -c %s "$folder/patch.zst") / $(stat -c %s "$folder/new.$kind")" | bc -l)" "$time"
}

echo "$(nproc) processors, $(uname -r), commit $(git rev-parse --short HEAD), $size_mib MiB of files of this machine"
for kind in ${KINDS:-tar ext4 sparse}; do
    echo "== $kind, $(($(stat -c %s "$folder/new.$kind") >> 20)) MiB, $(($(stat -c %b "$folder/new.$kind") >> 11)) MiB allocated"
    "$versions" "$folder/old.$kind" "$folder/new.$kind" "$folder"
    [ "$kind" = sparse ] && continue
    rsynced
    patched -3 --long=31
    patched -9 --long=31
done
rm -rf "$folder"
