"""The guides of docs/deployment: which code blocks of theirs run, and where. `guides.py KIND` prints the pages that have some, in their order, and
`guides.py KIND PAGE` what is to run of one.

A block that begins with "```sh run" runs on this machine, beside a member and a replica of the API; one with "```sh cluster" on a Kubernetes cluster."""

import pathlib
import re
import sys

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "docs" / "deployment"
KINDS = ("run", "cluster")
# Every block fails with its first command that does, and takes with it what it has started.
HEAD = "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"


def pages():
    """In the order of the README's table."""
    return re.findall(r"^\| \[([\w-]+\.md)\]", (FOLDER / "README.md").read_text(), re.M)


def marks(page):
    """What all code blocks of a page begin with."""
    return re.findall(r"^```(.*)\n(?:.*\n)*?```$", (FOLDER / page).read_text(), re.M)


def script(page, kind):
    """What runs of a page, or an empty text. Each block is a shell of its own."""
    blocks = re.findall(rf"^```sh {kind}\n(.*?)^```$", (FOLDER / page).read_text(), re.M | re.S)
    return "".join(f"(\n{HEAD}{block})\n" for block in blocks)


def main():
    kind, *page = sys.argv[1:]
    if page:
        print("set -e\n" + script(page[0], kind))
    else:
        print("\n".join(page for page in pages() if script(page, kind)))


if __name__ == "__main__":
    main()
