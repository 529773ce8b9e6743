#!/bin/bash
# Writes the files of deploy/ that follow from others; with --check it only says which are not up to date.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "$(scripts/deploy-tools.sh)/python/bin/python3" -B deploy/generate "$@"
