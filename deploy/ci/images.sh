#!/bin/bash
# Builds the images for this machine's architecture, has Trivy and, with SNYK_TOKEN, Snyk look at them, and pushes them as VERSION-ARCHITECTURE
# with a list of what is in them and a signature. `images.sh join` makes VERSION of both architectures.
#
#   REGISTRY=docker.io/novacron VERSION=1.2.3 deploy/ci/images.sh [join]
set -euo pipefail
cd "$(dirname "$0")/../.."

images=(api consensus dwcp jobs operator)
architecture=$(dpkg --print-architecture)

if [ "${1:-}" = join ]; then
    for image in "${images[@]}"; do
        name=$REGISTRY/$image
        docker buildx imagetools create --tag "$name:$VERSION" "$name:$VERSION-amd64" "$name:$VERSION-arm64"
        digest=$(docker buildx imagetools inspect "$name:$VERSION" --format '{{.Manifest.Digest}}')
        cosign sign --yes "$name@$digest"
    done
    exit 0
fi
for image in "${images[@]}"; do
    name=$REGISTRY/$image:$VERSION-$architecture
    docker buildx build --file "deploy/images/$image/Containerfile" --sbom=true --provenance=mode=max \
        --output "type=oci,dest=$image.tar" --tag "$name" .
    # Before it is pushed: what is found stays here.
    trivy image --input "$image.tar" --exit-code 1 --severity HIGH,CRITICAL --ignore-unfixed
    [ -z "${SNYK_TOKEN:-}" ] || snyk container test "oci-archive:$image.tar" --severity-threshold=high
    skopeo copy "oci-archive:$image.tar" "docker://$name"
done
