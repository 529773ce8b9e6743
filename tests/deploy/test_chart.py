"""The chart: linted, rendered with every component on and off, its settings read by the daemons that they are for, wrong values refused."""

import itertools
import pathlib
import re
import tempfile
import unittest

from objects import DEPLOY, chart_values, charted, documents, need, run, tool

CHART = DEPLOY / "charts" / "novacron"
# The oldest and the newest Kubernetes that is promised.
KUBERNETES = ("1.34.0", "1.37.0")
COMPONENTS = {"api": "Deployment", "consensus": "StatefulSet", "agent": "DaemonSet"}
NODE_CAPABILITIES = {"BPF", "IPC_LOCK", "NET_ADMIN", "NET_RAW", "PERFMON"}


def workloads(things):
    return [thing for _, thing in things if thing["kind"] in COMPONENTS.values()]


class Chart(unittest.TestCase):
    def render(self, *flags):
        return documents(run(need(self, "helm"), "template", "novacron", CHART, "--namespace=novacron", *flags))

    def test_helm_lints_it(self):
        helm = need(self, "helm")
        for values in chart_values():
            run(helm, "lint", "--strict", CHART, *([f"--values={CHART}/{values}"] if values else []))

    def test_it_renders_for_every_version_of_kubernetes(self):
        for values, version in itertools.product(chart_values(), KUBERNETES):
            with self.subTest(values, version=version):
                self.render(f"--kube-version={version}", *([f"--values={CHART}/{values}"] if values else []))
        with self.assertRaises(AssertionError):
            self.render("--kube-version=1.33.0")

    def test_each_component_can_be_off(self):
        for on in itertools.product((True, False), repeat=3):
            flags = [f"--set={name}.enabled={str(is_on).lower()}" for name, is_on in zip(COMPONENTS, on)]
            with self.subTest(flags):
                kinds = {thing["kind"] for thing in self.render(*flags)}
                for (_, kind), is_on in zip(COMPONENTS.items(), on):
                    self.assertEqual(kind in kinds, is_on)

    def test_wrong_values_are_refused(self):
        for wrong in ("consensus.members=4", "image.tag=latest", "api.replica=3", "tls.enabled=maybe", "networkPolicies.nodes=all", "x=1"):
            with self.subTest(wrong), self.assertRaises(AssertionError):
                self.render(f"--set={wrong}")

    def test_in_a_mesh_only_the_api_is_beside_a_sidecar(self):
        things = self.render("--set=mesh=true")
        inject = {t["kind"]: t["spec"]["template"]["metadata"]["labels"]["sidecar.istio.io/inject"] for t in things if t["kind"] in COMPONENTS.values()}
        self.assertEqual(inject, {"Deployment": "true", "StatefulSet": "false", "DaemonSet": "false"})
        api = next(t for t in things if t["kind"] == "Service" and t["metadata"]["name"] == "novacron-api")
        self.assertEqual(api["spec"]["ports"][0]["name"], "http")

    def test_a_digest_counts_instead_of_the_tag(self):
        digest = "sha256:" + "0" * 64
        text = str(self.render(f"--set=image.digests.api={digest}"))
        self.assertIn(f"docker.io/novacron/api@{digest}'", text)

    def test_another_namespace_and_release_are_taken_over(self):
        text = run(need(self, "helm"), "template", "blue", CHART, "--namespace=sky", f"--values={CHART}/values-production.yaml")
        for left in ("namespace: novacron\n", 'namespace="novacron"', "instance: novacron\n", ".novacron.svc"):
            self.assertNotIn(left, text)

    def test_pods_are_restricted(self):
        for values in chart_values():
            for thing in workloads(charted(values) if tool("helm") else []):
                pod = thing["spec"]["template"]["spec"]
                agent = thing["kind"] == "DaemonSet"
                with self.subTest(values, name=thing["metadata"]["name"]):
                    self.assertEqual(pod.get("hostNetwork", False), agent)
                    self.assertEqual(pod["terminationGracePeriodSeconds"], 60)
                    for container in pod["containers"]:
                        context = container["securityContext"]
                        self.assertFalse(context["allowPrivilegeEscalation"] or context.get("privileged", False))
                        self.assertTrue(context["readOnlyRootFilesystem"])
                        self.assertEqual(context["capabilities"]["drop"], ["ALL"])
                        self.assertEqual(set(context["capabilities"].get("add", [])), NODE_CAPABILITIES if agent else set())
                        self.assertTrue(container["resources"]["requests"] and container["resources"]["limits"])


class Settings(unittest.TestCase):
    """The files in the ConfigMaps, given to the daemons."""

    def test_daemons_take_the_settings(self):
        novacron = tool("novacron")
        if not (tool("helm") and novacron):
            self.skipTest("helm and the daemons are needed (variable BIN)")
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            run(novacron, "certs", "--out", folder / "certs", "--node", "novacron-api")
            for values in chart_values():
                files = {t["metadata"]["name"]: t["data"] for _, t in charted(values) if t["kind"] == "ConfigMap"}
                for workload in workloads(charted(values)):
                    daemon = workload["metadata"]["name"]
                    with self.subTest(values, name=daemon):
                        container = workload["spec"]["template"]["spec"]["containers"][0]
                        self.check(daemon, files[daemon]["config.yaml"], environment(container, f"{daemon}-0"), folder)

    def check(self, daemon, settings, variables, folder):
        """As in a pod: certificates are there, and the pod's variables."""
        here = str(folder / "certs")
        for inside, made in (("tls.crt", "novacron-api.pem"), ("tls.key", "novacron-api.key"), ("ca.crt", "ca.pem")):
            settings = settings.replace(f"/etc/novacron/tls/{inside}", f"{here}/{made}")
        settings = re.sub("/var/lib/(novacron|dwcp)", str(folder), settings)
        path = folder / "config.yaml"
        path.write_text(settings)
        run("env", *variables, tool(daemon), "--config", path, "--check-config")


def environment(container, pod):
    """A container's variables, as the kubelet would make them."""
    fields = {"metadata.name": pod, "status.hostIP": "10.0.0.5", "spec.nodeName": "node-1"}
    found = {"HOSTNAME": pod}
    for variable in container.get("env", []):
        value = variable["value"] if "value" in variable else fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        found[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda name: found[name[1]], value)
    return [f"{name}={value}" for name, value in found.items()]
