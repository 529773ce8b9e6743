#!/bin/bash
# Writes the files of deploy/ that follow from others; with --check it only says which are not up to date.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$(scripts/deploy-tools.sh)
[ ! -x "$tools/bin/helm" ] || export HELM=$tools/bin/helm
exec "$tools/python/bin/python3" -B deploy/generate "$@"
