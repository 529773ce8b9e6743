"""Policies of the network of one registry, network/ports.yaml, and a table of what they allow."""

from output import source, text, thing

INSTANCE, COMPONENT = "app.kubernetes.io/instance", "app.kubernetes.io/component"
# The agent stands in the network of its host.
AGENT, AGENT_SEEN_AS = "agent", "nodes"
READ, WRITE = ["GET", "HEAD", "OPTIONS"], ["POST", "PUT", "PATCH", "DELETE"]


def labels(component):
    """Of the release as well: another one is another region."""
    return {COMPONENT: component, INSTANCE: "novacron"}


def peer(name, registry):
    name = AGENT_SEEN_AS if name == AGENT else name
    other = registry["others"].get(name)
    if other is None:
        return {"podSelector": {"matchLabels": labels(name)}}
    if "cidr" in other:
        return {"ipBlock": {key: other[key] for key in ("cidr", "except") if key in other}}
    selected = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": other["namespace"]}}}
    return selected | ({"podSelector": {"matchLabels": other["labels"]}} if "labels" in other else {})


def ports(flow):
    return [{"port": int(number), "protocol": protocol} for number, protocol in (port.split("/") for port in flow["ports"])]


def policy(component, registry):
    flows = registry["flows"]
    return thing("networking.k8s.io/v1", "NetworkPolicy", f"novacron-{component}", component, spec={
        "podSelector": {"matchLabels": labels(component)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [peer(f["from"], registry)], "ports": ports(f)} for f in flows if f["to"] == component],
        "egress": [{"to": [peer(f["to"], registry)], "ports": ports(f)} for f in flows if f["from"] == component],
    })


def deny_all():
    """Whatever is in the namespace and has no policy of its own gets and sends nothing."""
    return thing("networking.k8s.io/v1", "NetworkPolicy", "novacron-default-deny", spec={
        "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
    })


def by_method(registry):
    """What NetworkPolicy cannot say: which HTTP requests. Reading is for all that come by the ingress, changes only below /api/."""
    ingress = registry["others"]["ingress"]["namespace"]
    http = [{"method": method, "path": "/.*"} for method in READ] + [{"method": method, "path": "/api/.*"} for method in WRITE]
    return thing("cilium.io/v2", "CiliumNetworkPolicy", "novacron-api-methods", "api", spec={
        "endpointSelector": {"matchLabels": labels("api")},
        "ingress": [{
            "fromEndpoints": [{"matchLabels": {"k8s:io.kubernetes.pod.namespace": ingress}}],
            "toPorts": [{"ports": [{"port": "8080", "protocol": "TCP"}], "rules": {"http": http}}],
        }],
    })


def host(registry):
    """The agents' ports on their hosts, refused to the world but for other regions. CIDRs are what Cilium calls the world: nodes and pods
    of the cluster, which are not meant, are none to it."""
    flows = [flow for flow in registry["flows"] if flow["to"] == AGENT]
    numbers = sorted({port for flow in flows for port in flow["ports"]})
    allowed = {port: [origin(flow["from"], registry) for flow in flows if port in flow["ports"]] for port in numbers}
    spec = {
        "nodeSelector": {"matchLabels": {"kubernetes.io/os": "linux"}},
        # A host that a policy selects would refuse everything else as well.
        "enableDefaultDeny": {"ingress": False, "egress": False},
        "ingressDeny": [denied(port, origins) for port, origins in allowed.items()],
    }
    found = thing("cilium.io/v2", "CiliumClusterwideNetworkPolicy", "novacron-agent-ports", "dwcp", spec=spec)
    # It belongs to no namespace.
    del found["metadata"]["namespace"]
    return found


def origin(name, registry):
    """Its addresses, if it has some of its own."""
    other = registry["others"].get(AGENT_SEEN_AS if name == AGENT else name)
    return other["cidr"] if other and "cidr" in other else None


def denied(port, origins):
    number, protocol = port.split("/")
    outside = {"cidr": "0.0.0.0/0", "except": sorted({cidr for cidr in origins if cidr})}
    return {"fromCIDRSet": [outside], "toPorts": [{"ports": [{"port": number, "protocol": protocol}]}]}


def table(registry):
    """A line for each flow, for people."""
    lines = ["# Made of network/ports.yaml by scripts/deploy-generate.sh. Everything that is not here is refused.", "from\tto\tport\twhat"]
    lines += [f"{f['from']}\t{f['to']}\t{port}\t{f['what']}" for f in registry["flows"] for port in f["ports"]]
    return "\n".join(lines) + "\n"


def files():
    registry = source("network/ports.yaml")
    origin_name = "network/ports.yaml"
    policies = [deny_all(), *(policy(component, registry) for component in registry["components"])]
    return {
        "network/kubernetes/policies.yaml": text(origin_name, *policies),
        "network/cilium/http.yaml": text(origin_name, by_method(registry)),
        "network/cilium/host.yaml": text(origin_name, host(registry)),
        "network/reachability.tsv": table(registry),
    }
