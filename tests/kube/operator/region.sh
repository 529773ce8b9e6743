# Sourced by operator.sh: what a region is asked and told, and what was seen of it meanwhile.
# shellcheck shell=bash disable=SC2034,SC2154

ready_reason='{.status.conditions[?(@.type=="Ready")].reason}'
declare -A watch_pids

# Images that nodes have, under another tag.
images_as() {
    local number name
    for ((number = 1; number <= nodes; number++)); do
        for name in api consensus dwcp jobs operator; do
            nsenter --target "$(first_process "node$number")" --net --pid --mount \
                ctr -n k8s.io images tag "docker.io/novacron/$name:dev" "docker.io/novacron/$name:$1" >/dev/null
        done
    done
}
# The Secret of a region.
certificates() {
    "$here/operator/certificates.sh" "$work/$1" "$1"
    kubectl_in create secret generic "$1-tls" --from-file="$work/$1/ca.crt" --from-file="$work/$1/tls.crt" \
        --from-file="$work/$1/tls.key" >/dev/null
}
# What clients of a region show and trust, of the Secret that the operator has made for them; as it is now.
own_certificates() {
    local part new
    mkdir -p "$work/$1"
    new=$(mktemp -d "$work/$1/XXXXXX")
    for part in ca.crt tls.crt tls.key; do
        kubectl_in get secret "$1-client-tls" -o "jsonpath={.data.${part/./\\.}}" | base64 -d >"$new/$part" || return 1
        [ -s "$new/$part" ] || return 1
        [ -L "$work/$1/$part" ] || ln -s "current/$part" "$work/$1/$part"
    done
    # All at once, as the kubelet does it.
    ln -s "${new##*/}" "$new.link"
    mv -T "$new.link" "$work/$1/current"
}
# follow_certificates REGION: the same again and again.
follow_certificates() {
    (
        trap exit TERM
        while [ -d "$work/$1" ]; do
            own_certificates "$1" 2>/dev/null || true
            sleep 2
        done
    ) &
}
# Who has issued what is shown at HOST:PORT, and when it ends.
shown_at() {
    in_cluster openssl s_client -connect "$1" -cert "$work/$2/tls.crt" -key "$work/$2/tls.key" </dev/null 2>/dev/null |
        openssl x509 -noout -issuer -enddate 2>/dev/null
}
# shown REGION WHAT: all members and the API show certificates that have this in who issued them, or in when they end.
shown() {
    local number
    for ((number = 0; number < 3; number++)); do
        [[ $(shown_at "$1-consensus-$number.$1-consensus.$names:2379" "$1") == *"$2"* ]] || return 1
    done
    [[ $(shown_at "$1-api.$names:8080" "$1") == *"$2"* ]]
}
authority_of() { kubectl_in get ncc "$1" -o "jsonpath={.status.authority.$2}"; }
# Pods of a region, and how often each was restarted.
pods_of() {
    kubectl_in get pods -l "app.kubernetes.io/instance=$1" --sort-by=.metadata.name \
        -o 'jsonpath={range .items[*]}{.metadata.uid} {.status.containerStatuses[0].restartCount}{"\n"}{end}'
}

# What a member has on its volume is gone; its claim and its pod stay.
wipe() {
    local volume node folder
    volume=$(address_of "pvc/data-$1" .spec.volumeName)
    folder=$(kubectl get pv "$volume" -o 'jsonpath={.spec.local.path}')
    node=$(address_of "pod/$1" .spec.nodeName)
    [ -n "$folder" ] || fail "the volume of $1"
    nsenter --target "$(first_process "$node")" --mount rm -rf "$folder/consensus"
    kubectl_in delete pod "$1" --force --grace-period 0 >/dev/null 2>&1
}
member_id() { kubectl_in get ncr "$1" -o "jsonpath={.status.members[?(@.pod==\"$2\")].id}"; }
# A Job of a CronJob, now.
ran_now() {
    kubectl_in create job "now-$1" --from "cronjob/$1" >/dev/null
    kubectl_in wait "job/now-$1" --for=condition=Complete --timeout "${ready_seconds}s" >/dev/null ||
        fail "$1: $(kubectl_in logs "job/now-$1" --tail 20)"
    kubectl_in logs "job/now-$1" --tail 1
}

# What its API is asked with.
token() {
    local folder=$work/$1
    echo "Authorization: Bearer $(in_cluster "$PROGRAMS/novacron-api" --create-token test --data-dir "$folder/audit" --store-ca "$folder/ca.crt" \
        --store-cert "$folder/tls.crt" --store-key "$folder/tls.key" \
        --store-endpoints "https://$1-consensus-client.$names:2379")" >"$folder/authorization"
}
# shellcheck disable=SC2046 # Flags are words.
api_of() { in_cluster curl -s $(api_flags "$1") "https://$1-api.$names:8080/api/v1/$2"; }
agents_told() { [ "$(api_of "$1" nodes | grep -o '"name":"node[0-9]"' | sort -u | wc -l)" = "$nodes" ]; }

# Each operator with whether it works.
operators() {
    operator_kubectl get pods -o 'jsonpath={range .items[?(@.status.phase=="Running")]}{.metadata.name} {.status.podIP}{"\n"}{end}' |
        while read -r name address; do
            echo "$name $(curl -s --max-time 2 "http://$address:8081/status" | grep -o '"works":[a-z]*')"
        done
}
operator_logs() { operator_kubectl logs --prefix --tail -1 -l app.kubernetes.io/component=operator; }
operator_at_work() { operators | sed -n 's/ .*true$//p'; }
operator_works() { [ "$(operators | cut -d' ' -f2 | sort | tr '\n' ' ')" = '"works":false "works":true ' ]; }

# A cluster is as the last change of its spec wants it.
is_ready() {
    [ "$(kubectl_in get ncc "$1" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status} {.status.observedGeneration}' 2>/dev/null)" = \
        "True $(kubectl_in get ncc "$1" -o 'jsonpath={.metadata.generation}' 2>/dev/null)" ]
}
is_at() { is_ready "$1" && [ "$(kubectl_in get ncr -l "app.kubernetes.io/instance=$1" -o 'jsonpath={.items[*].status.voters}')" = "$2" ]; }
voters() { kubectl_in patch ncc "$1" --type json -p "[{\"op\": \"replace\", \"path\": \"/spec/regions/0/voters\", \"value\": $2}]" >/dev/null; }
version() { kubectl_in patch ncc "$1" --type merge -p "{\"spec\": {\"version\": \"$2\"}}" >/dev/null; }
leader_of() { kubectl_in get ncr "$1" -o 'jsonpath={.status.leader}'; }
has_learner() { [[ " $(kubectl_in get ncr "$1" -o 'jsonpath={.status.members[*].learner}') " == *" true "* ]]; }
has_fewer() { [ "$(kubectl_in get ncr "$1" -o 'jsonpath={.status.voters}')" -lt "$2" ]; }
# lead REGION NUMBER: that pod leads.
lead() {
    local id
    id=$(store_of "$1" member list | sed -n "s/, .*, $1-consensus-$2, .*//p")
    # Only the member that leads does it.
    # shellcheck disable=SC2046
    in_cluster env ETCDCTL_API=3 etcdctl $(store_flags "$1" | sed "s/$1-consensus-client/$(leader_of "$1").$1-consensus/") \
        move-leader "$id" >/dev/null || fail "pod $2 does not lead"
}
other_images() {
    kubectl_in get pods -l "app.kubernetes.io/instance=$1" -o 'jsonpath={range .items[*]}{.spec.containers[0].image}{"\n"}{end}' |
        grep -v ":$2$" || true
}
# One pod of the store waits for an image, and only one.
does_not_start() {
    [ "$(kubectl_in get pods -l "app.kubernetes.io/instance=$1,app.kubernetes.io/component=consensus" --no-headers | grep -c ErrImageNeverPull)" = "$2" ]
}
pods_on() {
    kubectl_in get pods --field-selector "spec.nodeName=$1" -l app.kubernetes.io/component!=dwcp --no-headers 2>/dev/null
}

# What a region's store is told to be: `VOTERS LEADER LEARNERS|REASON|MESSAGE` for each change, and `WANTED READY` of its pods.
watch_begin() {
    : >"$work/$1.told"
    : >"$work/$1.pods"
    follow "$1.told" ncr "$1" '{.status.voters} {.status.leader} {.status.members[*].learner}|{.status.conditions[0].reason}|{.status.conditions[0].message}{"\n"}'
    watch_pids[$1]+=" $!"
    follow "$1.pods" statefulset "$1-consensus" '{.spec.replicas} {.status.readyReplicas}{"\n"}'
    watch_pids[$1]+=" $!"
}
# Again when it ends, as it does with the API server that it is of.
follow() {
    (
        trap 'kill $(jobs -p) 2>/dev/null' EXIT
        trap exit TERM
        while [ -e "$work/$1" ]; do
            kubectl_in get "$2" "$3" -w -o "jsonpath=$4" >>"$work/$1" 2>/dev/null &
            wait $! || sleep 0.5
        done
    ) &
}
# Ends it: quorum was never lost, and there was no more than one change at a time.
watch_end() {
    local told
    told=$(cat "$work/$1.told")
    [ -n "$told" ] || fail "nothing was seen of $1"
    mv "$work/$1.told" "$work/$1.was-told"
    mv "$work/$1.pods" "$work/$1.pods-were"
    # shellcheck disable=SC2086
    kill ${watch_pids[$1]} 2>/dev/null || true
    watch_pids[$1]=
    ! grep -E '\|(QuorumLost|StoreUnreachable)\|' <<<"$told" || fail "$1 was without quorum"
    ! cut -d'|' -f1 <<<"$told" | grep 'true .*true' || fail "$1 had two learners at a time"
}
# one_at_a_time REGION MEMBERS: of what was seen last, no pod was restarted beside another, or while it led.
one_at_a_time() {
    local restarted
    restarted=$(grep -E '\|Upgrading\|pod [0-9]+ is to run' "$work/$1.was-told" | sed -E 's/^[0-9]+ (\S+) .*\|pod ([0-9]+) .*/\1 \2/' | uniq)
    echo "leader, and the pod that got the version: $(tr '\n' ',' <<<"$restarted")"
    [ "$(cut -d' ' -f2 <<<"$restarted" | sort -u | wc -l)" = "$2" ] || fail "not all of $2 pods, one after the other"
    ! grep -E -- '-([0-9]+) \1$' <<<"$restarted" || fail "a pod was restarted while it led"
    ! awk -v least="$(($2 - 1))" '$2 + 0 < least' "$work/$1.pods-were" | grep . || fail "more than one pod was away"
}
# All that there is of a region, but for claims.
owned() {
    kubectl_in get sa,cm,secret,svc,netpol,pdb,sts,deploy,rs,ds,hpa,cronjob,job,pods,ncr -l "app.kubernetes.io/instance=$1" --no-headers -o name 2>/dev/null
    kubectl_in get ncr "$1" -o name --ignore-not-found
}
claims_of() { kubectl_in get pvc -l "app.kubernetes.io/instance=$1" --no-headers 2>/dev/null | wc -l; }
