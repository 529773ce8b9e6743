#!/bin/bash
# Says something in Slack; without an address it says it here.
#
#   [SLACK_URL=https://hooks.slack.com/...] deploy/ci/notify.sh TEXT
set -euo pipefail

echo "$1"
[ -n "${SLACK_URL:-}" ] || exit 0
text=$(printf '%s' "$1" | sed 's/\\/\\\\/g; s/"/\\"/g')
# The address is the secret: not on a command line.
printf 'url = "%s"\n' "$SLACK_URL" | curl --config - --fail --silent --show-error --max-time 30 --output /dev/null \
    -H 'Content-Type: application/json' --data "{\"text\": \"$text\"}"
