# Sourced by test.sh: the autoscaler of deploy/autoscaling adds replicas for connections that clients have, by a real way of metrics: daemons, Prometheus
# with the ServiceMonitors of deploy/monitoring, prometheus-adapter with its rules, the API server, Kubernetes' autoscaler.
# shellcheck shell=bash disable=SC2154

. "$here/release.sh"
work=$images/autoscaling
# Two thirds over the target of three replicas, of 500 each; a replica takes 1,024.
connections=2500
in_monitoring() { kubectl -n monitoring "$@"; }

! no_tools "the autoscaler on a cluster" helm prometheus || return 0
if ! adapter=$("$here/adapter/build.sh"); then
    without "the autoscaler on a cluster: prometheus-adapter cannot be built"
    return 0
fi
step "autoscaling: three signals by way of Prometheus and prometheus-adapter"
mkdir -p "$work"/{prometheus,adapter/usr/bin,images}
"$repository/deploy/images/root.sh" "$tools/bin/prometheus" "$work/prometheus"
# It is static.
cp "$adapter/adapter" "$work/adapter/usr/bin/"
ln -s "$images"/*.tar "$work/images/"
for program in prometheus adapter; do
    "$here/images.sh" pack "$work/$program" "localhost/$program:1" "/usr/bin/$program" "$work/images/$program.tar"
done
KUBE_DATASTORE=etcd KUBE_NODES=3 KUBE_IMAGES=$work/images start
# Begins with the three replicas that it has at least.
install "${one[@]}" --set agent.enabled=false --set api.autoscaling=hpa
kubectl create namespace monitoring >/dev/null
discovery_port=$((19200 + cluster))
"$tools/python/bin/python3" "$here/discovery.py" "$host" $discovery_port novacron "$programs/kubectl" --kubeconfig "$kubeconfig" 2>"$work/discovery" &
discovery=$!
load=
trap 'kill $discovery $load 2>/dev/null || true; rm -rf "$images"; "$here/down.sh"' EXIT
"$tools/python/bin/python3" "$here/metrics.py" "$repository/deploy" "http://$host:$discovery_port/" | kubectl apply -f - >/dev/null || fail "settings"
kubectl apply -f "$here/metrics.yaml" >/dev/null || fail "the way of metrics"
for deployment in prometheus prometheus-adapter; do
    in_monitoring rollout status deployment/$deployment --timeout "${ready_seconds}s" >/dev/null || fail "$deployment"
done
kubectl wait apiservice v1beta1.custom.metrics.k8s.io --for=condition=Available --timeout "${ready_seconds}s" >/dev/null || fail "the API of metrics"

custom=/apis/custom.metrics.k8s.io/v1beta1/namespaces/novacron
# metric PATH: its values.
metric() { kubectl get --raw "$custom/$1" 2>/dev/null | grep -o '"value":"[^"]*"' | cut -d'"' -f4; }
replicas() { in_namespace get deployment novacron-api -o 'jsonpath={.status.readyReplicas}'; }
has_smallest() { [ "$(replicas)" = 3 ] && [ "$(metric 'pods/*/active_connections?labelSelector=app.kubernetes.io/component%3Dapi' | wc -l)" = 3 ]; }
within "$ready_seconds" has_smallest || fail "replicas with connections: $(replicas), $(metric 'pods/*/active_connections' | paste -sd' ')"
# There are none before the first.
asked() { curl -sf "$url/ready" >/dev/null && [ "$(metric 'pods/*/http_requests_per_second' | wc -l)" = 3 ]; }
within "$ready_seconds" asked || fail "requests of replicas: $(metric 'pods/*/http_requests_per_second' | paste -sd' ')"
[ "$(metric 'services/novacron-api/queue_depth')" = 0 ] || fail "no queue: $(metric 'services/novacron-api/queue_depth')"

# That there became three of one was a step, too, and in any minute there is half as many more at most.
last_step=$(date -d "$(in_namespace get hpa novacron-api -o 'jsonpath={.status.lastScaleTime}')" +%s)
may_step() { [ "$(date +%s)" -gt $((last_step + 60)) ]; }
within "$ready_seconds" may_step

step "autoscaling: from three replicas to more, for $connections connections"
ulimit -n "$(ulimit -Hn)"
began=$(now)
"$tools/python/bin/python3" "$here/connections.py" "${url#http://}" "$connections" >"$work/held" &
load=$!
pods() { in_namespace get pods -l app.kubernetes.io/component=api --no-headers | wc -l; }
has_more() { [ "$(pods)" -gt 3 ]; }
more_ready() { [ "$(replicas)" -gt 3 ]; }
within "$ready_seconds" grep -q held "$work/held" || fail "connections"
echo "connections are held after $(seconds_since "$began")"
within "$ready_seconds" has_more || fail "no more replicas: $(in_namespace get hpa novacron-api -o 'jsonpath={.status}')"
echo "the first new pod $(seconds_since "$began") after the load began (target: 30 s)"
within "$ready_seconds" more_ready || fail "none of them is ready"
echo "ready after $(seconds_since "$began"); $(pods) replicas, connections of each: $(metric 'pods/*/active_connections?labelSelector=app.kubernetes.io/component%3Dapi' | paste -sd' ')"
in_namespace get hpa novacron-api -o 'jsonpath={.status.conditions[?(@.type=="ScalingActive")].reason}' | grep -x ValidMetricFound >/dev/null || fail "$(in_namespace get hpa novacron-api -o 'jsonpath={.status.conditions}')"
kill $load $discovery
wait $load $discovery 2>/dev/null || true
stop
