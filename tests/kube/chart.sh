# Sourced by test.sh: the chart on a real cluster, from an empty one to one of which only what is kept is left. Changes of a release, and a node that
# is emptied, are under load through the Service, of which no request may fail.
# shellcheck shell=bash disable=SC2154

. "$here/release.sh"
image_of() { in_namespace get "$1" -o 'jsonpath={.spec.template.spec.containers[0].image}'; }

# under_load WHAT COMMAND...: runs it, and says how many requests there were meanwhile.
under_load() {
    local what=$1 load said began
    shift
    "$tools/bin/k6" run --quiet --address "" -e "URL=$url" -e "TOKEN=$token" -e "RUN=$passed" "$here/steady.js" >"$images/load.log" 2>&1 &
    load=$!
    # It is there, and asks.
    sleep 2
    began=$(now)
    "$@" >/dev/null || { kill $load && fail "$what"; }
    echo "$what: $(seconds_since "$began")"
    kill -INT $load
    wait $load || true
    said=$(grep '^[0-9]* requests, ' "$images/load.log") || fail "no load: $(cat "$images/load.log")"
    echo "$what: $said"
    [[ $said == *", 0 failed,"* && $said != "0 "* ]] || fail "$what: $(grep FAILED "$images/load.log" | head -5)"
}

! no_tools "the chart on a cluster" helm k6 weed || return 0

step "helm install of the dev values on an empty cluster, helm test, and the smoke test through the Service"
mkdir "$images/jobs"
"$repository/deploy/images/build.sh" "$images/jobs" jobs
KUBE_DATASTORE=etcd KUBE_NODES=3 KUBE_IMAGES=$images start
"$here/images.sh" load "$images/jobs/jobs.tar" >/dev/null
install "${one[@]}"
helm test novacron --timeout "${ready_seconds}s" >/dev/null || fail "helm test"
TOKEN=$token "$repository/deploy/ci/smoke.sh" "$url" || fail "the smoke test"

step "helm uninstall leaves the member's claim, and nothing else"
helm uninstall novacron --wait --timeout "${helm_seconds}s" >/dev/null || fail "helm uninstall"
kinds=$(kubectl api-resources --namespaced --verbs list -o name | grep -v '^events' | paste -sd,)
left_in_namespace() { in_namespace get "$kinds" -o name --ignore-not-found 2>/dev/null | grep -vx 'configmap/kube-root-ca.crt\|serviceaccount/default' || true; }
only_the_claim() { [ "$(left_in_namespace)" = persistentvolumeclaim/data-novacron-consensus-0 ]; }
within "$ready_seconds" only_the_claim || fail "left: $(left_in_namespace)"
of_cluster=$(kubectl get clusterroles,clusterrolebindings,priorityclasses,crds -o name | grep novacron || true)
[ -z "$of_cluster" ] || fail "left outside the namespace: $of_cluster"
in_namespace delete pvc --all >/dev/null

step "helm upgrade to other images and another setting, under load"
"$here/images.sh" tag dev next >/dev/null
install "${three[@]}"
under_load upgrade helm upgrade novacron "$chart" "${three[@]}" --set image.tag=next --set api.settings.drain_timeout=20s --wait --timeout "${helm_seconds}s"
for workload in deployment/novacron-api statefulset/novacron-consensus daemonset/novacron-dwcp; do
    [[ $(image_of $workload) == *:next ]] || fail "$workload has $(image_of $workload)"
done
in_namespace get configmap novacron-api -o yaml | grep -c 'drain_timeout: 20s' >/dev/null || fail "the setting"

step "helm rollback, under load"
under_load rollback helm rollback novacron 1 --wait --timeout "${helm_seconds}s"
[[ $(image_of deployment/novacron-api) == *:dev ]] || fail "the API has $(image_of deployment/novacron-api)"
in_namespace get configmap novacron-api -o yaml | grep -c 'drain_timeout: 30s' >/dev/null || fail "the setting is not back"

step "a node with a replica and a member is emptied, under load"
empty() {
    kubectl drain "$1" --ignore-daemonsets --delete-emptydir-data --timeout "${ready_seconds}s" &&
        in_namespace rollout status deployment/novacron-api --timeout "${ready_seconds}s" &&
        kubectl uncordon "$1" &&
        in_namespace rollout status statefulset/novacron-consensus --timeout "${ready_seconds}s"
}
under_load drain empty "$(in_namespace get pods -l app.kubernetes.io/component=api -o 'jsonpath={.items[0].spec.nodeName}')"

. "$here/backup.sh"
stop
