"""What the API server is told to refuse, evaluated on objects that are all right and on ones that are not; what Trivy finds, less what is waived."""

import copy
import json
import pathlib
import unittest

import yaml

from objects import DEPLOY, all_objects, charted, documents, label, need, run, tool, why_not

POLICIES = DEPLOY / "policies" / "admission.yaml"
SEVERITIES = "MEDIUM,HIGH,CRITICAL"
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


class Findings(unittest.TestCase):
    def test_trivy_finds_nothing_that_is_not_waived(self):
        trivy = need(self, "trivy")
        waivers = yaml.safe_load((pathlib.Path(__file__).with_name("waivers.yaml")).read_text())
        report = json.loads(run(trivy, "config", "--skip-check-update", "--quiet", "--format=json", f"--severity={SEVERITIES}", DEPLOY))
        used, left = set(), []
        for result in report["Results"]:
            for finding in result.get("Misconfigurations", []):
                waiver = waivers.get(finding["ID"])
                if waiver and waiver["only"] in finding["Message"]:
                    used.add(finding["ID"])
                else:
                    left.append(f"{result['Target']}: {finding['ID']} {finding['Message']}")
        self.assertEqual(left, [])
        self.assertEqual(set(waivers) - used, set(), "waived, and not found any more")
