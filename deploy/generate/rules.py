"""What the Prometheus operator reads: the files of monitoring/rules as one PrometheusRule, each alert with the address of its runbook, and a
ServiceMonitor for each component."""

from output import DEPLOY, source, text, thing

RUNBOOKS = "https://github.com/novacron/dwcp/blob/main/deploy/runbooks"
API = "monitoring.coreos.com/v1"
# The API is scaled by its metrics, which is to take less than 30 s.
INTERVALS = {"api": "5s", "consensus": "15s", "dwcp": "15s", "operator": "15s"}
# How many samples a scrape may have: an agent has 256 peers with labels of their own at most, each with some 40 series.
SAMPLES_MAX = {"api": 20000, "consensus": 5000, "dwcp": 20000, "operator": 5000}
# Who has a namespace of its own.
ELSEWHERE = {"operator": "novacron-system"}


def rule():
    groups = []
    for path in sorted((DEPLOY / "monitoring" / "rules").glob("*.yaml")):
        groups += source(path.relative_to(DEPLOY))["groups"]
    for alert in (rule for group in groups for rule in group["rules"] if "alert" in rule):
        alert["annotations"]["runbook_url"] = f"{RUNBOOKS}/{alert['alert']}.md"
    return thing(API, "PrometheusRule", "novacron", spec={"groups": groups})


def monitor(component):
    """The label of the component becomes `job`, whatever its Service is called, and that of the instance `release`: rules and dashboards go by
    these two. Of several Services of a component, the one whose port is called `metrics` counts."""
    labels = {"release": "service_label_app_kubernetes_io_instance", "node": "pod_node_name"}
    return thing(API, "ServiceMonitor", f"novacron-{component}", component, spec={
        "jobLabel": "app.kubernetes.io/component",
        **({"namespaceSelector": {"matchNames": [ELSEWHERE[component]]}} if component in ELSEWHERE else {}),
        "selector": {"matchLabels": {"app.kubernetes.io/part-of": "novacron", "app.kubernetes.io/component": component}},
        "sampleLimit": SAMPLES_MAX[component],
        "endpoints": [{
            "port": "metrics",
            "interval": INTERVALS[component],
            "scrapeTimeout": min(INTERVALS[component], "10s", key=lambda time: int(time.rstrip("s"))),
            "relabelings": [
                {"action": "replace", "sourceLabels": [f"__meta_kubernetes_{label}"], "targetLabel": target}
                for target, label in labels.items()
            ],
        }],
    })


def files():
    return {
        "monitoring/prometheus-rule.yaml": text("monitoring/rules", rule()),
        "monitoring/service-monitors.yaml": text("generate/rules.py", *map(monitor, SAMPLES_MAX)),
    }
