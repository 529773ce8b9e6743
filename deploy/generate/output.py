"""How generated files look, and what all objects have in common."""

import pathlib

import yaml

DEPLOY = pathlib.Path(__file__).resolve().parents[1]
# The labels that everything here has, beside those of its component.
LABELS = {"app.kubernetes.io/name": "novacron", "app.kubernetes.io/part-of": "novacron"}
NAMESPACE = "novacron"


class Dumper(yaml.SafeDumper):
    """Lists are indented, as people write them, and texts of several lines stand as blocks."""

    def increase_indent(self, flow=False, indentless=False):
        return super().increase_indent(flow, False)

    def ignore_aliases(self, data):
        return True


def _text(dumper, text):
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Dumper.add_representer(str, _text)


def source(name):
    """A YAML file of deploy/, read."""
    return yaml.safe_load((DEPLOY / name).read_text())


def text(origin, *objects):
    """A file with these objects, which says where they come from."""
    head = f"# Made of {origin} by scripts/deploy-generate.sh.\n"
    return head + "---\n".join(yaml.dump(o, Dumper=Dumper, sort_keys=False, width=120) for o in objects)


def thing(api_version, kind, name, component=None, **fields):
    """An object of the namespace."""
    labels = LABELS | ({"app.kubernetes.io/component": component} if component else {})
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        **fields,
    }
