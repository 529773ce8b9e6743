"""The delivery: its workflow, as actionlint and zizmor see it, and its scripts, against a real replica and a helm that writes down its calls."""

import contextlib
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import daemons
from objects import DEPLOY, ROOT, documents, need, run, tool

WORKFLOW = DEPLOY / "ci" / "delivery.yaml"
HELM = """#!/bin/sh
echo "helm $*" >>"$CALLS"
case "$1" in
    history) echo '[{"revision":7,"status":"deployed"}]' ;;
    upgrade) exit "${UPGRADE:-0}" ;;
esac
"""
CARGO = """#!/bin/sh
echo "$(basename "$0") $*" >>"$CALLS"
[ "$*" != "llvm-cov --version" ] || echo "cargo-llvm-cov 0.9.1"
"""


def script(name, *arguments, **environment):
    path = DEPLOY / "ci" / name
    return subprocess.run([path, *arguments], env=os.environ | environment, capture_output=True, text=True)


@contextlib.contextmanager
def replica(test):
    """The address of one."""
    member, api = tool("novacron-consensus"), tool("novacron-api")
    if not (member and api):
        test.skipTest("there are no daemons (variable BIN)")
    store = daemons.free(3)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        commands = {"member": daemons.member(member, folder, store), "api": daemons.api(api, folder, store, store + 2)}
        commands = {name: [*command, "--metrics-listen=off"] for name, command in commands.items()}
        with daemons.running(commands, folder, lambda: daemons.is_ready(store + 2)):
            yield f"http://127.0.0.1:{store + 2}"


class Workflow(unittest.TestCase):
    def test_actionlint_and_zizmor_find_nothing(self):
        run(need(self, "actionlint"), WORKFLOW)
        run(need(self, "zizmor"), "--offline", "--no-progress", WORKFLOW)

    def test_every_step_calls_a_script_that_is_there(self):
        steps = [step for job in documents(WORKFLOW.read_text())[0]["jobs"].values() for step in job["steps"]]
        for step in steps:
            if "run" in step:
                program = step["run"].split()[0]
                self.assertTrue(program == "make" or os.access(ROOT / program, os.X_OK), program)
            else:
                self.assertRegex(step["uses"], r"@[0-9a-f]{40}$")

    def test_regions_are_those_of_the_chart(self):
        regions = documents(WORKFLOW.read_text())[0]["jobs"]["production"]["strategy"]["matrix"]["region"]
        values = documents((DEPLOY / "charts" / "novacron" / "values-production.yaml").read_text())[0]
        self.assertEqual([f"{at + 1}={region}" for at, region in enumerate(regions)], values["consensus"]["settings"]["replication"]["regions"])
        self.assertEqual(len(regions), 6)

    def test_the_watch_is_of_ten_minutes_and_999_of_a_thousand(self):
        text = (DEPLOY / "ci" / "watch.sh").read_text()
        self.assertEqual(re.findall(r":-([\d.]+)\}", text), ["600", "0.999"])


class Scripts(unittest.TestCase):
    def test_a_replica_passes_and_one_that_is_gone_does_not(self):
        with replica(self) as url:
            done = script("smoke.sh", url)
            self.assertEqual(done.returncode, 0, done.stderr)
            done = script("watch.sh", url, SECONDS_WATCHED="3")
            self.assertEqual(done.returncode, 0, done.stderr)
        done = script("watch.sh", url, SECONDS_WATCHED="600")
        self.assertEqual((done.returncode, done.stderr), (1, "watch: 1 of 1 failed, 0 of 600 may\n"))

    def test_what_fails_is_rolled_back(self):
        with replica(self) as url, tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "helm").write_text(HELM)
            (pathlib.Path(folder) / "helm").chmod(0o755)
            calls = pathlib.Path(folder) / "calls"
            settings = {"PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(calls), "VERSION": "1.2.3", "SECONDS_WATCHED": "1"}
            good = script("deploy-region.sh", "eu-west-1", "production", URL=url, **settings)
            self.assertEqual(good.returncode, 0, good.stderr)
            self.assertNotIn("rollback", calls.read_text())
            self.assertIn("--set region=eu-west-1 --set image.tag=1.2.3", calls.read_text())
            bad = script("deploy-region.sh", "eu-west-1", "production", URL=url, UPGRADE="1", **settings)
            self.assertEqual(bad.returncode, 1)
            self.assertIn("helm rollback novacron 7 ", calls.read_text())

    def test_coverage_is_of_all_crates_and_may_have_a_minimum(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("cargo", "rustup"):
                (pathlib.Path(folder) / name).write_text(CARGO)
                (pathlib.Path(folder) / name).chmod(0o755)
            calls = pathlib.Path(folder) / "calls"
            done = script("coverage.sh", PATH=f"{folder}:{os.environ['PATH']}", CALLS=str(calls), CARGO_TARGET_DIR=folder, COVERAGE_MIN="81")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("--lcov --output-path " + folder + "/lcov.info --workspace", calls.read_text())
            self.assertIn("cargo llvm-cov report --release --fail-under-lines 81", calls.read_text())

    def test_a_message_without_an_address_is_printed(self):
        self.assertEqual(script("notify.sh", 'it "works"').stdout, 'it "works"\n')
