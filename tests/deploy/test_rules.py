"""Alerts, recording rules and routes, held to by Prometheus' and Alertmanager's own tools: each alert fires when it should and keeps quiet
when it should, has a severity, a `for`, a summary and a runbook whose commands exist."""

import pathlib
import re
import tempfile
import unittest

import yaml

from objects import DEPLOY, documents, need, objects, run, tool

MONITORING = DEPLOY / "monitoring"
RUNBOOKS = DEPLOY / "runbooks"
# At least so many alerts are required, in these groups.
ALERTS_MIN = 20
GROUPS = {"novacron-api", "novacron-consensus", "novacron-dwcp", "novacron-resources"}
LABEL = re.compile(r"{{ \$labels\.(\w+) }}")


def rule_files():
    return sorted((MONITORING / "rules").glob("*.yaml"))


def rules():
    """(group, rule) of every file."""
    return [(g["name"], r) for path in rule_files() for g in documents(path.read_text())[0]["groups"] for r in g["rules"]]


def alerts():
    return {rule["alert"]: rule for _, rule in rules() if "alert" in rule}


def cases():
    """What tests/ says of each alert."""
    found = {}
    for path in sorted((MONITORING / "tests").glob("*.yaml")):
        # Texts, all of it: YAML takes `0x10` for sixteen.
        found |= yaml.load(path.read_text(), Loader=yaml.BaseLoader)
    return found


def promtool_test(alert, rule, case):
    """A test of promtool's own format."""
    expected = []
    if "labels" in case:
        summary = LABEL.sub(lambda name: case["labels"][name[1]], rule["annotations"]["summary"])
        expected = [{"exp_labels": {**case["labels"], **rule["labels"]}, "exp_annotations": {"summary": summary}}]
    # So does promtool.
    series = {name: re.sub(r"\b0x(?=\d)", "0+0x", str(values)) for name, values in case["series"].items()}
    series = [{"series": name, "values": values} for name, values in series.items()]
    at = {"eval_time": case["after"], "alertname": alert, "exp_alerts": expected}
    return {"name": alert, "interval": "1m", "input_series": series, "alert_rule_test": [at]}


class Rules(unittest.TestCase):
    def test_promtool_reads_the_rules(self):
        run(need(self, "promtool"), "check", "rules", "--lint=all", "--lint-fatal", *rule_files())

    def test_there_are_enough_alerts_in_their_groups(self):
        self.assertGreaterEqual(len(alerts()), ALERTS_MIN)
        self.assertEqual({group for group, rule in rules() if "alert" in rule}, GROUPS)
        for name, rule in alerts().items():
            with self.subTest(name):
                self.assertIn("for", rule)
                self.assertIn(rule["labels"]["severity"], ("critical", "warning"))
                self.assertTrue(rule["annotations"]["summary"])

    def test_every_alert_fires_and_keeps_quiet(self):
        promtool, wanted = need(self, "promtool"), cases()
        self.assertEqual(set(wanted), set(alerts()), "each alert has its cases, and there are no others")
        for name, rule in alerts().items():
            for kind in ("fires", "quiet"):
                with self.subTest(name, kind=kind), tempfile.TemporaryDirectory() as folder:
                    self.assertEqual("labels" in wanted[name][kind], kind == "fires")
                    test = {"rule_files": [str(path) for path in rule_files()], "evaluation_interval": "1m"}
                    test["tests"] = [promtool_test(name, rule, wanted[name][kind])]
                    path = pathlib.Path(folder) / "test.yaml"
                    path.write_text(yaml.safe_dump(test))
                    run(promtool, "test", "rules", path)

    def test_every_cronjob_of_backups_is_watched(self):
        """Those that fail, and those that are too old: an age for each, which leaves the next Job its time."""
        names = {thing["metadata"]["name"] for _, thing in objects()
                 if thing["kind"] == "CronJob" and thing["metadata"].get("labels", {}).get("app.kubernetes.io/component") == "backup"}
        failed, stale = (alerts()[f"NovaCronBackupJob{kind}"]["expr"] for kind in ("Failed", "Stale"))
        self.assertEqual(set().union(*map(named, re.findall(r'cronjob=~?"([^"]+)"', failed))), names)
        self.assertEqual(set().union(*map(named, re.findall(r'last_successful_time{[^}]*cronjob=~?"([^"]+)"', stale))), names)

    def test_every_alert_has_a_runbook_with_commands(self):
        self.assertEqual({path.stem for path in RUNBOOKS.glob("NovaCron*.md")}, set(alerts()))
        for path in RUNBOOKS.glob("NovaCron*.md"):
            text = path.read_text()
            with self.subTest(path.stem):
                self.assertIn("```sh\n", text)
                self.assertTrue(text.startswith(f"# {path.stem}\n"))

    def test_the_commands_of_runbooks_exist(self):
        novacron = tool("novacron")
        if novacron is None:
            self.skipTest("there is no novacron (variable BIN)")
        for path in sorted(RUNBOOKS.glob("*.md")):
            for command in commands(path.read_text()):
                with self.subTest(path.stem, command=" ".join(command)):
                    run(novacron, *command, "--help")


def named(pattern):
    """The names that a pattern such as `a-(b|c)` stands for."""
    head, _, rest = pattern.partition("(")
    return {head + each for each in rest.rstrip(")").split("|")}


def commands(text):
    """The subcommands of `novacron` in the code blocks of a text, such as `cluster health`."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.S))
    for words in re.findall(r"(?<!-n )\bnovacron (?!-)([a-z-]+(?: [a-z-]+)?)", blocks):
        words = words.split()
        yield words if words[0] in ("cluster", "member", "region", "node", "vm", "job", "migration") else words[:1]


class Routes(unittest.TestCase):
    CONFIG = MONITORING / "alertmanager.yaml"

    def test_amtool_reads_the_configuration(self):
        run(need(self, "amtool"), "check-config", self.CONFIG)

    def test_alerts_go_where_they_should(self):
        amtool = need(self, "amtool")
        for labels, receiver in documents((MONITORING / "routes.yaml").read_text())[0].items():
            with self.subTest(labels):
                flags = ["config", "routes", "test", f"--config.file={self.CONFIG}", f"--verify.receivers={receiver}"]
                run(amtool, *flags, *labels.split())
