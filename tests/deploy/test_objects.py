"""Every object of deploy/, as it stands and as it is rendered: readable, of a current version, as its schema wants it."""

import collections
import pathlib
import re
import unittest

import crd_schema
from objects import all_objects, documents, label, objects, tool, why_not, yaml_files

# The oldest and the newest Kubernetes that is promised.
KUBERNETES = ("1.34", "1.37")
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
# An image's tag or digest has to be there and must not wander.
UNPINNED = re.compile(r"(^|/)[^:@/]+$|:latest$")


# Groups of Kubernetes itself that have a dot in their name; others with its ending are of projects beside it.
BUILT_IN = {
    f"{name}.k8s.io"
    for name in ("admissionregistration", "apiextensions", "coordination", "discovery", "networking", "rbac.authorization", "scheduling", "storage")
}


def built_in(thing):
    group = thing["apiVersion"].rpartition("/")[0]
    return "." not in group or group in BUILT_IN


class Objects(unittest.TestCase):
    def test_every_yaml_file_can_be_read(self):
        for path in yaml_files():
            with self.subTest(path.name):
                documents(path.read_text())

    def test_no_object_is_there_twice(self):
        seen = collections.Counter(
            (str(pathlib.Path(file).parent), thing["apiVersion"], thing["kind"], thing["metadata"].get("namespace"), thing["metadata"]["name"])
            for file, thing in objects()
        )
        self.assertEqual([key for key, count in seen.items() if count > 1], [])

    def test_names_are_names_and_images_are_pinned(self):
        for file, thing in all_objects():
            with self.subTest(label(file, thing)):
                self.assertRegex(thing["metadata"]["name"], NAME)
                for image in images(thing):
                    self.assertNotRegex(image, UNPINNED)

    def test_built_in_objects_fit_the_schemas_of_kubernetes(self):
        try:
            import kubernetes_validate
        except ImportError:
            self.skipTest(why_not("kubernetes"))
        for file, thing in all_objects():
            if not built_in(thing):
                continue
            for version in KUBERNETES:
                with self.subTest(label(file, thing), version=version):
                    try:
                        kubernetes_validate.validate(thing, version, strict=True)
                    except kubernetes_validate.ValidationError as error:
                        self.fail(f"{'.'.join(map(str, error.path))}: {error.message[:300]}")

    def test_objects_of_others_fit_their_published_schemas(self):
        if not crd_schema.definitions():
            self.skipTest(f"there are no schemas in {crd_schema.CRDS} (variable CRDS)")
        checked = 0
        for file, thing in all_objects():
            if built_in(thing) or thing["apiVersion"].startswith(("novacron.io/", "kustomize.config.k8s.io/")):
                continue
            checked += 1
            with self.subTest(label(file, thing)):
                self.assertEqual(crd_schema.faults(thing), [])
        print(f"{checked} custom resources fit their schemas")

    def test_an_unknown_field_is_an_error(self):
        if not crd_schema.definitions():
            self.skipTest(f"there are no schemas in {crd_schema.CRDS} (variable CRDS)")
        monitor = {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "ServiceMonitor",
            "metadata": {"name": "a"},
            "spec": {"selector": {}, "endpoints": [{"port": "metrics", "intervall": "30s"}]},
        }
        self.assertIn("intervall", "".join(crd_schema.faults(monitor)))
        monitor["spec"]["endpoints"][0].pop("intervall")
        self.assertEqual(crd_schema.faults(monitor), [])
        self.assertEqual(len(crd_schema.faults({**monitor, "apiVersion": "monitoring.coreos.com/v2"})), 1)

    def test_kustomize_and_helm_are_there(self):
        for program in ("kubectl", "helm"):
            if tool(program) is None:
                self.skipTest(why_not(program))


def images(thing):
    """Every image that an object names, wherever its pods are."""
    if isinstance(thing, dict):
        for key, value in thing.items():
            if key == "image" and isinstance(value, str):
                yield value
            else:
                yield from images(value)
    elif isinstance(thing, list):
        for item in thing:
            yield from images(item)
