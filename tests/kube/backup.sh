# Sourced by chart.sh, while its release is there: the Jobs of deploy/backup, on storage of objects that speaks S3.
# shellcheck shell=bash disable=SC2154

step "a backup, the daily verification and the monthly drill run as Jobs"
weed=$images/weed
first_port=$((19300 + 10 * cluster))
bucket=http://$host:$((first_port + 3))/novacron
login=(--from-literal=AWS_ACCESS_KEY_ID=drill --from-literal=AWS_SECRET_ACCESS_KEY=not-a-secret)
mkdir "$weed"
cat >"$weed/identities.json" <<'JSON'
{"identities": [{"name": "drill", "credentials": [{"accessKey": "drill", "secretKey": "not-a-secret"}],
    "actions": ["Read", "Write", "List", "Admin"]}]}
JSON
# It listens on loopback, too, where clusters side by side would meet.
names=(master volume filer s3)
ports=()
for ((i = 0; i < 4; i++)); do
    ports+=("-${names[i]}.port=$((first_port + i))" "-${names[i]}.port.grpc=$((first_port + 4 + i))")
done
"$tools/bin/weed" server -master.telemetry=false -ip="$host" -ip.bind="$host" -dir="$weed" -filer -s3 -s3.port.iceberg=0 -s3.port.lance=0 \
    -s3.config="$weed/identities.json" -volume.max=5 -master.volumeSizeLimitMB=64 "${ports[@]}" >"$weed.log" 2>&1 &
storage=$!
trap 'kill -KILL $storage 2>/dev/null || true; rm -rf "$images"; "$here/down.sh"' EXIT
has_bucket() {
    AWS_ACCESS_KEY_ID=drill AWS_SECRET_ACCESS_KEY=not-a-secret S3_URL=$bucket \
        bash -c '. "$0" && s3 -X PUT "$S3_URL"' "$repository/deploy/backup/s3.sh" >/dev/null 2>&1
}
answers_or_is_gone() { has_bucket || ! kill -0 $storage 2>/dev/null; }
within "$ready_seconds" answers_or_is_gone || fail "storage: $(tail -3 "$weed.log")"
kill -0 $storage 2>/dev/null || fail "storage: $(grep ^F "$weed.log")"

in_namespace create secret generic novacron-backup "${login[@]}" >/dev/null
kubectl kustomize "$repository/deploy/backup/jobs" |
    sed "s|novacron/jobs:.*|novacron/jobs:dev|; s|S3_URL: .*|S3_URL: $bucket|; s|https://novacron-consensus|http://novacron-consensus|; /ETCDCTL_/d" |
    kubectl apply -f - >/dev/null || fail "Jobs"
# ran NAME: now, and what it says last.
ran() {
    in_namespace create job "now-$1" --from "cronjob/novacron-$1" >/dev/null
    in_namespace wait "job/now-$1" --for=condition=Complete --timeout "${ready_seconds}s" >/dev/null || fail "$1: $(in_namespace logs "job/now-$1" --tail 20)"
    in_namespace logs "job/now-$1" --tail 2
}
ran backup
ran backup-verification
ran drill
# Asked to end, it waits for its clients.
kill -KILL $storage
wait $storage 2>/dev/null || true
