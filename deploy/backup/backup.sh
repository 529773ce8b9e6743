#!/bin/bash
# Puts a logical backup of a store into a bucket, and says its name: a snapshot of all keys, which is checked before it goes and again as the bucket
# gives it back.
#
#   NOVACRON_ENDPOINTS=... S3_URL=... AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... deploy/backup/backup.sh [PREFIX]
set -euo pipefail
# shellcheck source=deploy/backup/s3.sh
. "$(dirname "$0")/s3.sh"

prefix=${1:-store}
novacron=${NOVACRON:-novacron}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$novacron" cluster snapshot save "$work/snapshot" >&2
"$novacron" cluster snapshot verify "$work/snapshot" >&2
# Names are in the order of time.
name=$prefix/$(date -u +%Y%m%dT%H%M%SZ)
s3_put "$work/snapshot" "$name"
s3_get "$name" "$work/again"
cmp "$work/snapshot" "$work/again"
echo "$name"
