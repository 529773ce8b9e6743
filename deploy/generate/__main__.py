"""Writes the files of deploy/ that follow from others, or with --check says which of them are not what they should be.

Each module here has `files()`: the path below deploy/ and the content of what it makes."""

import sys

import autoscaling
import dashboards
import network
import rules
from output import DEPLOY


def main():
    stale = []
    for module in (rules, dashboards, autoscaling, network):
        for name, content in module.files().items():
            path = DEPLOY / name
            if path.exists() and path.read_text() == content:
                continue
            stale.append(name)
            if "--check" not in sys.argv:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content)
                print(name)
    if stale and "--check" in sys.argv:
        sys.exit("not what scripts/deploy-generate.sh makes: " + " ".join(stale))


if __name__ == "__main__":
    main()
