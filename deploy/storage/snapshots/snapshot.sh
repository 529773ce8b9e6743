#!/bin/sh
# Takes a snapshot of each volume of the store and removes those that are older than KEPT_DAYS. In the CronJob beside this file, and by hand:
#
#   NAMESPACE=novacron deploy/storage/snapshots/snapshot.sh
#
# Snapshots are for data that was deleted by mistake, and to look at. A member is never started on one: the others have gone on, and it would
# vote as if they had not. Logical backups (deploy/backup) are what a store is restored from.
set -eu

namespace=${NAMESPACE:-novacron}
kept_days=${KEPT_DAYS:-7}
label=novacron.io/snapshots=hourly
now=$(date -u +%s)
stamp=$(date -u -d "@$now" +%Y%m%d%H%M)

kubectl -n "$namespace" get pvc -l app.kubernetes.io/component=consensus -o name | while read -r claim; do
    claim=${claim#*/}
    kubectl -n "$namespace" apply -f - <<OBJECT
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata:
  name: $claim-$stamp
  labels: {${label%=*}: ${label#*=}}
spec:
  volumeSnapshotClassName: novacron
  source: {persistentVolumeClaimName: $claim}
OBJECT
done

# Times of this form are in order as texts, too.
oldest=$(date -u -d "@$((now - kept_days * 86400))" +%Y-%m-%dT%H:%M:%SZ)
kubectl -n "$namespace" get volumesnapshots -l "$label" --sort-by=.metadata.creationTimestamp \
    -o 'jsonpath={range .items[*]}{.metadata.creationTimestamp} {.metadata.name}{"\n"}{end}' |
    while read -r created name; do
        if expr "$created" \< "$oldest" >/dev/null; then
            kubectl -n "$namespace" delete volumesnapshot "$name"
        fi
    done
