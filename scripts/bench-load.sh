#!/bin/bash
# A thousand users of k6 at a replica of the HTTP API over three members of the store: tests/deploy/load.py, which says more.
#
# usage: scripts/bench-load.sh [ARGUMENTS OF load.py]      after cargo build --workspace --bins --release
set -euo pipefail
cd "$(dirname "$0")/.."

DEPLOY_TOOLS=$(scripts/deploy-tools.sh)
export DEPLOY_TOOLS
export BIN=${BIN:-$(realpath -m "${CARGO_TARGET_DIR:-target}")/release}
export PYTHONPATH=tests/deploy PYTHONDONTWRITEBYTECODE=1
exec "$DEPLOY_TOOLS/python/bin/python3" tests/deploy/load.py "$@"
