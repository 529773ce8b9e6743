"""What the API server is told to refuse, evaluated on objects that are all right and on ones that are not; and what a release has to be as a
whole, by policies in Rego."""

import copy
import json
import unittest

from objects import DEPLOY, all_objects, chart_values, charted, documents, kustomized, label, objects, tool, why_not

POLICIES = DEPLOY / "policies" / "admission.yaml"
RELEASE = DEPLOY / "policies" / "rego" / "release.rego"
POD_KINDS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")


def policy(name):
    return next(t for t in documents(POLICIES.read_text()) if t["kind"] == "ValidatingAdmissionPolicy" and t["metadata"]["name"] == name)


def refusals(name, thing):
    """The messages of a policy's rules that an object does not keep; none if the policy is not about it."""
    import cel

    spec = policy(name)["spec"]
    context = {"object": thing, "variables": {}}
    if not all(cel.evaluate(condition["expression"], context) for condition in spec.get("matchConditions", [])):
        return []
    for variable in spec.get("variables", []):
        context["variables"][variable["name"]] = cel.evaluate(variable["expression"], context)
    return [rule["message"] for rule in spec["validations"] if not cel.evaluate(rule["expression"], context)]


def pods(thing):
    """The pod that an object makes, if it makes one."""
    spec = thing["spec"]
    spec = spec["jobTemplate"]["spec"] if thing["kind"] == "CronJob" else spec
    return {"metadata": spec["template"].get("metadata", {}), "spec": spec["template"]["spec"]}


def changed(thing, path, value):
    """A copy with another value at a path of keys."""
    thing = copy.deepcopy(thing)
    at = thing
    for key in path[:-1]:
        at = at.setdefault(key, {}) if isinstance(at, dict) else at[key]
    at[path[-1]] = value
    return thing


class Admission(unittest.TestCase):
    def setUp(self):
        try:
            import cel  # noqa: F401
        except ImportError:
            self.skipTest(why_not("common"))

    def test_everything_here_is_let_in(self):
        count = 0
        for file, thing in all_objects():
            if thing["kind"] in POD_KINDS:
                count += 1
                with self.subTest(label(file, thing)):
                    self.assertEqual(refusals("novacron-restricted", pods(thing)), [])
            if thing["kind"] == "StatefulSet":
                self.assertEqual(refusals("novacron-voters-not-on-spot", thing), [])
        print(f"{count} workloads are let in")

    def test_pods_that_are_not_restricted_are_refused(self):
        self.assertIsNotNone(tool("helm") or self.skipTest(why_not("helm")))
        api = pods(next(thing for _, thing in charted("") if thing["kind"] == "Deployment"))
        container = ["spec", "containers", 0, "securityContext"]
        wrong = {
            ("spec", "hostNetwork"): True,
            ("spec", "hostPID"): True,
            ("spec", "volumes"): [{"name": "x", "hostPath": {"path": "/"}}],
            ("spec", "securityContext"): {},
            ("spec", "securityContext", "seccompProfile", "type"): "Unconfined",
            (*container, "allowPrivilegeEscalation"): True,
            (*container, "readOnlyRootFilesystem"): False,
            (*container, "capabilities"): {"drop": ["ALL"], "add": ["SYS_ADMIN"]},
            (*container, "capabilities", "drop"): ["NET_RAW"],
            ("spec", "initContainers"): [{"name": "x", "image": "x"}],
        }
        self.assertEqual(refusals("novacron-restricted", api), [])
        for path, value in wrong.items():
            with self.subTest(path):
                self.assertTrue(refusals("novacron-restricted", changed(api, path, value)))
        # The agent's account is what lets a pod do more, not its labels.
        free = changed(changed(api, ("spec", "hostNetwork"), True), ("metadata", "labels"), {"app.kubernetes.io/component": "dwcp"})
        self.assertTrue(refusals("novacron-restricted", free))
        self.assertEqual(refusals("novacron-restricted", changed(free, ("spec", "serviceAccountName"), "novacron-dwcp")), [])

    def test_members_stay_off_spot_nodes(self):
        labels = {"app.kubernetes.io/component": "consensus"}
        members = {"spec": {"template": {"metadata": {"labels": labels}, "spec": {}}}}
        name, place = "novacron-voters-not-on-spot", ("spec", "template", "spec", "tolerations")
        self.assertEqual(refusals(name, members), [])
        self.assertEqual(refusals(name, changed(members, place, [{"key": "other"}])), [])
        self.assertTrue(refusals(name, changed(members, place, [{"key": "novacron.io/spot"}])))
        self.assertTrue(refusals(name, changed(members, place, [{"operator": "Exists"}])))
        others = changed(members, ("spec", "template", "metadata", "labels"), {"app.kubernetes.io/component": "api"})
        self.assertEqual(refusals(name, changed(others, place, [{"operator": "Exists"}])), [])

    def test_members_do_not_begin_on_old_volumes(self):
        claim = {"metadata": {"labels": {"app.kubernetes.io/component": "consensus"}}, "spec": {}}
        snapshot = {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "x"}
        self.assertEqual(refusals("novacron-no-old-volumes", claim), [])
        for field in ("dataSource", "dataSourceRef"):
            self.assertTrue(refusals("novacron-no-old-volumes", changed(claim, ("spec", field), snapshot)))


class Release(unittest.TestCase):
    """What conftest would say, by another implementation of Rego that is a package: conftest itself takes minutes to build."""

    def setUp(self):
        try:
            import regorus
        except ImportError:
            self.skipTest(why_not("celine"))
        self.engine = regorus.Engine()
        self.engine.add_policy(RELEASE.name, RELEASE.read_text())

    def denied(self, things):
        self.engine.set_input_json(json.dumps([{"path": "-", "contents": thing} for thing in things]))
        return sorted(self.engine.eval_rule("data.novacron.deny"))

    def test_everything_here_fits_together(self):
        whole = {}
        for folder, thing in kustomized() if tool("kubectl") else []:
            whole.setdefault(folder, []).append(thing)
        for values in chart_values() if tool("helm") else []:
            whole[f"chart {values}"] = [thing for _, thing in charted(values)]
        whole["operator"] = [thing for file, thing in objects() if file.startswith("operator/")]
        # Some folders are a part of others.
        whole = {name: things for name, things in whole.items() if any(thing["kind"] in POD_KINDS for thing in things)}
        for name, things in whole.items():
            with self.subTest(name):
                self.assertEqual(self.denied(things), [])
        print(f"{len(whole)} releases and folders fit together")

    def test_what_does_not_fit_is_found(self):
        if not tool("helm"):
            self.skipTest(why_not("helm"))
        whole = [thing for _, thing in charted("values-production.yaml")]
        pod, api, consensus = ("spec", "template", "spec"), ("Deployment", "novacron-api"), ("StatefulSet", "novacron-consensus")
        hpa, service = ("HorizontalPodAutoscaler", "novacron-api"), ("Service", "novacron-consensus-client")
        wrong = [
            (api, (*pod, "containers", 0, "resources", "limits"), {"memory": "1Gi"}, "container api has no limits of cpu"),
            (api, (*pod, "containers", 0, "readinessProbe"), None, "container api has no readinessProbe"),
            (api, (*pod, "containers", 0, "livenessProbe", "httpGet", "path"), "/ready", "is restarted for what only makes it not ready"),
            (api, (*pod, "securityContext", "seccompProfile", "type"), "Unconfined", "no seccomp profile"),
            (api, (*pod, "automountServiceAccountToken"), True, "get a token of Kubernetes"),
            (api, (*pod, "serviceAccountName"), "other", "there is no ServiceAccount other"),
            (consensus, (*pod, "topologySpreadConstraints"), [], "not spread over zones"),
            (consensus, (*pod, "volumes"), [{"name": "x", "configMap": {"name": "other"}}], "there is no ConfigMap other"),
            (consensus, ("spec", "replicas"), 6, "6 members; an odd number is wanted"),
            (("PodDisruptionBudget", "novacron-consensus"), ("spec", "maxUnavailable"), 0, "lets no pod go"),
            (("PodDisruptionBudget", "novacron-api"), ("spec", "selector"), {"matchLabels": {"a": "b"}}, "no PodDisruptionBudget"),
            (service, ("spec", "selector"), {"a": "b"}, "selects no pods"),
            (hpa, ("spec", "scaleTargetRef", "name"), "other", "scales nothing that is there"),
            (hpa, ("spec", "maxReplicas"), 200, "less than the 114 cores"),
        ]
        for (kind, name), path, value, message in wrong:
            with self.subTest(message):
                at = next(n for n, t in enumerate(whole) if (t["kind"], t["metadata"]["name"]) == (kind, name))
                found = self.denied([*whole[:at], changed(whole[at], path, value), *whole[at + 1:]])
                self.assertIn(message, "\n".join(found))
