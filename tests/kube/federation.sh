# Sourced by test.sh: two clusters on this machine, wired together (KUBE_OTHER is the number of the second one), and a DWCPFederation in
# the first one. Each gets a region; what one has under /global/ the other has too; the second one is lost twice and comes back.
# shellcheck shell=bash disable=SC2030,SC2031,SC2034,SC2154

work=$images/federation
other=${KUBE_OTHER:-$(((cluster + clusters_max / 2) % clusters_max))}
mkdir -p "$work/images" "$work/there"
. "$here/operator/load.sh"
. "$here/operator/region.sh"
operator_kubectl() { kubectl -n novacron-system "$@"; }
# there COMMAND...: the same in the second cluster.
there() (
    KUBE_CLUSTER=$other KUBE_NODES=1
    # shellcheck source=/dev/null
    . "$here/cluster.sh"
    work=$work/there
    "$@"
)
both() {
    "$@"
    there "$@"
}
script_there() { KUBE_CLUSTER=$other KUBE_NODES=1 KUBE_DATASTORE=etcd KUBE_IMAGES=$work/images "$here/$1" "${@:2}"; }
# The second one goes too, however it ends.
trap 'script_there down.sh; rm -rf "$images"; "$here/down.sh"' EXIT
nodes=1

operator_in() {
    echo "nameserver $control" >"$work/resolv.conf"
    images_as 0.1.0
    kubectl apply --server-side -f "$repository/deploy/crds/novacron.yaml" >/dev/null
    kubectl wait crd --all --for=condition=Established --timeout "${ready_seconds}s" >/dev/null || fail "the definitions"
    kubectl apply -f "$repository/deploy/operator/role.yaml" -f "$repository/deploy/operator/federated-role.yaml" \
        -f "$repository/deploy/operator/operator.yaml" >/dev/null
    kubectl create namespace novacron >/dev/null
    # The account of the federation, in the one namespace where it has something to do.
    kubectl_in create serviceaccount novacron-federation >/dev/null
    kubectl_in create rolebinding novacron-federation --clusterrole novacron-federation --serviceaccount novacron:novacron-federation >/dev/null
    operator_kubectl rollout status deployment/novacron-operator --timeout "${ready_seconds}s" >/dev/null || fail "the operator"
}
# The kubeconfig of that account.
federated() {
    cat <<YAML
apiVersion: v1
kind: Config
current-context: it
contexts: [{name: it, context: {cluster: it, user: it}}]
clusters: [{name: it, cluster: {server: "https://$control:6443", certificate-authority-data: $(base64 -w0 <"$dir/pki/ca.crt")}}]
users: [{name: it, user: {token: $(kubectl_in create token novacron-federation --duration 10h)}}]
YAML
}
federation_is() { [ "$(kubectl get dwcpfed all -o "jsonpath=$ready_reason")" = "$1" ]; }
serving() { [ "$(kubectl get dwcpfed all -o 'jsonpath={.status.clustersServing}')" = "$1" ]; }
named() { kubectl_in get dnsendpoint all-api -o 'jsonpath={range .spec.endpoints[*]}{.setIdentifier}={.providerSpecific[0].value} {end}'; }
replicas_of() { kubectl_in get ncc all -o 'jsonpath={.spec.regions[0].api.min}'; }
# has REGION KEY VALUE: a region's store has it.
has() { own_certificates "$1" && [ "$(store_of "$1" get "$2" --print-value-only)" = "$3" ]; }
puts() { own_certificates "$1" && store_of "$1" put "$2" "$3" >/dev/null; }
federation_state() { kubectl get dwcpfed all -o 'jsonpath={.status.conditions[0].reason}: {.status.conditions[0].message}'; }

step "two clusters, each with an operator, one of which has a federation of both"
"$repository/deploy/images/build.sh" "$work/images" operator jobs
ln -s "$images"/*.tar "$work/images/"
[ -z "$(script_there left.sh)" ] || script_there down.sh
KUBE_DATASTORE=etcd KUBE_IMAGES=$work/images KUBE_NODES=1 start
script_there up.sh >/dev/null
"$here/join.sh" "$cluster" "$other"
both operator_in
kubectl apply -f "$here/operator/dnsendpoints.yaml" >/dev/null
kubectl wait crd dnsendpoints.externaldns.k8s.io --for=condition=Established --timeout "${ready_seconds}s" >/dev/null
kubectl_in create secret generic here --from-file=kubeconfig=<(federated) >/dev/null
kubectl_in create secret generic there --from-file=kubeconfig=<(there federated) >/dev/null
began=$(now)
sed "s/192.0.2.1/$(node_address 1)/; s/192.0.2.2/$(there node_address 1)/" "$here/operator/federation.yaml" | kubectl apply -f - >/dev/null
within "$ready_seconds" federation_is AsSpecified || fail "the federation: $(federation_state)"
echo "two regions with certificates, which know each other, in $(seconds_since "$began")"
within "$ready_seconds" serving 2/2 || fail "not both get traffic"
[ "$(named)" = "here=2 there=1 " ] || fail "records: $(named)"
[ "$(replicas_of) $(there replicas_of)" = "2 1" ] || fail "replicas: $(replicas_of) $(there replicas_of)"

step "what one region has under /global/ the other has, and each finds the other's API"
began=$(now)
puts all-here /global/a one || fail "put"
within "$ready_seconds" there has all-there /global/a one || fail "there is no /global/a in the other cluster"
echo "there after $(seconds_since "$began")"
there puts all-there /global/b two || fail "put"
within "$ready_seconds" has all-here /global/b two || fail "there is no /global/b here"
puts all-here own three || fail "put"
! there has all-there own three || fail "a key that is not under /global/ went over"
there own_certificates all-there
mkdir -p "$work/all-there"
cp "$work/there/all-there/ca.crt" "$work/all-there/ca.crt"
found=$(in_cluster curl -s -o /dev/null -w '%{http_code}' --max-time 5 --cacert "$work/all-there/ca.crt" "https://all-there-api.$names:8080/healthz" || true)
[ "$found" = 200 ] || fail "the other cluster's API by its name here: $found"

# lost HOW: the second cluster gets no traffic, and its share is here, in less than two minutes; and back again.
lost() {
    local began
    began=$(now)
    "$1" stop
    within 120 serving 1/2 || fail "$1: no failover within two minutes: $(federation_state)"
    within 10 federation_is FailedOver || fail "$1: $(federation_state)"
    [ "$(named)" = "here=2 " ] || fail "records: $(named)"
    has_share() { [ "$(replicas_of)" = 3 ]; }
    within 10 has_share || fail "replicas here: $(replicas_of)"
    within 10 is_cut || fail "the other's endpoints stay: $(kubectl_in get endpointslice all-there-api-ipv4 -o yaml)"
    echo "$1: failed over in $(seconds_since "$began")"
    puts all-here "/global/$1" meanwhile || fail "put"
    began=$(now)
    "$1" start
    within $((2 * ready_seconds)) serving 2/2 || fail "$1: it does not come back: $(federation_state)"
    echo "$1: back in $(seconds_since "$began"), 10 s of good health included"
    within "$ready_seconds" federation_is AsSpecified || fail "$1: $(federation_state)"
    [ "$(named)" = "here=2 there=1 " ] || fail "records: $(named)"
    within "$ready_seconds" there has all-there "/global/$1" meanwhile || fail "what was put meanwhile is not there"
}
is_cut() { [ -z "$(kubectl_in get endpointslice all-there-api-ipv4 -o 'jsonpath={.endpoints[*].addresses}')" ]; }
api_server() { script_there part.sh "$1" control kube-apiserver; }
# Its wire: kubelet, pods and what is between them go on, unseen.
node() {
    local state=down
    [ "$1" = stop ] || state=up
    ip netns exec "nvk$other-control" ip link set node1 $state
}

step "the other cluster's API server is lost, and comes back"
lost api_server

step "the other cluster's node is cut off, and comes back"
lost node

step "what a federation has put into its clusters goes with it"
kubectl delete dwcpfed all --timeout "${ready_seconds}s" >/dev/null || fail "the federation stays: $(federation_state)"
things() { kubectl_in get ncc,ncr,svc,endpointslices,sts,deploy,pods,pvc -o name 2>/dev/null; }
is_empty() { [ -z "$(things)$(there things)" ] && [ -z "$(kubectl_in get dnsendpoints -o name)" ]; }
within "$ready_seconds" is_empty || fail "left: $(things) $(there things)"
script_there down.sh
left=$(script_there left.sh)
[ -z "$left" ] || fail "left of the second cluster: $left"
stop
nodes=2
trap 'rm -rf "$images"; "$here/down.sh"' EXIT
