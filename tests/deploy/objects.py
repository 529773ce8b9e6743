"""The files of deploy/, read as the objects that they hold. Knows neither schemas nor what the objects should say."""

import functools
import os
import pathlib
import shutil
import subprocess

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
TOOLS = pathlib.Path(os.environ.get("DEPLOY_TOOLS", "/nonexistent"))
# The daemons.
BIN = pathlib.Path(os.environ.get("BIN", ROOT / "target" / "release"))
# Folders whose YAML is no object as it stands: templates, and what only kustomize can read. Both are rendered instead.
NOT_OBJECTS = ("charts",)


class Loader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):
    """YAML without duplicate keys, and with a bare `=` as a text, as YAML 1.2 has it."""


def _mapping(loader, node):
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    twice = {str(key) for key in keys if keys.count(key) > 1}
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"keys twice: {sorted(twice)}", node.start_mark)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
Loader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: node.value)


def documents(text):
    """All documents of a text that are not empty."""
    return [document for document in yaml.load_all(text, Loader=Loader) if document is not None]


def yaml_files():
    """Every YAML file of deploy/ but templates."""
    files = [path for kind in ("*.yaml", "*.yml") for path in DEPLOY.rglob(kind)]
    return sorted(path for path in files if "templates" not in path.relative_to(DEPLOY).parts)


def is_object(document):
    return isinstance(document, dict) and "apiVersion" in document and "kind" in document


@functools.cache
def objects():
    """(file, object) of every object that a file holds as it stands; lists are taken apart."""
    found = []
    for path in yaml_files():
        name = path.relative_to(DEPLOY)
        if name.parts[0] in NOT_OBJECTS or path.name == "kustomization.yaml":
            continue
        for document in documents(path.read_text()):
            if is_object(document):
                found += [(str(name), item) for item in (document["items"] if document["kind"] == "List" else [document])]
    return found


def tool(name):
    """The path of a program, or None."""
    paths = (TOOLS / "bin" / name, BIN / name)
    return next((str(path) for path in paths if path.exists()), None) or shutil.which(name)


def why_not(name):
    """Why there is no such program."""
    reason = TOOLS / "bin" / f"{name}.why"
    return f"no {name}: {reason.read_text().strip() if reason.exists() else 'scripts/deploy-tools.sh installs it'}"


def need(test, name):
    """The path of a program; the test is skipped without it."""
    path = tool(name)
    if path is None:
        test.skipTest(why_not(name))
    return path


def run(*command, cwd=ROOT):
    """What a program prints; what it complains of is in the error."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


@functools.cache
def kustomized():
    """(folder, object) of what kustomize makes of every folder of deploy/ that has a kustomization."""
    found = []
    for path in sorted(DEPLOY.rglob("kustomization.yaml")):
        folder = path.parent.relative_to(DEPLOY)
        if folder.parts[0] == "charts" or documents(path.read_text())[0].get("kind") == "Component":
            continue
        text = run(tool("kubectl"), "kustomize", str(path.parent))
        found += [(str(folder), item) for item in documents(text)]
    return found


@functools.cache
def charted(values):
    """(`charts/novacron VALUES`, object) of what helm makes of the chart with a values file beside it, after which there may be further flags, and
    nothing but defaults for ""."""
    chart = DEPLOY / "charts" / "novacron"
    file, *more = values.split() or [""]
    flags = ["--values", str(chart / file), *more] if file else []
    text = run(tool("helm"), "template", "novacron", str(chart), "--namespace", "novacron", *flags)
    name = f"charts/novacron {values}".strip()
    return [(name, item) for item in documents(text)]


def chart_values():
    chart = DEPLOY / "charts" / "novacron"
    return [""] + sorted(path.name for path in chart.glob("values-*.yaml")) if (chart / "Chart.yaml").exists() else []


def all_objects():
    """Files as they stand, and whatever can be rendered here."""
    found = list(objects())
    if tool("kubectl"):
        found += kustomized()
    if tool("helm"):
        for values in chart_values():
            found += charted(values)
    return found


def label(file, thing):
    return f"{file}: {thing['kind']}/{thing.get('metadata', {}).get('name', '?')}"
