"""Grafana's dashboards. A panel is a title, a unit, and what it draws: (expression, legend). Panels stand two in a row."""

import json

# A namespace and a release are chosen above each dashboard; "" stands for what is not there of a series.
CHOSEN = 'namespace=~"$namespace", release=~"$release"'
# Grafana's names of units.
SECONDS, RATE, BYTES, SHARE, NUMBER = "s", "reqps", "Bps", "percentunit", "short"
WIDTH, HEIGHT = 12, 8

OVERVIEW = [
    ("API: requests", RATE, ('sum by (status) (rate(http_requests_total{job="api", CHOSEN}[5m]))', "{{status}}")),
    ("API: share of requests that failed", SHARE, ("api:http_errors:ratio5m{CHOSEN}", "5xx")),
    ("Latency by route, 99 %", SECONDS,
     ('histogram_quantile(0.99, sum by (route, le) (rate(http_request_duration_seconds_bucket{job="api", CHOSEN}[5m])))', "{{route}}")),
    ("Errors by route", RATE, ('sum by (route) (rate(http_requests_total{job="api", status=~"5..", CHOSEN}[5m]))', "{{route}}")),
    ("Jobs that have not ended", NUMBER, ('max(queue_depth{job="api", CHOSEN})', "jobs")),
    ("Connections", NUMBER, ('active_connections{job="api", CHOSEN}', "{{pod}}")),
    ("Logins refused", RATE, ('sum(rate(http_logins_refused_total{job="api", CHOSEN}[5m]))', "refused")),
    ("Pods that answer", NUMBER, ("sum by (job) (up{CHOSEN})", "{{job}}")),
    ("Replicas of the API", NUMBER,
     ('kube_horizontalpodautoscaler_status_current_replicas{namespace=~"$namespace"}', "now"),
     ('kube_horizontalpodautoscaler_spec_max_replicas{namespace=~"$namespace"}', "at most")),
    ("Members to spare", NUMBER, ("consensus:members_to_spare{CHOSEN}", "members")),
    ("DWCP: sent to regions", BYTES, ("sum by (region) (dwcp:bytes_sent:rate5m{namespace=~\"$namespace\"})", "{{region}}")),
    ("Memory", "bytes", ('sum by (pod) (container_memory_working_set_bytes{namespace=~"$namespace", container!=""})', "{{pod}}")),
]

DWCP = [
    ("Sent", BYTES, ("sum by (node, region) (dwcp:bytes_sent:rate5m)", "{{node}} to {{region}}")),
    ("Received", BYTES, ("sum by (node, region) (dwcp:bytes_received:rate5m)", "{{node}} from {{region}}")),
    ("Payload for each byte sent", NUMBER, ('dwcp_compression_ratio{job="dwcp"}', "{{node}} to {{peer}}")),
    ("Round trip, 99 %", SECONDS, ("dwcp:rtt_seconds:p99", "{{node}} to {{peer}}")),
    ("Lost bytes", SHARE, ('dwcp_packet_loss_ratio{job="dwcp"}', "{{node}} to {{peer}}")),
    ("Segments sent again", "pps", ('rate(dwcp_retransmits_total{job="dwcp"}[5m])', "{{node}} to {{peer}}")),
    ("Links", NUMBER, ('dwcp_active_streams{job="dwcp"}', "{{node}} to {{peer}}")),
    ("Decisions of the link controller", NUMBER, ('sum by (change) (increase(dwcp_link_decisions_total{job="dwcp"}[5m]))', "{{change}}")),
    ("What the path can carry", BYTES,
     ('dwcp_delivery_rate_bytes_per_second{job="dwcp"}', "kernel: {{node}} to {{peer}}"),
     ('dwcp_bbr_bandwidth_bytes_per_second{job="dwcp"}', "BBR: {{node}} to {{peer}}")),
    ("Connections", NUMBER,
     ('sum by (node) (dwcp_active_connections{job="dwcp"})', "{{node}}"),
     ('sum by (node) (dwcp_expected_connections{job="dwcp"})', "{{node}}, expected")),
    ("Links lost", NUMBER, ('sum by (node) (increase(dwcp_resumes_total{job="dwcp"}[5m]))', "{{node}}")),
    ("Content refused", NUMBER,
     ('sum by (node) (increase(dwcp_integrity_failures_total{job="dwcp"}[5m]))', "{{node}}: altered"),
     ('sum by (node) (increase(dwcp_compression_errors_total{job="dwcp"}[5m]))', "{{node}}: does not decode")),
    ("Datagrams: loss of probes", SHARE, ('dwcp_path_loss_ratio{job="dwcp"}', "{{node}} to {{peer}}")),
    ("Datagrams: jitter", SECONDS, ('dwcp_path_jitter_seconds{job="dwcp"}', "{{node}} to {{peer}}")),
    ("Datagrams dropped", "pps", ('sum by (reason) (rate(dwcp_datagrams_dropped_total{job="dwcp"}[5m]))', "{{reason}}")),
    ("XDP", "pps", ('sum by (action) (rate(dwcp_xdp_packets_total{job="dwcp"}[5m]))', "{{action}}")),
    ("Kinds of links", NUMBER, ('sum by (kind) (dwcp_transport_info{job="dwcp"})', "{{kind}}")),
    ("Tunnels", NUMBER, ('sum by (kind) (dwcp_tunnels{job="dwcp"})', "{{kind}}")),
]

CONSENSUS = [
    ("Who leads", NUMBER, ("consensus_is_leader{CHOSEN}", "{{pod}}")),
    ("Leaders seen", NUMBER, ("increase(consensus_leader_changes_total{CHOSEN}[10m])", "{{pod}}")),
    ("Commit, 99 %", SECONDS, ("consensus:commit_duration_seconds:p99{CHOSEN}", "{{pod}}")),
    ("Write of the log, 99 %", SECONDS, ("consensus:fsync_duration_seconds:p99{CHOSEN}", "{{pod}}")),
    ("Apply, mean", SECONDS,
     ("rate(consensus_apply_duration_seconds_sum{CHOSEN}[5m]) / rate(consensus_apply_duration_seconds_count{CHOSEN}[5m])", "{{pod}}")),
    ("Writes", "ops", ("rate(consensus_commit_duration_seconds_count{CHOSEN}[5m])", "{{pod}}")),
    ("Committed and not applied", NUMBER, ("consensus_log_commit_index{CHOSEN} - consensus_applied_index{CHOSEN}", "{{pod}}")),
    ("Requests without an answer", NUMBER, ("consensus_proposals_pending{CHOSEN}", "{{pod}}")),
    ("Members", NUMBER, ("consensus_members{CHOSEN}", "{{pod}}: members"), ("consensus_quorum_size{CHOSEN}", "{{pod}}: majority")),
    ("Term", NUMBER, ("consensus_term{CHOSEN}", "{{pod}}")),
    ("Lag of regions", SECONDS, ("max by (region) (consensus_replication_lag_seconds{CHOSEN})", "{{region}}")),
    ("Between regions", BYTES,
     ("sum by (region) (rate(consensus_replication_sent_bytes_total{CHOSEN}[5m]))", "to {{region}}"),
     ("sum by (region) (rate(consensus_replication_received_bytes_total{CHOSEN}[5m]))", "from {{region}}")),
    ("Alarms of replication", NUMBER, ("sum by (kind) (increase(consensus_replication_alarms_total{CHOSEN}[10m]))", "{{kind}}")),
    ("Damage found", NUMBER, ("increase(consensus_scrub_errors_total{CHOSEN}[1h])", "{{pod}}")),
    ("States saved", NUMBER, ("increase(consensus_snapshot_total{CHOSEN}[1h])", "{{pod}}")),
    ("Room on volumes", SHARE,
     ('kubelet_volume_stats_available_bytes{namespace=~"$namespace"} / kubelet_volume_stats_capacity_bytes{namespace=~"$namespace"}',
      "{{persistentvolumeclaim}}")),
]

OPERATOR = [
    ("Reconciliation, 99 %", SECONDS,
     ('histogram_quantile(0.99, sum by (controller, le) (rate(reconcile_duration_seconds_bucket{job="operator"}[5m])))', "{{controller}}")),
    ("Reconciliations", "ops", ('sum by (controller) (rate(reconcile_duration_seconds_count{job="operator"}[5m]))', "{{controller}}")),
    ("Failed, by stage", "ops", ('sum by (stage) (rate(reconcile_errors_total{job="operator"}[5m]))', "{{stage}}")),
    ("Objects that wait", NUMBER, ('max(reconcile_queue_depth{job="operator"})', "objects")),
    ("Changes of membership", NUMBER,
     ('sum by (operation, result) (increase(member_changes_total{job="operator"}[1h]))', "{{operation}}: {{result}}")),
    ("Operators that answer", NUMBER, ('sum(up{job="operator"})', "pods")),
]

DASHBOARDS = {
    "overview": ("NovaCron: overview", OVERVIEW),
    "dwcp-performance": ("NovaCron: DWCP performance", DWCP),
    "consensus-health": ("NovaCron: consensus health", CONSENSUS),
    "operator": ("NovaCron: operator", OPERATOR),
}


def panel(number, title, unit, targets):
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"x": number % 2 * WIDTH, "y": number // 2 * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + at), "expr": expression.replace("CHOSEN", CHOSEN), "legendFormat": legend}
            for at, (expression, legend) in enumerate(targets)
        ],
    }


def choice(name, query):
    return {
        "name": name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def dashboard(name, title, panels):
    return {
        "uid": f"novacron-{name}",
        "title": title,
        "tags": ["novacron"],
        "schemaVersion": 39,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus"},
                choice("namespace", "label_values(up, namespace)"),
                choice("release", 'label_values(up{namespace=~"$namespace"}, release)'),
            ]
        },
        "panels": [panel(at, title, unit, targets) for at, (title, unit, *targets) in enumerate(panels)],
    }


def files():
    return {
        f"monitoring/dashboards/{name}.json": json.dumps(dashboard(name, title, panels), indent=1) + "\n"
        for name, (title, panels) in DASHBOARDS.items()
    }
