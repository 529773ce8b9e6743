# Sourced by test.sh: a region in plain objects, on images of this repository's programs. A cluster whose start is cut off
# is removed as well.
# shellcheck shell=bash disable=SC2154

kubectl_in() { kubectl -n novacron "$@"; }
address_of() { kubectl_in get "$1" -o "jsonpath={$2}"; }
rolled_out() { kubectl_in rollout status "$1" --timeout "${ready_seconds}s"; }

step "a start that is cut off leaves what can be removed"
setsid "$here/up.sh" >/dev/null 2>&1 &
starting=$!
within 60 test -e "$dir/control/kube-apiserver.log" || fail "the control plane did not begin"
kill -KILL -- "-$starting"
[ -n "$("$here/left.sh")" ] || fail "nothing was there when it was cut off"
stop

# region DATASTORE: the whole of it, on a cluster of that kind.
region() {
    local workload began client members old own api node
    step "a region, objects of the cluster in $1"
    KUBE_DATASTORE=$1 KUBE_IMAGES=$images start
    [ "$(kubectl get nodes --no-headers | grep -cw Ready)" = "$nodes" ] || fail "not $nodes nodes"
    began=$(now)
    kubectl apply -f "$here/workloads.yaml" >/dev/null
    for workload in statefulset/novacron-consensus deployment/novacron-api daemonset/novacron-dwcp; do
        rolled_out $workload || fail "$workload is not ready"
    done
    echo "all ready in $(seconds_since "$began")"

    step "the store by its service, and the data of a pod that is deleted"
    client=$(address_of service/novacron-consensus-client .spec.clusterIP)
    store "$client" put kept value || fail "put"
    [ "$(store "$client" get kept --print-value-only)" = value ] || fail "get"
    members=$(store "$client" member list | grep -c started)
    [ "$members" = 3 ] || fail "$members members"
    old=$(address_of pod/novacron-consensus-1 .metadata.uid)
    began=$(now)
    kubectl_in delete pod novacron-consensus-1 --wait=false
    store "$client" put meanwhile value || fail "put while a member is away"
    is_new() { [ "$(address_of pod/novacron-consensus-1 .metadata.uid 2>/dev/null)" != "$old" ]; }
    within "$ready_seconds" is_new || fail "the pod does not go"
    kubectl_in wait pod/novacron-consensus-1 --for=condition=Ready --timeout "${ready_seconds}s" || fail "it does not come back"
    echo "back in $(seconds_since "$began")"
    # Its own answer, not that of the others.
    own=$(address_of pod/novacron-consensus-1 .status.podIP)
    has_all() { [ "$(store "$own" get kept --consistency=s --print-value-only) $(store "$own" get meanwhile --consistency=s --print-value-only)" = "value value" ]; }
    within "$ready_seconds" has_all || fail "data of the pod that was deleted"
    [ "$(store "$client" member list | wc -l)" = 3 ] || fail "it is another member"

    step "the HTTP API by its service, agents on their nodes, and what kubelets are asked"
    api=$(address_of service/novacron-api .spec.clusterIP)
    curl -sf "http://$api:8080/ready" >/dev/null || fail "the HTTP API is not ready"
    for ((node = 1; node <= nodes; node++)); do
        curl -sf "http://$(node_address $node):9101/metrics" | grep -c '^dwcp_' >/dev/null || fail "agent of node $node"
    done
    kubectl_in logs novacron-consensus-0 | grep -c . >/dev/null || fail "logs"

    step "a cluster that runs is left as it is; its API server comes back"
    [ "$("$here/up.sh")" = "$kubeconfig" ] || fail "a second start"
    "$here/part.sh" kill control kube-apiserver
    answers() { kubectl get --raw /readyz >/dev/null 2>&1; }
    within "$ready_seconds" answers || fail "the API server does not come back"
    [ "$(address_of statefulset/novacron-consensus .status.readyReplicas)" = 3 ] || fail "members after that"

    step "what was made is removed"
    kubectl delete namespace novacron --timeout "${ready_seconds}s" >/dev/null || fail "the namespace stays"
    is_empty() { [ -z "$(kubectl get pv --no-headers 2>/dev/null)$(ls "$dir/volumes")" ]; }
    within "$ready_seconds" is_empty || fail "volumes stay"
    stop
}

region etcd
region novacron
