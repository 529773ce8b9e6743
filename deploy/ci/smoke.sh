#!/bin/bash
# Does a replica of the API do what it is there for? Asks for its health, makes a VM's entry, reads it, and removes it.
#
#   [TOKEN=nct_...] deploy/ci/smoke.sh URL
set -euo pipefail

url=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# In a file: others on the machine can read command lines.
[ -z "${TOKEN:-}" ] || (umask 077 && printf 'header = "Authorization: Bearer %s"\n' "$TOKEN" >"$work/login")
ask() {
    curl --config "$(if [ -e "$work/login" ]; then echo "$work/login"; else echo /dev/null; fi)" \
        --fail --silent --show-error --max-time 30 "$@"
}

ask --retry 30 --retry-all-errors --retry-delay 1 --output /dev/null "$url/ready"
ask "$url/api/v1/health" | grep -q '"ready":true'
name=smoke-$(date +%s)-$$
body="{\"name\": \"$name\", \"cpus\": 1, \"memory_bytes\": 268435456, \"image\": \"disk.img\", \"region\": \"${REGION:-region-1}\", \"desired_state\": \"stopped\"}"
ask --dump-header "$work/head" --output /dev/null -H 'Content-Type: application/json' -H "Idempotency-Key: $name" \
    --data "$body" "$url/api/v1/vms"
field() {
    sed -n "s/^$1: *//Ip" "$work/head" | tr -d '\r'
}
ask "$url$(field location)" | grep -q "\"$name\""
ask --request DELETE -H "If-Match: $(field etag)" "$url$(field location)"
echo "smoke: $url made, showed and removed a VM's entry"
