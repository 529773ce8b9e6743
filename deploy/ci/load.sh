#!/bin/bash
# A thousand users (deploy/load/api.js): ends with 1 if a threshold of the script is not met.
#
#   URL=https://... [TOKEN=...] [USERS=1000] [HOLD=5m] deploy/ci/load.sh
set -euo pipefail
exec k6 run --quiet "$(dirname "$0")/../load/api.js"
