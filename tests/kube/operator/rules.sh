# Sourced by operator.sh: tables of what the API server refuses, and of what the operator may not do.
# shellcheck shell=bash disable=SC2154

operator_account=system:serviceaccount:novacron-system:novacron-operator

# Each line of a table (without comments) as arguments of a command, several at a time: most of it is waiting.
for_each_line() {
    # shellcheck disable=SC2016 # For the shells that it starts.
    grep -v '^#' "$1" | xargs -d '\n' -P 4 -I LINE bash -c '"$@"' bash "$2" LINE
}

# refused "OBJECT | PATH VALUE | MESSAGE"
refused() {
    local object=${1%% | *} message=${1##* | } change said
    change=${1#* | }
    change=${change% | *}
    if said=$(kubectl -n novacron patch "$object" --dry-run=server --type json \
        -p "[{\"op\": \"add\", \"path\": \"${change%% *}\", \"value\": ${change#* }}]" 2>&1); then
        echo "is taken: $1"
    else
        [[ $said == *"$message"* ]] || echo "$1: $said"
    fi
}
# renamed KIND/OBJECT NAME MESSAGE: it is refused under that name.
renamed() {
    local said
    said=$(kubectl -n novacron get "$1" -o yaml | sed "s/^  name: .*/  name: $2/; /^  \(uid\|resourceVersion\):/d" |
        kubectl create --dry-run=server -f - 2>&1) && echo "is taken: $1 as $2"
    [[ $said == *"$3"* ]] || echo "$1 as $2: $said"
}
# Lines of a table, VERB RESOURCE, that the operator may do: all are asked in one go.
allowed() {
    local verb resource name group
    grep -v '^#' "$1" | while read -r verb resource; do
        name=${resource%%.*} group=
        [[ $resource != *.* ]] || group=${resource#*.}
        cat <<YAML
---
apiVersion: authorization.k8s.io/v1
kind: SubjectAccessReview
spec:
  user: $operator_account
  groups: [system:serviceaccounts, "system:serviceaccounts:novacron-system", system:authenticated]
  resourceAttributes: {verb: $verb, group: "$group", resource: ${name%/*}, subresource: "${name#"${name%/*}"}"}
YAML
    done | sed 's,subresource: "/,subresource: ",' |
        kubectl create -f - -o 'jsonpath={.status.allowed} {.spec.resourceAttributes}{"\n"}' | grep -v '^false' || true
}
# Rules of an account, without what all have.
rules_of() { kubectl auth can-i --list -n novacron --as "$1" --no-headers | sort; }
# What the operator may, beside what everybody may; and what its role says.
own_rules() { comm -23 <(rules_of "$operator_account") <(rules_of system:serviceaccount:novacron:nobody) | sed -E 's/ +/ /g'; }
role_rules() {
    kubectl get clusterrole novacron-operator -o 'jsonpath={range .rules[*]}{range @.resources[*]}{@}{" "}{end}|{.apiGroups[0]}|{range .verbs[*]}{@}{" "}{end}{"\n"}{end}' |
        while IFS='|' read -r resources group verbs; do
            for resource in $resources; do
                # A subresource stands after its group.
                name=${resource%%/*}${group:+.$group}
                [[ $resource != */* ]] || name+=/${resource#*/}
                echo "$name [] [] [${verbs% }]"
            done
        done | sort
}
# As a process in the operator's pod would.
with_token() {
    "$programs/kubectl" --server "https://$control:6443" --certificate-authority "$dir/pki/ca.crt" \
        --token "$(operator_kubectl create token novacron-operator)" --kubeconfig /dev/null "$@"
}
