"""What is generated is what the generator makes; dashboards are what Grafana takes."""

import json
import sys
import unittest

from objects import DEPLOY, run

# Dashboards that the requirement names, and one for the operator.
DASHBOARDS = {"overview", "dwcp-performance", "consensus-health", "operator"}


class Generated(unittest.TestCase):
    def test_generated_files_are_up_to_date(self):
        run(sys.executable, "-B", DEPLOY / "generate", "--check")

    def test_dashboards_are_whole(self):
        paths = list((DEPLOY / "monitoring" / "dashboards").glob("*.json"))
        self.assertEqual({path.stem for path in paths}, DASHBOARDS)
        for path in paths:
            dashboard = json.loads(path.read_text())
            with self.subTest(path.stem):
                self.assertEqual(dashboard["uid"], f"novacron-{path.stem}")
                titles = [panel["title"] for panel in dashboard["panels"]]
                self.assertEqual(len(titles), len(set(titles)))
                places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
                self.assertEqual(len(places), len(set(places)), "panels on each other")
                for panel in dashboard["panels"]:
                    self.assertTrue(panel["targets"] and panel["fieldConfig"]["defaults"]["unit"], panel["title"])
