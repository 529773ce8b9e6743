"""What linters find in files that no other test is about, less what is waived."""

import json
import pathlib
import unittest

import yaml

from objects import DEPLOY, ROOT, need, run

SEVERITIES = "MEDIUM,HIGH,CRITICAL"
SCRIPTS = ["scripts/deploy-tools.sh", "scripts/deploy-generate.sh", "scripts/test-deploy.sh"]


class Lint(unittest.TestCase):
    def test_shellcheck_finds_nothing(self):
        scripts = [path for folder in (DEPLOY, ROOT / "tests" / "kube") for path in folder.rglob("*.sh")] + [ROOT / name for name in SCRIPTS]
        run(need(self, "shellcheck"), "--external-sources", "--severity=style", "--source-path=SCRIPTDIR", *scripts)

    def test_hadolint_finds_nothing(self):
        """A waiver stands in the file, above the line and with its reason."""
        hadolint, files = need(self, "hadolint"), sorted((DEPLOY / "images").glob("*/Containerfile"))
        self.assertEqual(len(files), 5)
        run(hadolint, *files)

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
