"""What the chart has of other files, the schema of its values, and what it makes of each values file, for who has kustomize and no helm."""

import json
import shutil
import subprocess

import yaml

from output import DEPLOY, NAMESPACE, source, text

CHART = "charts/novacron"
# Values whose keys are not the chart's to know: settings of daemons, labels of nodes, requests and limits.
OPEN = {"api.settings", "consensus.settings", "agent.settings", "agent.nodeSelector"}
QUANTITY = {"type": ["string", "number"], "pattern": r"^[0-9.]+(m|[kKMGT]i?)?$"}
RESOURCES = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        each: {"type": "object", "additionalProperties": False, "required": ["cpu", "memory"],
               "properties": {"cpu": QUANTITY, "memory": QUANTITY}}
        for each in ("requests", "limits")
    },
}
CIDR = {"type": "string", "pattern": r"^[0-9.]+/[0-9]+$"}
DIGEST = {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"}
# What a value may be, where its type does not say it.
LIMITS = {
    "region": {"type": "string", "minLength": 1, "maxLength": 255},
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "image.pullSecrets": {"type": "array", "items": {"type": "string"}},
    "image.tag": {"type": "string", "not": {"const": "latest"}},
    **{f"image.digests.{name}": DIGEST for name in ("api", "consensus", "dwcp", "jobs")},
    **{f"{name}.resources": RESOURCES for name in ("api", "consensus", "agent")},
    "api.replicas": {"type": "integer", "minimum": 1, "maximum": 100},
    # What Kubernetes takes.
    "api.scaleUpWindowSeconds": {"type": "integer", "minimum": 0, "maximum": 3600},
    "api.autoscaling": {"enum": ["hpa", "keda", "off"]},
    # An even number of members bears no more than the odd one below it.
    "consensus.members": {"enum": [1, 3, 5, 7, 9, 11]},
    "consensus.storage.size": QUANTITY,
    "networkPolicies.nodes": CIDR,
    "networkPolicies.otherRegions": CIDR,
}
KINDS = {bool: "boolean", int: "integer", str: "string", list: "array"}
# What overlays take from other folders instead.
ELSEWHERE = ("networkPolicies.enabled", "monitoring.serviceMonitors", "monitoring.rules", "monitoring.dashboards", "policies", "tls.certManager", "hooks")


def schema(values, path=""):
    if path in LIMITS:
        return LIMITS[path]
    if path in OPEN:
        return {"type": "object"}
    if isinstance(values, dict):
        below = {key: schema(value, f"{path}.{key}".lstrip(".")) for key, value in values.items()}
        if path == "":
            # Helm gives these to a chart that is one of another.
            below["global"] = {"type": "object"}
        return {"type": "object", "additionalProperties": False, "properties": below}
    return {"type": KINDS[type(values)]}


def copied():
    """Files of other folders, without the remark on who made them."""
    names = {
        "hpa": "autoscaling/hpa.yaml",
        "keda": "autoscaling/keda.yaml",
        "policies": "network/kubernetes/policies.yaml",
        "service-monitors": "monitoring/service-monitors.yaml",
        "prometheus-rule": "monitoring/prometheus-rule.yaml",
        "certificates": "secrets/certificates.yaml",
    }
    files = {f"{CHART}/files/{name}.yaml": (DEPLOY / path).read_text() for name, path in names.items()}
    for path in sorted((DEPLOY / "monitoring" / "dashboards").glob("*.json")):
        files[f"{CHART}/files/{path.name}"] = path.read_text()
    limits = [thing for thing in yaml.safe_load_all((DEPLOY / "policies" / "namespace.yaml").read_text()) if thing["kind"] != "Namespace"]
    files[f"{CHART}/files/limits.yaml"] = text("policies/namespace.yaml", *limits)
    return files


def rendered(helm, environment):
    """The chart with a values file, and nothing that overlays have elsewhere."""
    off = [f"--set={value}=false" for value in ELSEWHERE] + ["--set=api.autoscaling=off"]
    chart = str(DEPLOY / CHART)
    values = f"--values={chart}/values-{environment}.yaml"
    done = subprocess.run([helm, "template", NAMESPACE, chart, f"--namespace={NAMESPACE}", "--skip-tests", values, *off],
                          capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return f"# Made of {CHART} with values-{environment}.yaml by scripts/deploy-generate.sh.\n{done.stdout}"


def files(helm):
    made = copied()
    made[f"{CHART}/values.schema.json"] = json.dumps(
        {"$schema": "https://json-schema.org/draft-07/schema#"} | schema(source(f"{CHART}/values.yaml")), indent=1) + "\n"
    yield made
    if helm or (helm := shutil.which("helm")):
        yield {f"manifests/overlays/{name}/novacron.yaml": rendered(helm, name) for name in ("dev", "staging", "production")}
