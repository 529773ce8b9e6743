#!/bin/bash
# Has a store everything of the backup that it was restored from? Reads all of it as of the backup's revision, and compares the digest with that of choose.sh.
#
#   NOVACRON_ENDPOINTS=... deploy/backup/compare.sh REVISION DIGEST
set -euo pipefail

revision=$1 digest=$2
novacron=${NOVACRON:-novacron}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$novacron" kv get --rev "$revision" --prefix '' >"$work/content"
found=$(sha256sum "$work/content" | cut -c 1-64)
echo "at revision $revision: digest $found, of the backup $digest"
[ "$found" = "$digest" ]
