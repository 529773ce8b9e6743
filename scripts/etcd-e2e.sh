#!/bin/bash
# etcd's own end-to-end tests against our member: etcd-e2e.sh [--quick | --skipped] FOLDER [TEST...]
#
# FOLDER has novacron-consensus; etcdctl is Debian's. Without names, everything in tests/etcd-e2e/pass.txt has to pass;
# --quick leaves out those that repeat another with other TLS, --skipped runs skip.txt instead and tells what would pass.
#
# The tests are Debian's source of etcd with the Go packages that Debian builds it with, all unpacked below the cache
# folder: nothing is installed. Each test has its own network (they all use the same ports) and its own processes (what
# a test leaves behind ends with it), so JOBS of them run at a time.
set -euo pipefail

version=3.4.23
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}/pool/main/e/etcd
sha256="\
055c608c4898d25f23aefbc845ff074bf5e8a07e61ed41dbd5cc4d4f59c93093  etcd_$version.orig.tar.gz
2bd1f004fdf2b66ec5fa400d826ae0419baa1b28d49c68bdd7893e0b495ba71d  etcd_$version-4.debian.tar.xz"

lists=$(cd "$(dirname "$0")/../tests/etcd-e2e" && pwd)
# Counts what build() makes of that version.
build=1
cache=${XDG_CACHE_HOME:-$HOME/.cache}/novacron-dwcp/etcd-e2e-$version-$build
etcd=$cache/gopath/src/go.etcd.io/etcd
# For one test, and how many at a time.
limit=${LIMIT:-90}
jobs=${JOBS:-4}

skip() {
    echo "SKIP: etcd's end-to-end tests: $1"
    exit 0
}

# Two places where etcd 3.4 is not the measure. Its client puts a URL into :authority when it asks one member, which is no
# host and port (RFC 9113, section 8.3.1) and refused by HTTP/2 servers other than Go's; etcd 3.5 has mended it. And the
# reason of bad health is told since 3.5, whose API this is.
adapt() {
    # shellcheck disable=SC2016
    sed -i 's|fmt.Sprintf("passthrough:///%s", ep), creds|fmt.Sprintf("passthrough:///%s", strings.TrimPrefix(ep, "http://")), creds|' \
        "$etcd/clientv3/client.go"
    sed -i 's|`{"health":"false"}`|`{"health":"false","reason":"ALARM NOSPACE"}`|' "$etcd/tests/e2e/ctl_v3_alarm_test.go"
}

# Debian's sources and Go packages, unpacked and compiled into $cache/e2e.test.
build() {
    local program work
    for program in go apt-get curl dpkg-deb patch; do
        command -v "$program" >/dev/null || skip "they cannot be built: $program is not there"
    done
    echo "building etcd's end-to-end tests in $cache"
    rm -rf "$cache"
    work=$cache/work
    mkdir -p "$work/debs" "$(dirname "$etcd")"
    cd "$work"
    # As if nothing were installed: all packages, wherever the machine has them.
    apt-get install -s --no-install-recommends -o Dir::State::status=/dev/null golang-etcd-server-dev |
        awk '/^Inst golang-/ { print $2 }' >packages || skip "apt-get does not know golang-etcd-server-dev"
    (cd debs && xargs apt-get download -q <../packages) >download.log 2>&1 || skip "$(tail -1 download.log)"
    local deb
    for deb in debs/*.deb; do dpkg-deb -x "$deb" root; done
    rm -rf root/usr/share/gocode/src/go.etcd.io/etcd
    local file
    while read -r _ file; do
        curl -sSfLO --max-time 300 "$mirror/$file" || skip "$mirror/$file cannot be fetched"
    done <<<"$sha256"
    sha256sum --check --quiet <<<"$sha256"
    cat ./*.orig.tar.gz | tar xz
    tar xf ./*.debian.tar.xz
    mv "etcd-$version" "$etcd"
    while read -r file; do patch -s -p1 -d "$etcd" <"debian/patches/$file"; done <debian/patches/series
    rm -rf "$etcd/vendor"
    adapt
    cd "$etcd/tests/e2e"
    GOFLAGS='' GO111MODULE=off GOPATH=$cache/gopath:$work/root/usr/share/gocode \
        go test -c -o "$cache/e2e.test.new" . >"$cache/build.log" 2>&1 || skip "they do not compile: $cache/build.log"
    rm -rf "$work"
    mv "$cache/e2e.test.new" "$cache/e2e.test"
}

# Runs one test and prints its name with what became of it; what it said is in $out/NAME.log.
one() {
    local name=$1 log=$out/$1.log home=$out/$1
    # Its files, some of which the tests write into their own folder, and the certificates where they look for them.
    mkdir -p "$home/tests/e2e" "$home/tmp"
    ln -sn "$etcd/integration" "$home/integration"
    local began=$SECONDS verdict=fail
    # shellcheck disable=SC2016
    TMPDIR=$home/tmp timeout --kill-after 5 "$limit" "${apart[@]}" bash -c '
        ip link set lo up && cd "$1" && "$2" -test.v -test.run "^$3\$" -bin-dir "$4" -cert-dir ../../integration/fixtures
        exit $?' _ "$home/tests/e2e" "$cache/e2e.test" "$name" "$out/bin" >"$log" 2>&1 || true
    if grep -q "^--- PASS: $name " "$log"; then verdict=pass; fi
    rm -rf "$home"
    echo "$verdict $name $((SECONDS - began)) s"
}

choice=all
case ${1-} in --quick | --skipped) choice=${1#--} && shift ;; esac
[ $# -ge 1 ] || { sed -n '2,5s/^# //p' "$0" && exit 2; }
folder=$(cd "$1" && pwd)
shift
[ -x "$folder/novacron-consensus" ] || { echo "no novacron-consensus in $folder" >&2 && exit 2; }
PATH=$PATH:/usr/local/go/bin:/usr/sbin:/sbin
command -v etcdctl >/dev/null || skip "etcdctl is not installed (Debian's package etcd-client)"
apart=(unshare --net --pid --fork --kill-child)
"${apart[@]}" true 2>/dev/null || apart=(unshare --map-root-user --net --pid --fork --kill-child)
"${apart[@]}" true 2>/dev/null || skip "a namespace of networks cannot be made here"
[ -x "$cache/e2e.test" ] || (build) || exit 1
[ -x "$cache/e2e.test" ] || exit 0

# Every test is in exactly one list.
known=$(cd "$etcd/tests/e2e" && "$cache/e2e.test" -test.list . | grep '^Test')
listed=$({ cat "$lists/pass.txt" && cut -f1 "$lists/skip.txt"; } | sort)
if ! difference=$(diff <(sort <<<"$known") <(echo "$listed")); then
    echo "tests/etcd-e2e/pass.txt and skip.txt do not name each test once: $difference" >&2
    exit 1
fi
case $choice in
quick) names=$(grep -vE '(NoTLS|ClientTLS|PeerTLS|AutoTLS)$' "$lists/pass.txt") ;;
skipped) names=$(cut -f1 "$lists/skip.txt") ;;
*) names=$(cat "$lists/pass.txt") ;;
esac
[ $# -eq 0 ] || names=$(printf '%s\n' "$@")

out=$(mktemp -d)
mkdir "$out/bin"
# Members here take no certificate that nobody has signed, so --peer-auto-tls means the suite's own.
cat >"$out/bin/etcd" <<SCRIPT
#!/bin/sh
fixtures=$etcd/integration/fixtures
# A test that logs in twenty times has 15 s for all it does, and as many others run meanwhile.
export ETCD_BCRYPT_COST=4
for arg; do
    shift
    case \$arg in
    --peer-auto-tls) set -- "\$@" --peer-cert-file "\$fixtures/server.crt" \
        --peer-key-file "\$fixtures/server.key.insecure" --peer-trusted-ca-file "\$fixtures/ca.crt" ;;
    *) set -- "\$@" "\$arg" ;;
    esac
done
exec $folder/novacron-consensus "\$@"
SCRIPT
# The same client: see adapt().
cat >"$out/bin/etcdctl" <<SCRIPT
#!/bin/sh
[ -z "\${ETCDCTL_ENDPOINTS-}" ] || export ETCDCTL_ENDPOINTS="\$(echo "\$ETCDCTL_ENDPOINTS" | sed s,http://,,g)"
for arg; do
    shift
    case \$arg in --endpoints=*http://*) arg=\$(echo "\$arg" | sed s,http://,,g) ;; esac
    set -- "\$@" "\$arg"
done
exec $(command -v etcdctl) "\$@"
SCRIPT
chmod +x "$out/bin/etcd" "$out/bin/etcdctl"
export -f one
export out etcd cache limit
results=$out/results
apart_text=${apart[*]}
export apart_text
# shellcheck disable=SC2016
run() { xargs -r -P "$1" -I{} bash -c 'apart=($apart_text); one "$1"' _ {}; }
run "$jobs" <<<"$names" | tee "$results"
# They have time limits of their own, of seconds: what failed on a busy machine has a second chance, alone.
if [ "$choice" != skipped ] && grep '^fail ' "$results" >"$results.again"; then
    echo "again, one at a time:"
    sed -i '/^fail /d' "$results"
    awk '{ print $2 }' "$results.again" | run 1 | tee -a "$results"
fi

passed=$(grep -c '^pass ' "$results" || true)
failed=$(awk '/^fail / { print $2 }' "$results")
echo "etcd's end-to-end tests: $passed of $(wc -l <<<"$names") passed; $(wc -l <"$lists/skip.txt") are in skip.txt"
if [ "$choice" = skipped ]; then
    awk '/^pass / { print $2 ": passes, and belongs into pass.txt" }' "$results"
    failed=
fi
if [ -n "$failed" ]; then
    for name in $failed; do
        echo "---- $name: the end of $out/$name.log"
        tail -n 12 "$out/$name.log" | cut -c 1-1000
    done
    exit 1
fi
rm -rf "$out"
