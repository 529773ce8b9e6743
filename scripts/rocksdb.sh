#!/bin/bash
# Compiles RocksDB once for all builds of this machine, into the cache folder, and tells cargo so in .cargo/config.toml.
#
# librocksdb-sys would compile its 343 files one by one, each of which reads the same headers again: that took 48 minutes
# of a processor, and once more for each target folder. Several files at a time, as RocksDB's own CI does (unity_test in its
# Makefile), the same sources with the same flags take 12. Where this cannot be done, it says why, and cargo compiles them.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(sed -n '/^name = "librocksdb-sys"$/{n;s/^version = "\(.*\)"$/\1/p}' Cargo.lock)
# Counts what this script makes of a version.
build=1
cache=${XDG_CACHE_HOME:-$HOME/.cache}/novacron-dwcp/rocksdb-$version-$build
config=.cargo/config.toml
head="# Written by scripts/rocksdb.sh; without it cargo compiles RocksDB itself."

give_up() {
    echo "RocksDB is left to cargo, which takes longer: $1" >&2
    ! is_ours || rm -f "$config"
    exit 0
}

# Somebody's own settings stay.
is_ours() {
    [ ! -e "$config" ] || [ "$(head -n 1 "$config")" = "$head" ]
}

is_ours || give_up "$config is somebody else's"
[ "$(uname -sm)" = "Linux x86_64" ] || give_up "this script knows the flags for Linux on x86_64 alone"
grep -q '^rocksdb = .*default-features = false, features = \["bindgen-runtime", "lz4"\]' Cargo.toml ||
    give_up "this script knows the flags for other features than Cargo.toml has"

mkdir -p "$(dirname "$cache")"
# One at a time; whoever waited finds it done.
exec 9>"$cache.lock"
flock 9
if [ ! -e "$cache/librocksdb.a" ]; then
    echo "compiling RocksDB ($version) in $cache; this takes a few minutes, once"
    # A crate's folder, from where cargo has put it.
    folder() {
        grep -o "\"manifest_path\":\"[^\"]*/$1-[0-9][^\"]*/Cargo.toml\"" <<<"$metadata" | sed 's/.*:"//; s,/Cargo.toml"$,,'
    }
    metadata=$(cargo metadata --locked --format-version 1) || give_up "cargo metadata failed"
    sources=$(folder librocksdb-sys)
    lz4=$(folder lz4-sys)/liblz4/lib
    [ -e "$sources/rocksdb_lib_sources.txt" ] && [ -e "$lz4/lz4.h" ] || give_up "$sources or $lz4 has not the files it had"
    work=$(mktemp -d "$cache.new-XXXXXX")
    trap 'rm -rf "$work"' EXIT
    # What build.rs of librocksdb-sys and cc give for the features that Cargo.toml names.
    flags="-O3 -g0 -fPIC -m64 -msse2 -ffunction-sections -fdata-sections -std=c++20 -w -include cstdint
        -I$sources/rocksdb -I$sources/rocksdb/include -I$sources -I$lz4 -DNDEBUG=1 -DLZ4=1 -DHAVE_ALIGNED_NEW
        -DHAVE_UINT128_EXTENSION -DOS_LINUX -DROCKSDB_PLATFORM_POSIX -DROCKSDB_LIB_IO_POSIX -DROCKSDB_SCHED_GETCPU_PRESENT
        -DROCKSDB_AUXV_GETAUXVAL_PRESENT -DROCKSDB_FALLOCATE_PRESENT -DROCKSDB_RANGESYNC_PRESENT"
    {
        grep -v '^util/build_version.cc$' "$sources/rocksdb_lib_sources.txt"
        echo ../build_version.cc
    } | sed 's/.*/#include "&"/' | split -l 29 -d --additional-suffix .cc - "$work/part"
    # shellcheck disable=SC2086
    printf '%s\n' "$work"/part*.cc | xargs -P "$(nproc)" -I{} "${CXX:-c++}" $flags -c -o {}.o {} ||
        give_up "the compiler refused a part of it"
    ar rcs "$work/librocksdb.a" "$work"/part*.cc.o
    # Complete, or not there.
    rm "$work"/part*
    chmod 755 "$work"
    rm -rf "$cache"
    mv "$work" "$cache"
fi

# Written only when it changes: cargo compiles again what comes after it.
wanted="$head
[env]
ROCKSDB_LIB_DIR = \"$cache\"
ROCKSDB_STATIC = \"1\""
if [ "$(cat "$config" 2>/dev/null)" != "$wanted" ]; then
    mkdir -p .cargo
    echo "$wanted" >"$config"
fi
