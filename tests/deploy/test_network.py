"""What the NetworkPolicies allow, worked out from the policies alone and compared with the registry for every pair of peers and every port."""

import ipaddress
import itertools
import unittest

from objects import DEPLOY, documents, objects

REGISTRY = documents((DEPLOY / "network" / "ports.yaml").read_text())[0]
INSTANCE, COMPONENT = "app.kubernetes.io/instance", "app.kubernetes.io/component"
# One port that nothing listens on: nobody may reach it.
PORTS = sorted({port for flow in REGISTRY["flows"] for port in flow["ports"]} | {"22/TCP"})


def endpoints():
    """Somebody of each kind: (namespace or None, labels, address or None)."""
    found = {name: ("novacron", {COMPONENT: name, INSTANCE: "novacron"}, None) for name in REGISTRY["components"]}
    for name, other in REGISTRY["others"].items():
        if "cidr" in other:
            network = ipaddress.ip_network(other["cidr"])
            # An address that is in no other network, for what is everywhere.
            found[name] = (None, {}, "203.0.113.9" if network.prefixlen == 0 else str(network[9]))
        else:
            found[name] = (other["namespace"], other.get("labels", {}), None)
    # A pod of another region, one without a policy of its own, one of another namespace, and a cloud's metadata.
    found["other region's api"] = ("novacron", {COMPONENT: "api", INSTANCE: "other"}, None)
    found["stranger"] = ("novacron", {"app": "x"}, None)
    found["elsewhere"] = ("default", {"app": "x"}, None)
    found["metadata"] = (None, {}, "169.254.169.254")
    return found


def policies():
    return [thing for file, thing in objects() if thing["kind"] == "NetworkPolicy" and file.startswith("network/kubernetes")]


def selects(selector, labels):
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def is_peer(peer, namespace, who):
    where, labels, address = who
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        inside = lambda cidr: ipaddress.ip_address(address) in ipaddress.ip_network(cidr)
        return address is not None and inside(block["cidr"]) and not any(map(inside, block.get("except", [])))
    if where is None:
        return False
    if "namespaceSelector" in peer:
        near = selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": where})
    else:
        near = where == namespace
    return near and selects(peer.get("podSelector", {}), labels)


def allows(direction, side, who, other, port):
    """Whether `who` may take (Ingress) or send (Egress): without a policy that selects it, all is allowed."""
    where, labels, address = who
    applying = [
        p for p in policies()
        if where == p["metadata"]["namespace"] and selects(p["spec"]["podSelector"], labels) and direction in p["spec"]["policyTypes"]
    ]
    number, protocol = port.split("/")
    return not applying or any(
        any(is_peer(peer, where, other) for peer in rule[side]) and {"port": int(number), "protocol": protocol} in rule["ports"]
        for policy in applying
        for rule in policy["spec"].get(direction.lower(), [])
    )


def wanted():
    """Every (from, to, port) of the registry, with the agent where its host's addresses are."""
    seen = lambda name: "nodes" if name == "agent" else name
    found = {(seen(f["from"]), seen(f["to"]), port) for f in REGISTRY["flows"] for port in f["ports"]}
    # The same addresses under two names, and everything is outside but metadata.
    for one, two in (("nodes", "kubernetes"), ("kubernetes", "nodes")):
        found |= {(f, two, p) for f, t, p in found if t == one} | {(two, t, p) for f, t, p in found if f == one}
    addresses = [name for name, (_, _, address) in endpoints().items() if address and name != "metadata"]
    found |= {(f, name, p) for f, t, p in found if t == "outside" for name in addresses}
    return found


class Network(unittest.TestCase):
    def test_who_reaches_whom_is_what_the_registry_says(self):
        ends, expected, pairs = endpoints(), wanted(), 0
        for (one, who), (two, other) in itertools.product(ends.items(), repeat=2):
            # Policies are about pods of this namespace.
            if "novacron" not in (who[0], other[0]):
                continue
            for port in PORTS:
                pairs += 1
                with self.subTest(f"{one} to {two} {port}"):
                    allowed = allows("Egress", "to", who, other, port) and allows("Ingress", "from", other, who, port)
                    self.assertEqual(allowed, (one, two, port) in expected)
        print(f"{pairs} pairs of peers and ports")

    def test_a_flow_names_who_there_is(self):
        for flow in REGISTRY["flows"]:
            for end in (flow["from"], flow["to"]):
                self.assertIn(end, [*REGISTRY["components"], *REGISTRY["others"], "agent"])
