# Sourced by chart.sh, while its release is there: the Jobs of deploy/backup, on storage of objects that speaks S3.
# shellcheck shell=bash disable=SC2154

step "a backup, the daily verification and the monthly drill run as Jobs"
. "$here/s3.sh"
s3_begin "$images/weed"

in_namespace create secret generic novacron-backup "${s3_login[@]}" >/dev/null
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
s3_end
