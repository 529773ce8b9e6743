"""numbers.tsv: every number of the requirement, found in what deploy/ makes.

A line is: row of the requirement, file or folder (rendered by kustomize, or `charts/novacron VALUES [FLAG...]` by helm), Kind/name or `-` for a file
that is no object, path, value. A path is keys with dots between; `[key=value]` chooses of a list, `[*]` takes all of one."""

import csv
import pathlib
import re
import unittest

from objects import DEPLOY, charted, documents, kustomized, objects, tool, why_not, yaml_files

TABLE = pathlib.Path(__file__).with_name("numbers.tsv")
STEP = re.compile(r"([^.\[\]]+)|\[([^\]=]+)=([^\]]*)\]|\[(\*|\d+)\]")


def lines():
    with TABLE.open() as table:
        rows = csv.reader((line for line in table if line.strip() and not line.startswith("#")), delimiter="\t")
        return [tuple(cell.strip() for cell in row if cell.strip()) for row in rows]


def found(thing, path):
    """All values at a path."""
    at = [thing]
    # A key with dots stands in double quotes.
    quoted = re.findall(r'"([^"]+)"', path)
    for step in STEP.finditer(re.sub(r'"[^"]+"', "\0", path)):
        key, select, wanted, index = step.groups()
        if key:
            key = quoted.pop(0) if key == "\0" else key
            at = [value[key] for value in at if isinstance(value, dict) and key in value]
        elif select:
            at = [item for value in at for item in value if any(str(end) == wanted for end in found(item, select))]
        elif index == "*":
            at = [item for value in at for item in (value.values() if isinstance(value, dict) else value)]
        else:
            at = [value[int(index)] for value in at]
    return at


class Numbers(unittest.TestCase):
    def things(self, file):
        if file.startswith("charts/novacron"):
            if tool("helm") is None:
                self.skipTest(why_not("helm"))
            return charted(file.partition(" ")[2])
        if (DEPLOY / file).is_dir():
            if tool("kubectl") is None:
                self.skipTest(why_not("kubectl"))
            return [thing for thing in kustomized() if thing[0] == file]
        return [thing for thing in objects() if thing[0] == file]

    def test_every_number_is_there(self):
        for line in lines():
            with self.subTest(" ".join(line)):
                self.assertEqual(len(line), 5, "five columns")
                _, file, selector, path, value = line
                if selector == "-":
                    here = documents((DEPLOY / file).read_text())
                else:
                    kind, _, name = selector.partition("/")
                    here = [t for _, t in self.things(file) if t["kind"] == kind and t["metadata"]["name"] == name]
                self.assertTrue(here, f"{file} has no {selector}")
                values = [str(end).lower() for thing in here for end in found(thing, path)]
                self.assertTrue(values, f"nothing at {path}")
                self.assertEqual(set(values), {value.lower()})

    def test_a_path_is_followed(self):
        thing = {"a": [{"n": "x", "v": 1}, {"n": "y", "v": 2}], "k.l/m": {"z": 3}}
        self.assertEqual(found(thing, "a[n=y].v"), [2])
        self.assertEqual(found(thing, "a[*].v"), [1, 2])
        self.assertEqual(found(thing, '"k.l/m".z'), [3])
        self.assertEqual(found(thing, "a[n=z].v"), [])

    def test_rows_of_the_requirement(self):
        self.assertTrue(all(line[0].isdigit() for line in lines()))
        self.assertTrue(yaml_files())
