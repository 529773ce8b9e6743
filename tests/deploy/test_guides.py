"""The guides of docs/deployment: all subjects are there, links lead somewhere, and commands that are marked to run here do."""

import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import daemons
import guides
from objects import ROOT, TOOLS, need, tool

# What the requirement wants a guide about, and the word that says so.
SUBJECTS = {
    "README.md": ("In short", "Files", "Words", "members"), "quick-start.md": ("helm install",), "scaling.md": ("autoscaling",),
    "updates.md": ("canary", "rolling"), "disaster-recovery.md": ("RPO", "RTO"), "troubleshooting.md": ("runbook",), "cost.md": ("spot",),
    "security.md": ("TLS",), "tuning.md": ("election_timeout",), "monitoring.md": ("alerts",), "removal.md": ("volumes",),
}
TOOLS_NEEDED = ("helm", "promtool", "amtool")


class Guides(unittest.TestCase):
    def test_every_subject_has_its_page(self):
        self.assertEqual({path.name for path in guides.FOLDER.glob("*.md")}, set(SUBJECTS))
        self.assertEqual({"README.md", *guides.pages()}, set(SUBJECTS))
        for page, words in SUBJECTS.items():
            for word in words:
                with self.subTest(page, word=word):
                    self.assertIn(word, (guides.FOLDER / page).read_text())

    def test_blocks_have_a_mark_that_somebody_knows(self):
        for page in SUBJECTS:
            for mark in guides.marks(page):
                with self.subTest(page):
                    self.assertIn(mark, ("sh", "text", *(f"sh {kind}" for kind in guides.KINDS)))

    def test_files_that_pages_name_are_there(self):
        for page in SUBJECTS:
            text = (guides.FOLDER / page).read_text()
            links = [guides.FOLDER / link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
            files = [ROOT / name for name in re.findall(r"`(deploy/[\w./-]*\w)`", text)]
            for path in links + files:
                with self.subTest(page, path=path):
                    self.assertTrue(path.exists())

    def test_commands_run(self):
        for name in TOOLS_NEEDED:
            need(self, name)
        programs = {name: tool(f"novacron-{name}") for name in ("consensus", "api", "dwcp")}
        if not all(programs.values()):
            self.skipTest("there are no daemons (variable BIN)")
        store = daemons.free(3)
        port = store + 2
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            commands = {"member": daemons.member(programs["consensus"], folder, store), "api": daemons.api(programs["api"], folder, store, port)}
            commands = {name: [*command, "--metrics-listen=off"] for name, command in commands.items()}
            settings = {
                "PATH": f"{pathlib.Path(programs['api']).parent}:{TOOLS / 'bin'}:{os.environ['PATH']}", "TMPDIR": name,
                "NOVACRON_ENDPOINTS": f"127.0.0.1:{store}", "NOVACRON_API": f"http://127.0.0.1:{port}",
            }
            with daemons.running(commands, folder, lambda: daemons.is_ready(port)):
                for page in guides.pages():
                    with self.subTest(page):
                        done = subprocess.run(["bash", "-ec", guides.script(page, "run")], cwd=ROOT, env=os.environ | settings, capture_output=True, text=True)
                        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
