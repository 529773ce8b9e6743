"""How the API is scaled, by Kubernetes' own autoscaler with prometheus-adapter, or by KEDA."""

import yaml

from output import NAMESPACE, source, text, thing

TARGET = "novacron-api"
PROMETHEUS = "http://prometheus-operated.monitoring.svc:9090"
# What a metric must have to be one of a pod, or of a Service.
MATCH = 'job="api",namespace!="",{resource}!=""'


def autoscaler(signals):
    metrics = [
        {"type": "Resource", "resource": {"name": name, "target": {"type": "Utilization", "averageUtilization": share}}}
        for name, share in signals["resources"].items()
    ]
    metrics += [
        {"type": "Pods", "pods": {"metric": {"name": name}, "target": average(signal)}}
        for name, signal in signals["pods"].items()
    ]
    # The Service is the one that Prometheus scrapes: it gives the series their label.
    service = {"apiVersion": "v1", "kind": "Service", "name": TARGET}
    metrics += [
        {"type": "Object", "object": {"describedObject": service, "metric": {"name": name}, "target": average(signal)}}
        for name, signal in signals["whole"].items()
    ]
    return thing("autoscaling/v2", "HorizontalPodAutoscaler", TARGET, "api", spec={
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": TARGET},
        "minReplicas": signals["replicas"]["min"],
        "maxReplicas": signals["replicas"]["max"],
        "metrics": metrics,
        "behavior": signals["behavior"],
    })


def average(signal):
    return {"type": "AverageValue", "averageValue": str(signal["target"])}


def each(signal, labels):
    return signal["each"].replace("SERIES", signal["series"]).replace("LABELS", labels)


def scaled_object(signals):
    labels = f'job="api", namespace="{NAMESPACE}"'
    queries = {name: (f"sum({each(signal, labels)})", signal) for name, signal in signals["pods"].items()}
    queries |= {name: (f"max({signal['series']}{{{labels}}})", signal) for name, signal in signals["whole"].items()}
    triggers = [
        {"type": name, "metricType": "Utilization", "metadata": {"value": str(share)}}
        for name, share in signals["resources"].items()
    ]
    triggers += [
        {"type": "prometheus", "name": name.replace("_", "-"), "metricType": "AverageValue",
         "metadata": {"serverAddress": PROMETHEUS, "query": query, "threshold": str(signal["target"])}}
        for name, (query, signal) in queries.items()
    ]
    return thing("keda.sh/v1alpha1", "ScaledObject", TARGET, "api", spec={
        "scaleTargetRef": {"name": TARGET},
        "minReplicaCount": signals["replicas"]["min"],
        "maxReplicaCount": signals["replicas"]["max"],
        "pollingInterval": 15,
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": signals["behavior"]}},
        "triggers": triggers,
    })


def adapter(signals):
    def rule(name, series, resource, query):
        return {
            "seriesQuery": f"{series}{{{MATCH.format(resource=resource)}}}",
            "resources": {"overrides": {key: {"resource": key} for key in ("namespace", resource)}},
            "name": {"matches": f"^{series}$", "as": name},
            "metricsQuery": query,
        }

    labels = "<<.LabelMatchers>>"
    pods = [
        rule(name, signal["series"], "pod", f"sum by (<<.GroupBy>>) ({each(signal | {'series': '<<.Series>>'}, labels)})")
        for name, signal in signals["pods"].items()
    ]
    whole = [
        rule(name, signal["series"], "service", f"max by (<<.GroupBy>>) (<<.Series>>{{{labels}}})")
        for name, signal in signals["whole"].items()
    ]
    return {"prometheus": {"url": PROMETHEUS.rpartition(":")[0], "port": 9090}, "rules": {"default": False, "custom": pods + whole}}


def recommendation(component, kind):
    """What a component would need, as seen; nothing is changed: that would restart it, and fight the autoscaler over CPU."""
    name = f"novacron-{component}"
    return thing("autoscaling.k8s.io/v1", "VerticalPodAutoscaler", name, component, spec={
        "targetRef": {"apiVersion": "apps/v1", "kind": kind, "name": name},
        "updatePolicy": {"updateMode": "Off"},
    })


def calm(signals):
    """For kustomize: a window before steps up."""
    value = signals["calm"]["stabilizationWindowSeconds"]
    patch = [{"op": "replace", "path": "/spec/behavior/scaleUp/stabilizationWindowSeconds", "value": value}]
    return {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "patches": [{"target": {"kind": "HorizontalPodAutoscaler", "name": TARGET}, "patch": yaml.safe_dump(patch, sort_keys=False)}],
    }


def files():
    signals = source("autoscaling/signals.yaml")
    origin = "autoscaling/signals.yaml"
    kinds = {"api": "Deployment", "consensus": "StatefulSet", "dwcp": "DaemonSet"}
    return {
        "autoscaling/hpa.yaml": text(origin, autoscaler(signals)),
        "autoscaling/calm/kustomization.yaml": text(origin, calm(signals)),
        "autoscaling/keda.yaml": text(origin, scaled_object(signals)),
        "autoscaling/prometheus-adapter-values.yaml": text(origin, adapter(signals)),
        "autoscaling/vpa.yaml": text("generate/autoscaling.py", *(recommendation(*each) for each in kinds.items())),
    }
