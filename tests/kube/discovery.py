"""Tells Prometheus the endpoints of a namespace over HTTP, as its own discovery in Kubernetes would (role `endpoints`): Debian's Prometheus has none.
`discovery.py ADDRESS PORT NAMESPACE KUBECTL...`; only labels that the ServiceMonitors of deploy/ rely on are told."""

import http.server
import json
import re
import subprocess
import sys

ADDRESS, PORT, NAMESPACE, *KUBECTL = sys.argv[1:]


def meta(name):
    return "__meta_kubernetes_" + re.sub(r"\W", "_", name)


def groups(things):
    """Targets with what is known of each, for every address of every port of every Service."""
    services = {thing["metadata"]["name"]: thing["metadata"].get("labels", {}) for thing in things if thing["kind"] == "Service"}
    for endpoints in (thing for thing in things if thing["kind"] == "Endpoints"):
        name = endpoints["metadata"]["name"]
        labels = {meta("namespace"): NAMESPACE, meta("service_name"): name}
        labels |= {meta(f"service_label_{key}"): value for key, value in services.get(name, {}).items()}
        for subset in endpoints.get("subsets", []):
            for address in subset.get("addresses", []) + subset.get("notReadyAddresses", []):
                pod = {meta("pod_name"): address["targetRef"]["name"], meta("pod_node_name"): address["nodeName"]}
                for port in subset["ports"]:
                    yield {"targets": [f"{address['ip']}:{port['port']}"], "labels": labels | pod | {meta("endpoint_port_name"): port["name"]}}


class Discovery(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        done = subprocess.run([*KUBECTL, "--namespace", NAMESPACE, "get", "services,endpoints", "--output", "json"], capture_output=True, check=True)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(list(groups(json.loads(done.stdout)["items"]))).encode())

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer((ADDRESS, int(PORT)), Discovery).serve_forever()
