#!/bin/bash
# Says what a new cluster is to be restored from: the newest backup of the last month, or the one that is named, with the revision that it ends at and a digest
# of all that a store has of it then. For that, a store of one member is made of it in this pod, and nowhere else.
#
#   S3_URL=... deploy/backup/choose.sh PREFIX [BACKUP]
#
# The last line is `BACKUP REVISION DIGEST`; RESULT is a file that gets it as well (of a Job, /dev/termination-log).
set -euo pipefail
# shellcheck source=deploy/backup/s3.sh
. "$(dirname "$0")/s3.sh"

novacron=${NOVACRON:-novacron} programs=${PROGRAMS:-/usr/bin} port=${PORT:-24479}
work=$(mktemp -d)
member=
cleanup() {
    [ -z "$member" ] || { kill -KILL "$member" && wait "$member"; } 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

name=$("$(dirname "$0")/restore.sh" "$work/data" one "one=http://127.0.0.1:$((port + 1))" choose "$1" "${2:-}" 2>"$work/said") || {
    cat "$work/said" >&2
    exit 1
}
cat "$work/said" >&2
revision=$(sed -n 's/.* up to revision \([0-9]*\)$/\1/p' "$work/said")
"$programs/novacron-consensus" --name one --data-dir "$work/data" --metrics-listen off \
    --listen-client-urls "http://127.0.0.1:$port" --listen-peer-urls "http://127.0.0.1:$((port + 1))" \
    --initial-cluster "one=http://127.0.0.1:$((port + 1))" --initial-cluster-token choose >"$work/log" 2>&1 &
member=$!
digest=
for _ in $(seq 600); do
    if NOVACRON_ENDPOINTS=127.0.0.1:$port "$novacron" kv get --rev "$revision" --prefix '' >"$work/content" 2>"$work/error"; then
        digest=$(sha256sum "$work/content" | cut -c 1-64)
        break
    fi
    sleep 0.1
done
if [ -z "$digest" ]; then
    tail -n 5 "$work/log" "$work/error" >&2
    exit 1
fi
echo "$name $revision $digest" | tee "${RESULT:-$work/result}"
