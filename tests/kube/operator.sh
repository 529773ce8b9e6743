# Sourced by test.sh: the operator of deploy/operator as pods with the role that it is shipped with, and what it makes of a
# cluster with certificates and agents (nova), and of a small one in plain text (solo), while clients use them.
# shellcheck shell=bash disable=SC2154

work=$images/operator
mkdir "$work" "$work/images"
. "$here/operator/rules.sh"
. "$here/operator/load.sh"
. "$here/operator/region.sh"
operator_kubectl() { kubectl -n novacron-system "$@"; }

step "the operator as pods"
"$repository/deploy/images/build.sh" "$work/images" operator jobs
ln -s "$images"/*.tar "$work/images/"
KUBE_DATASTORE=etcd KUBE_IMAGES=$work/images KUBE_NODES=3 start
nodes=3
images_as 0.1.0
echo "nameserver $control" >"$work/resolv.conf"
kubectl apply --server-side -f "$repository/deploy/crds/novacron.yaml" >/dev/null
kubectl wait crd --all --for=condition=Established --timeout "${ready_seconds}s" >/dev/null || fail "the definitions"
kubectl apply -f "$repository/deploy/operator/role.yaml" -f "$repository/deploy/operator/operator.yaml" >/dev/null
operator_kubectl rollout status deployment/novacron-operator --timeout "${ready_seconds}s" >/dev/null || fail "the operator"
[ "$(operator_kubectl get pods --no-headers | grep -cw 1/1)" = 2 ] || fail "not two operators"
within "$ready_seconds" operator_works || fail "not one of two works: $(operators)"

step "a cluster with certificates and agents"
kubectl create namespace novacron >/dev/null
began=$(now)
kubectl apply -f "$here/operator/nova.yaml" >/dev/null
within "$ready_seconds" is_ready nova || fail "nova is not ready"
echo "all ready in $(seconds_since "$began")"
own_certificates nova-local
[ "$(store_of nova-local member list | grep -cw started)" = 3 ] || fail "members"
[ "$(kubectl_in get daemonset/nova-local-dwcp -o 'jsonpath={.status.numberReady}')" = "$nodes" ] || fail "agents"
token nova-local
within "$ready_seconds" agents_told nova-local || fail "agents that the API knows: $(api_of nova-local nodes)"
began=$(now)
kubectl apply -f "$here/operator/solo.yaml" >/dev/null
within "$ready_seconds" is_ready solo || fail "solo is not ready"
echo "a small one in plain text in $(seconds_since "$began")"

step "what the API server refuses, and what the operator may not do"
kubectl apply -f "$here/operator/federation.yaml" >/dev/null
export -f kubectl refused
export programs kubeconfig
wrong=$(for_each_line "$here/operator/refused.txt" refused
    renamed ncc/nova a-name-of-more-than-20-characters "the name has at most 20 characters"
    renamed dwcpfed/all a-name-of-more-than-20-characters "the name has at most 20 characters"
    renamed ncr/nova-local a-name-of-quite-a-few-more-than-41-characters "the name has at most 41 characters")
[ -z "$wrong" ] || fail "refused: $wrong"
wrong=$(allowed "$here/operator/denied.txt")
[ -z "$wrong" ] || fail "the operator may: $wrong"
[ "$(own_rules)" = "$(role_rules)" ] || fail "rules: $(diff <(own_rules) <(role_rules))"
! with_token get secrets 2>"$work/denied" || fail "secrets are listed"
grep -c Forbidden "$work/denied" >/dev/null || fail "it is not denied but: $(cat "$work/denied")"
! operator_logs | grep -i forbidden || fail "the operator asks for what its role does not have"
federation_told() { [ "$(kubectl get dwcpfed all -o "jsonpath=$ready_reason")" = TooFewReachable ]; }
within "$ready_seconds" federation_told || fail "the federation is told nothing"
kubectl delete dwcpfed all --timeout "${ready_seconds}s" >/dev/null || fail "the federation stays"

step "from 3 to 5 members, and from 1 to 3, under load; the operator that works is killed"
watch_begin nova-local
load_begin nova-local
load_begin solo-plain
voters nova 5
voters solo 3
within "$ready_seconds" has_learner nova-local || fail "no learner"
old=$(operator_at_work)
operator_kubectl delete pod "$old" --force --grace-period 0 >/dev/null 2>&1
within "$ready_seconds" is_at nova 5 || fail "nova does not get 5 members"
within "$ready_seconds" is_at solo 3 || fail "solo does not get 3 members"
[ "$(operator_at_work)" != "$old" ] || fail "the operator that was killed works"
load_end solo-plain

step "from 5 to 3 members, of which the last leads, under load; the API server is killed"
lead nova-local 4
voters nova 3
within "$ready_seconds" has_fewer nova-local 5 || fail "no member goes"
"$here/part.sh" kill control kube-apiserver
within "$ready_seconds" is_at nova 3 || fail "nova does not get back to 3 members"
load_end nova-local
[ "$(store_of nova-local member list | grep -cw started)" = 3 ] || fail "members: $(store_of nova-local member list)"
watch_end nova-local

step "certificates are renewed, and another authority takes the first one's place, under load"
kubectl_in wait --for=delete pod/nova-local-consensus-3 pod/nova-local-consensus-4 --timeout "${ready_seconds}s" >/dev/null
pods=$(pods_of nova-local)
first=$(authority_of nova issuing)
cp -r "$work/nova-local/current/" "$work/first"
load_begin nova-local
follow_certificates nova-local
follower=$!
began=$(now)
kubectl_in patch ncc nova --type merge -p '{"spec": {"security": {"tls": {"managed": {"validityHours": 4000, "renewBeforeHours": 3000}}}}}' >/dev/null
ends="notAfter=$(LC_ALL=C date -u -d '4000 hours' '+%b %e')"
within "$ready_seconds" shown nova-local "$ends" || fail "daemons do not show what was renewed: $(shown_at "nova-local-api.$names:8080" nova-local)"
echo "all daemons show what was renewed after $(seconds_since "$began")"
began=$(now)
kubectl_in patch ncc nova --type merge -p '{"spec": {"security": {"tls": {"managed": {"authority": 2, "settleSeconds": 60}}}}}' >/dev/null
is_alone() { [ "$(authority_of nova issuing)" != "$first" ] && [ -z "$(authority_of nova next)$(authority_of nova former)" ]; }
within $((3 * ready_seconds)) is_alone || fail "authorities: $(kubectl_in get ncc nova -o 'jsonpath={.status.authority}')"
shown nova-local "$(authority_of nova issuing | sed 's/CN=/CN = /')" || fail "daemons show $(shown_at "nova-local-api.$names:8080" nova-local)"
echo "another authority after $(seconds_since "$began")"
[ "$(pods_of nova-local)" = "$pods" ] || fail "pods were restarted"
load_end nova-local
kill $follower 2>/dev/null || true
own_certificates nova-local
for component in api dwcp; do
    kubectl_in logs --tail -1 -l "app.kubernetes.io/instance=nova-local,app.kubernetes.io/component=$component" |
        grep -c 'certificates for the store read again' >/dev/null || fail "$component goes on with the certificates of before"
done
agents_told nova-local || fail "agents that the API knows: $(api_of nova-local nodes)"
first_is_refused() {
    ! in_cluster env ETCDCTL_API=3 etcdctl --endpoints "https://nova-local-consensus-client.$names:2379" --cacert "$work/nova-local/ca.crt" \
        --cert "$work/first/tls.crt" --key "$work/first/tls.key" get kept >/dev/null 2>&1
}
within "$ready_seconds" first_is_refused || fail "the first authority is still trusted"
! operator_logs | grep -i 'PRIVATE KEY' || fail "a key was printed"

step "another version, under load"
images_as 0.1.1
watch_begin nova-local
load_begin nova-local
began=$(now)
version nova 0.1.1
within "$ready_seconds" is_ready nova || fail "nova does not get another version"
echo "three members, two replicas of the API and $nodes agents in $(seconds_since "$began")"
load_end nova-local
watch_end nova-local
[ -z "$(other_images nova-local 0.1.1)" ] || fail "pods of another version: $(other_images nova-local 0.1.1)"
one_at_a_time nova-local 3

step "a version that does not start is taken back, one that is too far is refused"
load_begin nova-local
version nova 0.1.2
within "$ready_seconds" does_not_start nova-local 1 || fail "no pod of a version that is not there"
version nova 0.1.1
within "$ready_seconds" is_ready nova || fail "nova does not get back"
version nova 0.9.0
skewed() { [ "$(kubectl_in get ncr nova-local -o "jsonpath=$ready_reason")" = VersionSkew ]; }
within "$ready_seconds" skewed || fail "a version that is too far"
version nova 0.1.1
within "$ready_seconds" is_ready nova || fail "nova does not get back"

step "the leader's pod is killed, a node is drained, and a member loses its volume, under load"
killed=$(leader_of nova-local)
old=$(address_of "pod/$killed" .metadata.uid)
kubectl_in delete pod "$killed" --force --grace-period 0 >/dev/null 2>&1
is_back() { [ "$(address_of "pod/$killed" .metadata.uid 2>/dev/null)" != "$old" ] && is_ready nova; }
within "$ready_seconds" is_back || fail "$killed does not come back"
member=nova-local-consensus-2
node=$(address_of pod/$member .spec.nodeName)
kubectl drain "$node" --ignore-daemonsets --delete-emptydir-data --timeout "${ready_seconds}s" >/dev/null 2>&1 || fail "$node is not drained"
[ -z "$(pods_on "$node")" ] || fail "on the node that was drained: $(pods_on "$node")"
# Its volume is the node's, which it cannot leave.
old=$(address_of pvc/data-$member .metadata.uid)
kubectl_in delete pvc data-$member --wait=false >/dev/null
kubectl_in delete pod $member >/dev/null
is_replaced() { [ "$(address_of pvc/data-$member .metadata.uid 2>/dev/null)" != "$old" ] && is_ready nova; }
within "$ready_seconds" is_replaced || fail "$member is not replaced"
kubectl uncordon "$node" >/dev/null
# The claim stays, and what was on the volume is gone.
member=nova-local-consensus-1
old=$(member_id nova-local $member) claim=$(address_of pvc/data-$member .metadata.uid)
wipe $member
is_another() { id=$(member_id nova-local $member) && [ -n "$id" ] && [ "$id" != "$old" ] && is_ready nova; }
within "$ready_seconds" is_another || fail "$member is not replaced: $(kubectl_in get pod $member -o 'jsonpath={.status.containerStatuses[0]}')"
[ "$(address_of pvc/data-$member .metadata.uid)" = "$claim" ] || fail "the claim is another"
[ "$(store_of nova-local member list | grep -cw started)" = 3 ] || fail "members: $(store_of nova-local member list)"
load_end nova-local

step "backups on a schedule, and another cluster of one"
. "$here/s3.sh"
tools=$("$repository/scripts/deploy-tools.sh") || tools=/nonexistent
if [ -x "$tools/bin/weed" ]; then
    s3_begin "$work/weed"
    kubectl_in create secret generic novacron-backup "${s3_login[@]}" >/dev/null
    store_of nova-local put kept before >/dev/null
    backup="{\"bucket\": {\"url\": \"$bucket\", \"secretName\": \"novacron-backup\"}}"
    kubectl_in patch ncc nova --type merge -p "{\"spec\": {\"storage\": {\"backup\": $backup}}}" >/dev/null
    has_cron_jobs() { [ "$(kubectl_in get cronjob -l app.kubernetes.io/instance=nova-local --no-headers 2>/dev/null | wc -l)" = 2 ]; }
    within "$ready_seconds" has_cron_jobs || fail "no CronJobs"
    ran_now nova-local-backup
    ran_now nova-local-backup-verification
    store_of nova-local put kept after >/dev/null
    certificates again-local
    began=$(now)
    sed "s|BUCKET|$bucket|" "$here/operator/again.yaml" | kubectl apply -f - >/dev/null
    within "$ready_seconds" is_ready again || fail "again is not ready: $(kubectl_in get ncr again-local -o 'jsonpath={.status}') $(kubectl_in logs -l app.kubernetes.io/component=backup --tail 20)"
    echo "another cluster of three members with what the backup has in $(seconds_since "$began")"
    kubectl_in get ncr again-local -o 'jsonpath={.status.conditions[?(@.type=="Restored")]}{"\n"}'
    [ "$(kubectl_in get ncr again-local -o 'jsonpath={.status.restore.verified}')" = true ] || fail "it was not compared"
    [ "$(store_of again-local get kept --print-value-only)" = before ] || fail "it has something else than the backup"
    [ "$(store_of again-local member list | grep -cw started)" = 3 ] || fail "members: $(store_of again-local member list)"
    # One that comes later joins, and begins with nothing of the backup.
    voters again 5
    within "$ready_seconds" is_at again 5 || fail "a restored cluster does not get 5 members"
    kubectl_in delete ncc again --timeout "${ready_seconds}s" >/dev/null || fail "again stays"
    kubectl_in patch ncc nova --type json -p '[{"op": "remove", "path": "/spec/storage/backup"}]' >/dev/null
    has_no_cron_jobs() { ! has_cron_jobs && is_ready nova; }
    within "$ready_seconds" has_no_cron_jobs || fail "CronJobs stay"
    s3_end
else
    without "backups of the operator: no weed (scripts/deploy-tools.sh)"
fi

step "what a cluster has goes with it, but for the volumes that are to be kept"
store_of nova-local put kept value >/dev/null
kubectl_in delete ncc nova solo --timeout "${ready_seconds}s" >/dev/null || fail "a cluster stays"
is_gone() { [ -z "$(owned nova-local)$(owned solo-plain)" ]; }
within "$ready_seconds" is_gone || fail "left of the clusters: $(owned nova-local) $(owned solo-plain)"
[ "$(claims_of nova-local)" -ge 3 ] || fail "claims that are to be kept: $(claims_of nova-local)"
[ "$(claims_of solo-plain)" = 0 ] || fail "claims that are to go: $(claims_of solo-plain)"
kubectl apply -f "$here/operator/nova.yaml" >/dev/null
within "$ready_seconds" is_ready nova || fail "nova is not ready on the volumes of before"
own_certificates nova-local
[ "$(store_of nova-local get kept --print-value-only)" = value ] || fail "the volumes of before are empty"
stop
nodes=2
