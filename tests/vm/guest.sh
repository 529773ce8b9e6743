# To be sourced by bash with `set -euo pipefail`: Debian's kernel, and an initramfs of busybox, modules and files.
# A script that it ends with 77 has said "SKIP: ..." with what is missing here.
PATH=$PATH:/usr/sbin:/sbin

skip() {
    echo "SKIP: $*"
    exit 77
}

# need PROGRAM...: without one, skips.
need() {
    local program
    for program in "$@" busybox cpio xz depmod modprobe dpkg-deb apt-get; do
        command -v "$program" >/dev/null || skip "no $program here (tests/vm/install.sh installs it)"
    done
}

# unpack_kernel: the kernel that Debian's meta package names, unpacked once; only the modules that guests may need. Sets cache and
# release, and holds the lock of the cache on descriptor 9.
unpack_kernel() {
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/novacron-dwcp/vm
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock 9
    image=$(apt-cache depends linux-image-amd64 2>/dev/null | awk '/Depends: linux-image/ { print $2; exit }')
    [ -n "$image" ] || image=$(cat "$cache/image" 2>/dev/null) || skip "no package linux-image-amd64 is known here"
    release=${image#linux-image-}
    if [ ! -e "$cache/$release/complete-2" ]; then
        rm -rf "${cache:?}/$release"
        mkdir "$cache/$release"
        (cd "$cache/$release" && apt-get -q -o APT::Sandbox::User=root download "$image" >download.log 2>&1) ||
            skip "$image cannot be downloaded: $(tail -1 "$cache/$release/download.log")"
        dpkg-deb --fsys-tarfile "$cache/$release/$image"_*.deb |
            tar -x -C "$cache/$release" --wildcards './boot/vmlinuz-*' './lib/modules/*/modules.*' \
                './lib/modules/*/kernel/drivers/infiniband/*' './lib/modules/*/kernel/drivers/net/*' \
                './lib/modules/*/kernel/net/*' './lib/modules/*/kernel/lib/*' './lib/modules/*/kernel/crypto/*' \
                './lib/modules/*/kernel/arch/x86/crypto/*' \
                './lib/modules/*/kernel/drivers/virtio/*' './lib/modules/*/kernel/drivers/block/virtio_blk*'
        rm "$cache/$release/$image"_*.deb
        depmod -b "$cache/$release" "$release"
        echo "$image" >"$cache/image"
        touch "$cache/$release/complete-2"
    fi
}

# begin_root FOLDER: where the files of the initramfs come together.
begin_root() {
    root=$1
    mkdir -p "$root"/{bin,sbin,proc,sys,dev,tmp,run,etc,modules}
    cp "$(command -v busybox)" "$root/bin/busybox"
}

# put FILE [PATH]: at another path, if given; and the libraries that it is linked with where they are here.
put() {
    install -D "$(readlink -f "$1")" "$root${2:-$1}"
    { ldd "$1" 2>/dev/null || true; } | { grep -o '/[^ ]*' || true; } | while read -r needed; do
        [ -e "$root$needed" ] || install -D "$(readlink -f "$needed")" "$root$needed"
    done
}

# put_modules MODULE...: with those that they need, in the order in which they need each other.
put_modules() {
    local count=100 module name
    for module in "$@"; do
        modprobe -d "$cache/$release" -S "$release" --show-depends "$module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r module; do
        count=$((count + 1))
        name=$(basename "$module")
        case $module in
            *.xz) xz -dc "$module" >"$root/modules/$count-${name%.xz}" ;;
            *) cp "$module" "$root/modules/$count-$name" ;;
        esac
    done
}

# pack FILE: the initramfs.
pack() {
    (cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$1"
}
