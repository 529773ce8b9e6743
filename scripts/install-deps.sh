#!/bin/sh
# Installs what building and testing need beyond rustup's toolchain, on Debian and its kin. Says so first; does nothing
# and is done at once when nothing is missing.
set -eu

# A program, and the package that has it.
needed="
cc gcc
c++ g++
git git
ip iproute2
tc iproute2
tar tar
diff diffutils
modprobe kmod
mount mount
losetup mount
openssl openssl
iperf3 iperf3
rsync rsync
zstd zstd
haproxy haproxy
redis-server redis-server
etcd etcd-server
etcdctl etcd-client
protoc protobuf-compiler
clang clang
make make
pkg-config pkg-config
"

packages=$(echo "$needed" | while read -r program package; do
    [ -z "$program" ] || command -v "$program" >/dev/null || [ -x "/usr/sbin/$program" ] || [ -x "/sbin/$program" ] || echo "$package"
done | sort -u | tr '\n' ' ')
# PostgreSQL's programs are in folders of their versions.
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || packages="$packages postgresql"
# A compiler without the C library's headers builds nothing.
[ -e /usr/include/stdio.h ] || packages="$packages libc6-dev"
# RocksDB's bindings are made by libclang, which also needs its own headers.
ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/llvm-*/lib/clang/*/include/stddef.h >/dev/null 2>&1 || packages="$packages libclang-dev"
# libbpf is compiled against these two.
[ -e /usr/include/libelf.h ] || packages="$packages libelf-dev"
[ -e /usr/include/zlib.h ] || packages="$packages zlib1g-dev"
# protoc alone lacks the types that come with it.
[ -e /usr/include/google/protobuf/descriptor.proto ] || packages="$packages libprotobuf-dev"

if [ -n "$packages" ]; then
    root=
    [ "$(id -u)" = 0 ] || root=sudo
    if ! command -v apt-get >/dev/null; then
        echo "missing, and there is no apt-get to install it: $packages" >&2
        exit 1
    fi
    echo "installing with apt-get: $packages"
    $root apt-get update -q
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive $root apt-get install -q -y --no-install-recommends $packages
fi

if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
    echo "installing with rustup: rustfmt clippy"
    rustup component add rustfmt clippy
fi
