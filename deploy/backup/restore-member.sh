#!/bin/bash
# Before a member of a StatefulSet starts for the first time: its folder of the backup that FILE names, as MEMBER. Where there is no FILE, there is a store
# already, or there is nothing to restore; where there is a folder, the member has begun. Nothing is done then.
#
# FILE has lines NAME=VALUE: BACKUP, INITIAL_CLUSTER, TOKEN.
#
#   S3_URL=... deploy/backup/restore-member.sh FILE DATA_DIR MEMBER
set -euo pipefail

file=$1 data=$2 member=$3
if [ ! -s "$file" ] || [ -e "$data" ]; then
    echo "nothing to restore"
    exit 0
fi
of_file() { sed -n "s/^$1=//p" "$file"; }
backup=$(of_file BACKUP)
# Half a folder is not taken for one.
rm -rf "$data.restored"
"$(dirname "$0")/restore.sh" "$data.restored" "$member" "$(of_file INITIAL_CLUSTER)" "$(of_file TOKEN)" "${backup%/*}" "$backup"
mv "$data.restored" "$data"
