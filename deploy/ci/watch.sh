#!/bin/bash
# Asks once a second whether the API is ready, for ten minutes, and ends with 1 if less than 99.9 % of the answers are yes, at once when
# that can no longer be reached.
#
#   [SECONDS_WATCHED=600] [SHARE_MIN=0.999] deploy/ci/watch.sh URL
set -euo pipefail

url=$1
watched=${SECONDS_WATCHED:-600}
share=${SHARE_MIN:-0.999}
# So many may fail.
allowed=$(awk -v n="$watched" -v s="$share" 'BEGIN { printf "%d", n * (1 - s) + 1e-9 }')

failed=0
for ((asked = 1; asked <= watched; asked++)); do
    if ! curl --fail --silent --max-time 1 --output /dev/null "$url/ready"; then
        failed=$((failed + 1))
        if [ "$failed" -gt "$allowed" ]; then
            echo "watch: $failed of $asked failed, $allowed of $watched may" >&2
            exit 1
        fi
    fi
    sleep 1
done
echo "watch: $failed of $watched failed, $allowed may"
