# Sourced by what needs storage of objects: SeaweedFS on this machine, which speaks S3, with one bucket.
# shellcheck shell=bash disable=SC2034,SC2154

s3_login=(--from-literal=AWS_ACCESS_KEY_ID=drill --from-literal=AWS_SECRET_ACCESS_KEY=not-a-secret)

# s3_begin FOLDER: runs it there, with its bucket at $bucket; $storage is its process.
s3_begin() {
    local weed=$1 first_port=$((19300 + 10 * cluster)) names=(master volume filer s3) ports=() i
    bucket=http://$host:$((first_port + 3))/novacron
    mkdir "$weed"
    cat >"$weed/identities.json" <<'JSON'
{"identities": [{"name": "drill", "credentials": [{"accessKey": "drill", "secretKey": "not-a-secret"}],
    "actions": ["Read", "Write", "List", "Admin"]}]}
JSON
    # It listens on loopback, too, where clusters side by side would meet.
    for ((i = 0; i < 4; i++)); do
        ports+=("-${names[i]}.port=$((first_port + i))" "-${names[i]}.port.grpc=$((first_port + 4 + i))")
    done
    "$tools/bin/weed" server -master.telemetry=false -ip="$host" -ip.bind="$host" -dir="$weed" -filer -s3 -s3.port.iceberg=0 -s3.port.lance=0 \
        -s3.config="$weed/identities.json" -volume.max=5 -master.volumeSizeLimitMB=64 "${ports[@]}" >"$weed.log" 2>&1 &
    storage=$!
    trap 'kill -KILL "$storage" 2>/dev/null || true; rm -rf "$images"; "$here/down.sh"' EXIT
    within "$ready_seconds" s3_answers_or_is_gone || fail "storage: $(tail -3 "$weed.log")"
    kill -0 "$storage" 2>/dev/null || fail "storage: $(grep ^F "$weed.log")"
}
s3_has_bucket() {
    AWS_ACCESS_KEY_ID=drill AWS_SECRET_ACCESS_KEY=not-a-secret S3_URL=$bucket \
        bash -c '. "$0" && s3 -X PUT "$S3_URL"' "$repository/deploy/backup/s3.sh" >/dev/null 2>&1
}
s3_answers_or_is_gone() { s3_has_bucket || ! kill -0 "$storage" 2>/dev/null; }
# Asked to end, it waits for its clients.
s3_end() {
    kill -KILL "$storage"
    wait "$storage" 2>/dev/null || true
}
