"""The load test, with a few users for a few seconds, against a real replica: it asks for what there is and gets the answers that it expects.
How fast they come is not asserted."""

import json
import pathlib
import tempfile
import unittest

import daemons
from objects import DEPLOY, need, run, tool

SCRIPT = DEPLOY / "load" / "api.js"


class Load(unittest.TestCase):
    def test_it_is_for_a_thousand_users(self):
        options = json.loads(run(need(self, "k6"), "inspect", "--execution-requirements", SCRIPT))
        self.assertEqual(options["maxVUs"], 1000)
        self.assertEqual(options["thresholds"]["checks"], ["rate>=0.999"])

    def test_a_replica_answers_as_the_script_expects(self):
        k6, member, api = need(self, "k6"), tool("novacron-consensus"), tool("novacron-api")
        if not (member and api):
            self.skipTest("there are no daemons (variable BIN)")
        store = daemons.free(3)
        port = store + 2
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            commands = {"member": daemons.member(member, folder, store), "api": daemons.api(api, folder, store, port)}
            commands["api"].append("--metrics-listen=off")
            commands["member"].append("--metrics-listen=off")
            with daemons.running(commands, folder, lambda: daemons.is_ready(port)):
                summary = folder / "summary.json"
                settings = {"URL": f"http://127.0.0.1:{port}", "USERS": "20", "RAMP": "2s", "HOLD": "3s"}
                flags = [word for key, value in settings.items() for word in ("-e", f"{key}={value}")]
                run(k6, "run", "--quiet", "--no-thresholds", f"--summary-export={summary}", *flags, SCRIPT)
            checks = json.loads(summary.read_text())["root_group"]["checks"]
        checks = checks.values() if isinstance(checks, dict) else checks
        self.assertEqual({check["name"] for check in checks}, {"list: 200", "create: 201", "delete: 204"})
        for check in checks:
            self.assertEqual(check["fails"], 0, check["name"])
            self.assertGreater(check["passes"], 0, check["name"])
