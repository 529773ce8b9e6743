#!/bin/bash
# The control plane, as the first process of its machine (see machine.sh): a datastore, the API server, controllers, the
# scheduler, cluster DNS and the provisioner of volumes.
set -euo pipefail
. "$(dirname "$0")/cluster.sh"
programs=$1 etcd=$2

mount --make-rprivate /
# Else it would hold the networks of other clusters.
umount --lazy /run/netns || true
mount -t tmpfs tmpfs /run
mkdir -p "$dir/control"
cd "$dir/control"
pki=$dir/pki

keep() { "$here/keep.sh" "$@" & }

if [ "$datastore" = etcd ]; then
    # What a test cluster holds need not outlive the machine.
    keep etcd "$etcd" --data-dir "$PWD/etcd" --unsafe-no-fsync --listen-client-urls http://127.0.0.1:2379 \
        --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380 \
        --initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster default=http://127.0.0.1:2380
    endpoints=http://127.0.0.1:2379
else
    members=
    for i in 1 2 3; do
        members+=${members:+,}member$i=http://127.0.0.$i:2380
        endpoints=${endpoints:+$endpoints,}http://127.0.0.$i:2379
    done
    for i in 1 2 3; do
        keep member$i "$etcd" --name member$i --data-dir "$PWD/member$i" --metrics-listen 127.0.0.$i:8081 \
            --listen-client-urls http://127.0.0.$i:2379 --advertise-client-urls http://127.0.0.$i:2379 \
            --listen-peer-urls http://127.0.0.$i:2380 --initial-advertise-peer-urls http://127.0.0.$i:2380 \
            --initial-cluster "$members"
    done
fi

keep kube-apiserver "$programs/kube-apiserver" --etcd-servers="$endpoints" --secure-port=6443 --bind-address=0.0.0.0 \
    --advertise-address="$control" --allow-privileged=true --authorization-mode=Node,RBAC \
    --enable-admission-plugins=NodeRestriction --service-cluster-ip-range="$services" \
    --client-ca-file="$pki/ca.crt" --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
    --kubelet-certificate-authority="$pki/ca.crt" --kubelet-client-certificate="$pki/apiserver-kubelet.crt" \
    --kubelet-client-key="$pki/apiserver-kubelet.key" --kubelet-preferred-address-types=InternalIP \
    --service-account-issuer="https://kubernetes.default.svc.$domain" --service-account-key-file="$pki/accounts.pub" \
    --service-account-signing-key-file="$pki/accounts.key" --requestheader-client-ca-file="$pki/front-proxy-ca.crt" \
    --requestheader-allowed-names=front-proxy --requestheader-username-headers=X-Remote-User \
    --requestheader-group-headers=X-Remote-Group --requestheader-extra-headers-prefix=X-Remote-Extra- \
    --proxy-client-cert-file="$pki/front-proxy.crt" --proxy-client-key-file="$pki/front-proxy.key" \
    --enable-aggregator-routing=true
# The others would only wait for it, each longer after every attempt.
until curl -sf --cacert "$pki/ca.crt" "https://$control:6443/readyz" >/dev/null; do sleep 0.2; done

keep kube-controller-manager "$programs/kube-controller-manager" --kubeconfig="$pki/controllers.kubeconfig" \
    --authentication-kubeconfig="$pki/controllers.kubeconfig" --authorization-kubeconfig="$pki/controllers.kubeconfig" \
    --bind-address=127.0.0.1 --leader-elect=false --use-service-account-credentials=true \
    --root-ca-file="$pki/ca.crt" --service-account-private-key-file="$pki/accounts.key" \
    --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" \
    --flex-volume-plugin-dir=/run/volume-plugins
keep kube-scheduler "$programs/kube-scheduler" --kubeconfig="$pki/scheduler.kubeconfig" \
    --authentication-kubeconfig="$pki/scheduler.kubeconfig" --authorization-kubeconfig="$pki/scheduler.kubeconfig" \
    --bind-address=127.0.0.1 --leader-elect=false
keep volumes "$programs/volumes" --kubeconfig="$kubeconfig" --root="$dir/volumes"
cat >Corefile <<COREFILE
.:53 {
    bind $control
    errors
    ready 127.0.0.1:8181
    kubernetes $domain in-addr.arpa {
        kubeconfig $kubeconfig
        ttl 1
    }
    cache 1
}
COREFILE
keep dns "$programs/dns" -conf Corefile
touch up
wait
