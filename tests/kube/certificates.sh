#!/bin/bash
# Keys, certificates and kubeconfigs of a test cluster in its folder `pki`: one authority for the API server, its clients
# and kubelets, one for what the aggregation layer says, and the key of service accounts.
set -euo pipefail
. "$(dirname "$0")/cluster.sh"

pki=$dir/pki
days=30

authority() {
    openssl ecparam -name prime256v1 -genkey -noout -out "$pki/$1.key"
    openssl req -x509 -new -key "$pki/$1.key" -subj "/CN=$1" -days $days -out "$pki/$1.crt" \
        -addext keyUsage=critical,keyCertSign,cRLSign
}

# certificate NAME AUTHORITY SUBJECT [ALTERNATIVE NAMES]
certificate() {
    openssl ecparam -name prime256v1 -genkey -noout -out "$pki/$1.key"
    openssl req -new -key "$pki/$1.key" -subj "$3" |
        openssl x509 -req -CA "$pki/$2.crt" -CAkey "$pki/$2.key" -CAcreateserial -days $days -out "$pki/$1.crt" -extfile <(
            echo "keyUsage = critical,digitalSignature,keyEncipherment"
            echo "extendedKeyUsage = serverAuth,clientAuth"
            [ -z "${4:-}" ] || echo "subjectAltName = $4"
        ) 2>/dev/null
}

# kubeconfig FILE NAME: with everything inside, so that it can be taken elsewhere.
kubeconfig() {
    cat >"$1" <<YAML
apiVersion: v1
kind: Config
current-context: $prefix
clusters:
  - name: $prefix
    cluster:
      server: https://$control:6443
      certificate-authority-data: $(base64 -w0 <"$pki/ca.crt")
contexts:
  - name: $prefix
    context: {cluster: $prefix, user: $2}
users:
  - name: $2
    user:
      client-certificate-data: $(base64 -w0 <"$pki/$2.crt")
      client-key-data: $(base64 -w0 <"$pki/$2.key")
YAML
}

umask 077
mkdir -p "$pki"
authority ca
authority front-proxy-ca
certificate front-proxy front-proxy-ca /CN=front-proxy
certificate apiserver ca /CN=kube-apiserver "IP:$control,IP:$api_service,IP:127.0.0.1,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.$domain"
certificate apiserver-kubelet ca /O=system:masters/CN=kube-apiserver
certificate admin ca /O=system:masters/CN=admin
certificate controllers ca /CN=system:kube-controller-manager
certificate scheduler ca /CN=system:kube-scheduler
certificate proxy ca /CN=system:kube-proxy
openssl genrsa -out "$pki/accounts.key" 2048 2>/dev/null
openssl rsa -in "$pki/accounts.key" -pubout -out "$pki/accounts.pub" 2>/dev/null
for ((node = 1; node <= nodes; node++)); do
    certificate "node$node" ca "/O=system:nodes/CN=system:node:node$node" "DNS:node$node,IP:$(node_address $node)"
    kubeconfig "$pki/node$node.kubeconfig" "node$node"
done
for client in controllers scheduler proxy; do
    kubeconfig "$pki/$client.kubeconfig" "$client"
done
kubeconfig "$kubeconfig" admin
