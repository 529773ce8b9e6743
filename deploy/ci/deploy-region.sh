#!/bin/bash
# Brings a region to a version and watches it; goes back to what was there if anything fails. kubectl's context is the region's.
#
#   VERSION=1.2.3 URL=https://... [TOKEN=...] deploy/ci/deploy-region.sh REGION VALUES      VALUES: staging or production
set -euo pipefail
cd "$(dirname "$0")"

region=$1 values=$2
chart=../charts/novacron
namespace=${NAMESPACE:-novacron}

# The revision to go back to; none before the first.
before=$(helm history novacron --namespace "$namespace" --max 1 --output json 2>/dev/null |
    sed -n 's/.*"revision": *\([0-9]*\).*/\1/p' || true)
back() {
    echo "deploy: $region goes back" >&2
    if [ -n "$before" ]; then
        helm rollback novacron "$before" --namespace "$namespace" --wait --timeout 10m
    fi
    exit 1
}

helm upgrade novacron "$chart" --install --namespace "$namespace" --values "$chart/values-$values.yaml" \
    --set "region=$region" --set "image.tag=$VERSION" --wait --timeout 15m || back
REGION=$region ./smoke.sh "$URL" || back
./watch.sh "$URL" || back
echo "deploy: $region has $VERSION"
