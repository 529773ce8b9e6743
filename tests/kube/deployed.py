"""Writes the objects of deploy/ for an API server into a folder, each once: first.json, the namespaces and accounts that others need; crds.json, definitions of the kinds
of others, where there are any (variable CRDS); objects.json; pods.json, that workloads would make. Run with tests/deploy in PYTHONPATH."""

import json
import pathlib
import sys

from crd_schema import CRDS
from objects import all_objects, documents
from test_objects import built_in
from test_policies import POD_KINDS, pods

# No resources of an API server: read by tools.
FOR_TOOLS = ("kustomize.config.k8s.io/", "helm.toolkit.fluxcd.io/")


def distinct():
    """Every object of a kind that an API server has."""
    seen = {json.dumps(thing, sort_keys=True): thing for _, thing in all_objects()}
    return [thing for thing in seen.values() if not thing["apiVersion"].startswith(FOR_TOOLS)]


def definitions():
    """{kind: definition} of others' resources."""
    crds = [crd for path in sorted(CRDS.rglob("*.yaml")) for crd in documents(path.read_text())]
    return {(crd["spec"]["group"], crd["spec"]["names"]["kind"]): crd for crd in crds}


def undescribed(schema):
    """Without texts for people, which are most of a definition and cost the API server most of its time. A property may have that name."""
    if isinstance(schema, dict):
        return {key: undescribed(value) for key, value in schema.items() if key != "description" or not isinstance(value, str)}
    return [undescribed(value) for value in schema] if isinstance(schema, list) else schema


def kind(thing):
    return thing["apiVersion"].rpartition("/")[0], thing["kind"]


def ours(thing):
    return built_in(thing) or thing["apiVersion"].startswith("novacron.io/")


def pod(thing):
    made = pods(thing)
    spec = made["spec"]
    # Claims that a StatefulSet adds; and a node's name is no matter of these.
    spec = {**spec, "volumes": [*spec.get("volumes", []), *({"name": claim["metadata"]["name"], "emptyDir": {}} for claim in thing["spec"].get("volumeClaimTemplates", []))]}
    metadata = {**made["metadata"], "name": f"pod-of-{thing['metadata']['name']}"[:63], "namespace": thing["metadata"].get("namespace", "default")}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**spec, "restartPolicy": spec.get("restartPolicy", "Always")}}


def write(path, things):
    path.write_text("".join(json.dumps(thing) + "\n" for thing in things))


def main():
    folder = pathlib.Path(sys.argv[1])
    things = distinct()
    wanted = {kind(thing) for thing in things}
    known = definitions()
    crds = [undescribed(crd) for kind, crd in known.items() if kind in wanted]
    names = sorted({thing["metadata"].get("namespace", "default") for thing in things} - {"default"})
    write(folder / "crds.json", crds)
    accounts = {json.dumps(thing["metadata"]): thing for thing in things if thing["kind"] == "ServiceAccount"}
    write(folder / "first.json", [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in names] + list(accounts.values()))
    things = [thing for thing in things if ours(thing) or kind(thing) in known]
    made = [pod(thing) for thing in things if thing["kind"] in POD_KINDS]
    write(folder / "objects.json", things)
    write(folder / "pods.json", made)
    print(f"{len(things)} objects, {len(made)} pods, {len(crds)} definitions of others")


if __name__ == "__main__":
    main()
