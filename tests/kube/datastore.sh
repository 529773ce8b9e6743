# Sourced by test.sh: the API server keeps its objects in three members of this repository's store.
# shellcheck shell=bash disable=SC2154

# Objects that are written while all members run, and while one does not.
objects=50
write() {
    local i
    for ((i = 0; i < objects; i++)); do
        echo "{apiVersion: v1, kind: ConfigMap, metadata: {name: $1-$i, namespace: default}, data: {n: '$i'}}"
        echo ---
    done | kubectl apply --server-side -f - >/dev/null
}
count() { kubectl get configmaps --no-headers | grep -c "^$1-"; }
# The member that leads, by its own metrics.
leader() {
    local i
    for i in 1 2 3; do
        ! ip netns exec "$prefix-control" curl -sf "http://127.0.0.$i:8081/metrics" |
            grep -c '^consensus_is_leader\b.* 1$' >/dev/null || echo $i
    done
}

step "the API server on our store"
KUBE_DATASTORE=novacron KUBE_NODES=1 start
write all || fail "objects with all members"
kubectl create deployment probe --image localhost/pause:1 >/dev/null
kubectl rollout status deployment/probe --timeout "${ready_seconds}s" >/dev/null || fail "a deployment"

lost=$(leader)
[ -n "$lost" ] || fail "no member leads"
began=$(now)
"$here/part.sh" stop control "member$lost"
within "$ready_seconds" write two || fail "objects without member $lost, which led"
echo "member $lost, which led, is killed: $objects objects written in $(seconds_since "$began")"
[ "$(count all) $(count two)" = "$objects $objects" ] || fail "objects: $(count all) $(count two)"
kubectl scale deployment/probe --replicas 2 >/dev/null
kubectl rollout status deployment/probe --timeout "${ready_seconds}s" >/dev/null || fail "the deployment without member $lost"
"$here/part.sh" start control "member$lost"
caught_up() { ip netns exec "$prefix-control" curl -sf "http://127.0.0.$lost:8081/ready" >/dev/null; }
within "$ready_seconds" caught_up || fail "member $lost does not come back"
[ "$(count all) $(count two)" = "$objects $objects" ] || fail "objects: $(count all) $(count two)"
stop
