#!/bin/bash
# certificates.sh FOLDER REGION: an authority, and what a region's daemons and clients show each other, as ca.crt, tls.crt
# and tls.key in FOLDER.
set -euo pipefail
folder=$1 region=$2
domain=novacron.svc.cluster.local
days=2

names="DNS:*.$region-consensus.$domain"
for service in consensus consensus-client api dwcp; do
    names+=,DNS:$region-$service.$domain
done
umask 077
mkdir -p "$folder"
cd "$folder"
key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }
key ca.key
openssl req -x509 -new -key ca.key -subj "/CN=$region" -days $days -out ca.crt -addext keyUsage=critical,keyCertSign,cRLSign
key tls.key
openssl req -new -key tls.key -subj "/CN=$region" |
    openssl x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days $days -out tls.crt -extfile <(
        echo "keyUsage = critical,digitalSignature"
        echo "extendedKeyUsage = serverAuth,clientAuth"
        echo "subjectAltName = $names"
    ) 2>/dev/null
