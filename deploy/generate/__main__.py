"""Writes the files of deploy/ that follow from others, or with --check says which of them are not what they should be.

Each module here gives the path below deploy/ and the content of what it makes. HELM names the program; what only helm can make is left out
without it."""

import os
import sys

import autoscaling
import chart
import dashboards
import network
import rules
from output import DEPLOY


def steps():
    """What is made, in an order in which each step finds what it is made of."""
    for module in (rules, dashboards, autoscaling, network):
        yield module.files()
    yield from chart.files(os.environ.get("HELM"))


def main():
    check, stale = "--check" in sys.argv, []
    for files in steps():
        for name, content in files.items():
            path = DEPLOY / name
            if path.exists() and path.read_text() == content:
                continue
            stale.append(name)
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content)
                print(name)
    if stale and check:
        sys.exit("not what scripts/deploy-generate.sh makes: " + " ".join(stale))


if __name__ == "__main__":
    main()
