# Sourced by chart.sh, while its release is there: the Jobs of deploy/backup, on storage of objects that speaks S3.
# shellcheck shell=bash disable=SC2154

step "a backup, the daily verification and the monthly drill run as Jobs"
weed=$images/weed
bucket=http://$host:19336/novacron
login=(--from-literal=AWS_ACCESS_KEY_ID=drill --from-literal=AWS_SECRET_ACCESS_KEY=not-a-secret)
mkdir "$weed"
cat >"$weed/identities.json" <<'JSON'
{"identities": [{"name": "drill", "credentials": [{"accessKey": "drill", "secretKey": "not-a-secret"}],
    "actions": ["Read", "Write", "List", "Admin"]}]}
JSON
# On the cluster's own interface: clusters side by side do not meet.
"$tools/bin/weed" server -master.telemetry=false -ip="$host" -ip.bind="$host" -dir="$weed" -filer -s3 -s3.port.iceberg=0 -s3.port.lance=0 \
    -s3.config="$weed/identities.json" -volume.max=5 -master.volumeSizeLimitMB=64 -master.port=19333 -volume.port=19334 -filer.port=19335 \
    -s3.port=19336 -master.port.grpc=19337 -volume.port.grpc=19338 -filer.port.grpc=19339 -s3.port.grpc=19340 >"$weed.log" 2>&1 &
storage=$!
trap 'kill $storage 2>/dev/null || true; rm -rf "$images"; "$here/down.sh"' EXIT
has_bucket() {
    AWS_ACCESS_KEY_ID=drill AWS_SECRET_ACCESS_KEY=not-a-secret S3_URL=$bucket \
        bash -c '. "$0" && s3 -X PUT "$S3_URL"' "$repository/deploy/backup/s3.sh" >/dev/null 2>&1
}
within "$ready_seconds" has_bucket || fail "storage: $(tail -3 "$weed.log")"

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
kill $storage
wait $storage 2>/dev/null || true
