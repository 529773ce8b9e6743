#!/bin/bash
# Makes the data folder of one member of a new store of the newest backup of the last month, or of the one that is named. Run for each member with the same
# list; then they are started with that list and that token. Old folders and volumes are never used again: the store has a new id.
#
#   S3_URL=... deploy/backup/restore.sh DATA_DIR MEMBER INITIAL_CLUSTER TOKEN [PREFIX [BACKUP]]
set -euo pipefail
# shellcheck source=deploy/backup/s3.sh
. "$(dirname "$0")/s3.sh"

data=$1 member=$2 cluster=$3 token=$4 prefix=${5:-store}
novacron=${NOVACRON:-novacron}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Hourly ones of a month are less than the thousand that a list has.
name=${6:-$(s3_list "$prefix" "$(date -u -d '31 days ago' +%Y%m%d)" | tail -n 1)}
if [ -z "$name" ]; then
    echo "there is no backup under $prefix/" >&2
    exit 1
fi
s3_get "$name" "$work/snapshot"
"$novacron" cluster snapshot verify "$work/snapshot" >&2
"$novacron" cluster snapshot restore "$work/snapshot" --data-dir "$data" --name "$member" \
    --initial-cluster "$cluster" --initial-cluster-token "$token" >&2
echo "$name"
