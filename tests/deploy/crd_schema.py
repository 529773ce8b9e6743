"""A custom resource against the schema of its CustomResourceDefinition, as strictly as an API server with field validation:
a field that the schema does not know is an error. CEL rules, defaults, webhooks and conversion are not evaluated."""

import functools
import os
import pathlib

import jsonschema

from objects import ROOT, documents

# Where the schemas are; none are kept in this repository.
CRDS = pathlib.Path(os.environ.get("CRDS", ROOT.parent / "shared" / "crds"))

_OBJECT_FIELDS = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}


@functools.cache
def definitions():
    """The schema for each (group, kind, version), and None for a version that is not served."""
    found = {}
    for path in sorted(CRDS.rglob("*.yaml")):
        for crd in documents(path.read_text()):
            spec = crd["spec"]
            for version in spec["versions"]:
                schema = _closed(version["schema"]["openAPIV3Schema"]) if version["served"] else None
                if schema is not None:
                    schema["properties"] = {**schema.get("properties", {}), **_OBJECT_FIELDS}
                found[spec["group"], spec["names"]["kind"], version["name"]] = schema
    return found


def groups():
    return {group for group, _, _ in definitions()}


def _closed(schema):
    """The same schema in JSON Schema's words, without room for fields that it does not name."""
    out = {}
    for key, value in schema.items():
        if key in ("properties",):
            out[key] = {name: _closed(property) for name, property in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            out[key] = _closed(value)
        elif not key.startswith("x-kubernetes") and key not in ("nullable", "default", "description", "format", "example"):
            # What stands in allOf, anyOf, oneOf and not only adds conditions to fields named above.
            out[key] = value
    if schema.get("x-kubernetes-int-or-string"):
        out.pop("type", None)
        out["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if schema.get("x-kubernetes-embedded-resource"):
        out["properties"] = {**out.get("properties", {}), **_OBJECT_FIELDS}
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if "properties" in out and not open_ended:
        out["additionalProperties"] = False
    if schema.get("nullable") and "type" in out:
        out["type"] = [out["type"], "null"]
    return out


def faults(thing):
    """What is wrong with an object whose group the schemas know."""
    group, _, version = thing["apiVersion"].partition("/")
    key = group, thing["kind"], version
    if key not in definitions():
        return [f"there is no {thing['kind']} in {thing['apiVersion']}"]
    schema = definitions()[key]
    if schema is None:
        return [f"{thing['apiVersion']} is not served any more"]
    errors = jsonschema.Draft4Validator(schema).iter_errors(thing)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message[:300]}" for error in errors]
