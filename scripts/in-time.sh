#!/bin/bash
# Runs a command, unless TEST_UNTIL (seconds since 1970) is set, as continuous integration does, and fewer than so many minutes
# are left until then. It says so, also in test-skips.txt.
#
# usage: scripts/in-time.sh MINUTES COMMAND...
set -euo pipefail

minutes=$1
shift
if [ -n "${TEST_UNTIL:-}" ] && [ $((TEST_UNTIL - $(date +%s))) -lt $((minutes * 60)) ]; then
    echo "SKIP: $*: it may take $minutes minutes, and the other tests have left fewer" |
        tee -a "${CARGO_TARGET_DIR:-target}/test-skips.txt"
    exit 0
fi
exec "$@"
