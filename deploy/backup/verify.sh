#!/bin/bash
# Is there a backup that a store can be restored from, and is it young enough? Fetches the newest, has it checked, and ends with 1 if it is damaged or older
# than AGE_SECONDS_MAX: an hour, and a quarter for a backup to be made.
#
#   S3_URL=... deploy/backup/verify.sh [PREFIX]
set -euo pipefail
# shellcheck source=deploy/backup/s3.sh
. "$(dirname "$0")/s3.sh"

prefix=${1:-store}
age_max=${AGE_SECONDS_MAX:-4500}
novacron=${NOVACRON:-novacron}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

name=$(s3_list "$prefix" "$(date -u -d '31 days ago' +%Y%m%d)" | tail -n 1)
if [ -z "$name" ]; then
    echo "there is no backup under $prefix/" >&2
    exit 1
fi
s3_get "$name" "$work/snapshot"
"$novacron" cluster snapshot verify "$work/snapshot" >&2
# YYYYMMDDTHHMMSSZ, of its name.
at=${name##*/}
age=$(($(date +%s) - $(date -u -d "${at:0:8} ${at:9:2}:${at:11:2}:${at:13:2}" +%s)))
echo "backup $name is whole and $age s old (limit $age_max)"
[ "$age" -le "$age_max" ]
