# Sourced by the parts that install the chart: how that is done.
# shellcheck shell=bash disable=SC2034,SC2154

tools=$("$repository/scripts/deploy-tools.sh") || tools=/nonexistent
chart=$repository/deploy/charts/novacron
# Seconds for helm to wait.
helm_seconds=300
helm() { "$tools/bin/helm" --kubeconfig "$kubeconfig" --namespace novacron "$@"; }
in_namespace() { kubectl -n novacron "$@"; }
# The load is one client, which has a limit else; replicas that are two, and members that are three, can be changed one by one.
one=(--values "$chart/values-dev.yaml" --set image.tag=dev --set-string api.settings.limits.rate=off)
three=("${one[@]}" --set api.replicas=2 --set consensus.members=3)
install() {
    local began
    began=$(now)
    helm install novacron "$chart" --create-namespace "$@" --wait --timeout "${helm_seconds}s" >/dev/null || fail "helm install"
    echo "installed and ready in $(seconds_since "$began")"
    url=http://$(in_namespace get service novacron-api -o 'jsonpath={.spec.clusterIP}'):8080
    # As the chart's notes say.
    token=$(in_namespace exec deployment/novacron-api -- novacron-api --config /etc/novacron/config/config.yaml --create-token first) || fail "the first token"
}
# no_tools WHAT PROGRAM...: says what is left out, if a program is not there.
no_tools() {
    local program
    for program in "${@:2}"; do
        [ ! -x "$tools/bin/$program" ] || continue
        without "$1: no $program (scripts/deploy-tools.sh)"
        return 0
    done
    return 1
}
