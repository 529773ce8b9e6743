"""The table of deploy/README.md: what it names is there, and what is there is named."""

import re
import unittest

from objects import DEPLOY, ROOT

# The rows of the requirement.
ROWS = set(range(1, 19))


class Readme(unittest.TestCase):
    def test_the_table_has_every_row_and_names_what_is_there(self):
        table = [line for line in (DEPLOY / "README.md").read_text().splitlines() if re.match(r"\| \d+ ", line)]
        self.assertEqual({int(re.match(r"\| (\d+)", line)[1]) for line in table}, ROWS)
        for line in table:
            for name in re.findall(r"`((?:deploy/)?[a-z0-9-]+/[\w./-]*)`", line):
                with self.subTest(name):
                    self.assertTrue((DEPLOY / name).exists() or (ROOT / name).exists())

    def test_every_folder_is_in_it(self):
        text = (DEPLOY / "README.md").read_text()
        for path in DEPLOY.iterdir():
            if path.is_dir():
                self.assertIn(f"`{path.name}/", text)
