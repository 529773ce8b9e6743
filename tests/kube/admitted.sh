# Sourced by test.sh: what a real API server says to every object of deploy/, rendered as well, and to the pods that workloads
# would make, under the policies that deploy/ has. Nothing of it is kept (dry run), and nothing runs.
# shellcheck shell=bash disable=SC2154

# What kubectl says, warnings too, only if it fails.
quietly() {
    local said
    said=$(kubectl "$@" 2>&1) || { echo "$said" >&2 && return 1; }
}
# Fields that a kind does not have are errors.
dry_run() { quietly "$@" --dry-run=server --validate=strict; }
# refused WHY OBJECT: by the policy that says so.
refused() {
    local said
    ! said=$(dry_run create -f - <<<"$2" 2>&1) || fail "let in: $2"
    [[ $said == *"$1"* ]] || fail "refused otherwise than by \"$1\": $said"
}

if ! tools=$("$repository/scripts/deploy-tools.sh"); then
    without "the objects of deploy/ on an API server: PyYAML and jsonschema cannot be installed"
    return 0
fi
step "the API server takes every object of deploy/"
objects_of_deploy=$(mktemp -d -p "$images")
DEPLOY_TOOLS=$tools PYTHONPATH=$repository/tests/deploy PYTHONDONTWRITEBYTECODE=1 \
    "$tools/python/bin/python3" "$here/deployed.py" "$objects_of_deploy" &
rendering=$!
KUBE_DATASTORE=etcd KUBE_NODES=1 start
wait $rendering || fail "deploy/ cannot be rendered"
began=$(now)
# Ours have the same names.
quietly delete storageclasses --all
quietly apply --server-side -f "$repository/deploy/crds" || fail "our definitions"
[ ! -s "$objects_of_deploy/crds.json" ] || quietly create -f "$objects_of_deploy/crds.json" || fail "definitions of others"
# One that has just been made may have no conditions at all, which kubectl takes for a mistake.
within 30 quietly wait --for=condition=Established crds --all --timeout "${ready_seconds}s" || fail "definitions"
quietly apply --server-side -f "$objects_of_deploy/first.json" || fail "namespaces and accounts"
quietly apply --server-side --force-conflicts -k "$repository/deploy/policies" || fail "policies"
dry_run apply --server-side --force-conflicts -f "$objects_of_deploy/objects.json" || fail "objects"

step "it lets in all pods of deploy/, and refuses what policies are against"
dry_run create -f "$objects_of_deploy/pods.json" || fail "pods"
metadata='namespace: novacron, labels: {app.kubernetes.io/component: consensus}'
# A policy is in force a moment after it is made.
in_force() { (refused "only the agent uses its host's network" \
    "{apiVersion: v1, kind: Pod, metadata: {name: host, $metadata}, spec: {hostNetwork: true, containers: [{name: a, image: a}]}}") >/dev/null 2>&1; }
within "$ready_seconds" in_force || fail "a pod in its host's network is let in"
refused "must not tolerate the taint" "{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: spot, $metadata}, spec: {
    selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b, app.kubernetes.io/component: consensus}}, spec: {
    tolerations: [{operator: Exists}], containers: [{name: a, image: a}]}}}}"
refused "does not start on a snapshot" "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: old, $metadata}, spec: {
    accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}, dataSource: {kind: PersistentVolumeClaim, name: data}}}"
refused "exceeded quota" "{apiVersion: v1, kind: Pod, metadata: {name: large, $metadata}, spec: {securityContext: {runAsNonRoot: true}, containers: [{
    name: a, image: a, resources: {requests: {cpu: 101}, limits: {cpu: 101}}, securityContext: {allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}}]}}"
[ -s "$objects_of_deploy/crds.json" ] || without "objects of others: there are no definitions (variable CRDS)"
echo "asked in $(seconds_since "$began")"
stop
