#!/bin/bash
# Checks deploy/ with real tools, which are installed into the cache folder (scripts/deploy-tools.sh). What cannot be checked on this machine
# is said with its reason and counted.
#
# usage: scripts/test-deploy.sh [ARGUMENTS OF python -m unittest]
#
# CRDS: folder with the published CustomResourceDefinitions of others (../shared/crds). BIN: folder with the daemons, whose metrics are
# read (target/release).
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v python3 >/dev/null; then
    echo "SKIP: deploy/: there is no python3"
    exit 0
fi
if ! DEPLOY_TOOLS=$(scripts/deploy-tools.sh); then
    echo "SKIP: deploy/: PyYAML and jsonschema cannot be installed (python3 with venv, and PyPI)"
    exit 0
fi
export DEPLOY_TOOLS
export BIN=${BIN:-$(realpath -m "${CARGO_TARGET_DIR:-target}")/release}
export PYTHONPATH=tests/deploy PYTHONDONTWRITEBYTECODE=1
exec "$DEPLOY_TOOLS/python/bin/python3" tests/deploy/report.py "$@"
