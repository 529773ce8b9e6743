#!/bin/bash
# The drill: a store of three members, its backup in a bucket, all of its data destroyed, a new store of the backup. Compares what was in the backup
# with what is there afterwards, key by key, and measures
#
#   RPO  the age of the newest backup when the data was lost
#   RTO  from the loss to the first write that is taken again
#
# It ends with 1 if keys differ or either is over its limit: an hour, and half an hour. Members are processes on this machine, and the bucket is a
# real one, given as for backup.sh. PROGRAMS is the folder with novacron and novacron-consensus, KEYS how many keys there are.
set -euo pipefail
cd "$(dirname "$0")"

RPO_SECONDS_MAX=3600
RTO_SECONDS_MAX=1800
programs=${PROGRAMS:-../../target/release}
keys=${KEYS:-1000}
port=${PORT:-24379}
export NOVACRON=$programs/novacron
export NOVACRON_ENDPOINTS=127.0.0.1:$port,127.0.0.1:$((port + 10)),127.0.0.1:$((port + 20))
# Nobody else's, in a pod either.
prefix=drill-$HOSTNAME-$$
work=$(mktemp -d)
members=()
cleanup() {
    { kill -9 "${members[@]}" && wait; } 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

cluster=a=http://127.0.0.1:$((port + 1)),b=http://127.0.0.1:$((port + 11)),c=http://127.0.0.1:$((port + 21))
start() {
    local at=0 name token=$1
    members=()
    for name in a b c; do
        "$programs/novacron-consensus" --name "$name" --data-dir "$work/$token/$name" --metrics-listen off \
            --listen-client-urls "http://127.0.0.1:$((port + at))" --listen-peer-urls "http://127.0.0.1:$((port + at + 1))" \
            --initial-cluster "$cluster" --initial-cluster-token "$token" >"$work/$token-$name.log" 2>&1 &
        members+=($!)
        at=$((at + 10))
    done
}
# Until a write is taken.
taken() {
    for _ in $(seq 600); do
        if "$NOVACRON" kv put drill/written "$1" >/dev/null 2>&1; then return 0; fi
        sleep 0.1
    done
    tail -n 5 "$work"/*.log >&2
    return 1
}
now() {
    date +%s.%N
}
content() {
    "$NOVACRON" kv get --prefix data/ | sha256sum | cut -c 1-16
}

start before
taken first
for ((at = 0; at < keys; at += 100)); do
    for ((key = at; key < at + 100 && key < keys; key++)); do
        printf 'put data/%06d value-%s\n' "$key" "$RANDOM"
    done >"$work/batch"
    # In one request: a hundred at a time.
    { echo; cat "$work/batch"; echo; echo; } | "$NOVACRON" kv txn >/dev/null
done
backed_up=$(now)
backup=$(./backup.sh "$prefix")
kept=$(content)
# What comes after the backup is lost with the data: that is the RPO.
"$NOVACRON" kv put data/after-the-backup x >/dev/null

lost=$(now)
{
    kill -9 "${members[@]}"
    wait "${members[@]}" || true
} 2>/dev/null
rm -rf "$work/before"

for name in a b c; do
    ./restore.sh "$work/after/$name" "$name" "$cluster" after "$prefix" >/dev/null
done
start after
taken second
back=$(now)

restored=$(content)
rpo=$(awk -v a="$backed_up" -v b="$lost" 'BEGIN { printf "%.1f", b - a }')
rto=$(awk -v a="$lost" -v b="$back" 'BEGIN { printf "%.1f", b - a }')
echo "backup $backup, $keys keys, digest $kept before and $restored after"
echo "RPO $rpo s (limit $RPO_SECONDS_MAX), RTO $rto s (limit $RTO_SECONDS_MAX)"
[ "$kept" = "$restored" ]
awk -v a="$rpo" -v b="$rto" -v c=$RPO_SECONDS_MAX -v d=$RTO_SECONDS_MAX 'BEGIN { exit !(a <= c && b <= d) }'
