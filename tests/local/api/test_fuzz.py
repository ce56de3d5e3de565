"""Random objects, patches and options: the result is an object or a Status, and the store stays consistent."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from aksgpu.local import objects
from aksgpu.local.api import field_sets, schema
from aksgpu.local.api.registry import Registry, WriteOptions
from aksgpu.local.api.store import Store
from aksgpu.local.kinds import KINDS, Kind
from aksgpu.local.status_error import StatusError

JUNK: list[Any] = [
    None,
    True,
    0,
    -1,
    2**31,
    2**63 - 1,
    1.5,
    "",
    "x",
    "a" * 300,
    "\0",
    "1Gi",
    "no/pe/x",
    [],
    {},
    [1],
    [None],
    [{}],
    {"a": None},
    {"name": "x"},
    [{"name": "a"}, {"name": "a"}],
    {"$patch": "delete"},
    {"$patch": "x"},
    [{"$patch": "replace"}],
]
BROKEN: list[Any] = [*JUNK, -(10**30), 10**30, "1e30", "a/b/c", [None, None], {"x": {}}]
SCALARS: dict[str, list[Any]] = {
    "string": ["a", "x", "", "default", "Never", "Exists", "NoExecute"],
    "integer": [0, 1, 5, -1],
    "boolean": [True, False],
    "quantity": ["1", 1, "1Gi", "-1", 0.5, "x"],
    "intstr": [1, "50%"],
    "time": ["2026-01-01T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00.5+01:00"],
    "microtime": ["2026-01-01T00:00:00.000001Z", "never"],
    "bytes": ["YQ==", "!"],
}
DIRECTIVES = ["$patch", "zzz", "$retainKeys", "$setElementOrder/containers", "$deleteFromPrimitiveList/finalizers"]
PATHS = ["", "x", "/metadata", "/spec", "/spec/template", "/metadata/labels/x", "/metadata/managedFields"]
OPERATIONS = ["add", "replace", "remove", "copy", "move", "test", "x"]


FULL = yaml.safe_load((Path(__file__).parents[2] / "data" / "full-objects.yaml").read_text())


def parts(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each part of an object."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in pairs:
        yield from parts(each, (*path, key))


def broken(live_cluster: dict[str, Any], path: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
    """Yield copies of an object that lack one part, or have an invalid value in its place."""
    for index in range(-1, len(BROKEN)):
        changed = copy.deepcopy(live_cluster)
        inner: Any = changed
        for key in path[:-1]:
            inner = inner[key]
        if index < 0:
            del inner[path[-1]]
        else:
            inner[path[-1]] = copy.deepcopy(BROKEN[index])
        yield changed


class Generator:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def value(self, node: schema.Node, depth: int = 0) -> Any:
        if self.random.random() < 0.02 or node.type == "any":
            return self.random.choice(JUNK)
        if node.type in SCALARS:
            return self.random.choice(SCALARS[node.type])
        if node.type == "object":
            return self.object(node, depth)
        assert node.item is not None
        count = self.random.randint(0, 2)
        if node.type == "array":
            return [self.value(node.item, depth + 1) for _ in range(count)]
        return {key: self.value(node.item, depth + 1) for key in self.random.sample(["a", "cpu", "b/gpu", "-"], count)}

    def object(self, node: schema.Node, depth: int = 0) -> dict[str, Any]:
        if depth > 7:
            return {}
        names = [*self.random.sample(list(node.fields), min(len(node.fields), self.random.randint(0, 4)))]
        names += [name for name in (*node.required, *node.always_written) if self.random.random() < 0.9]
        created = {name: self.value(node.fields[name], depth + 1) for name in dict.fromkeys(names)}
        if self.random.random() < 0.03:
            created[self.random.choice(DIRECTIVES)] = self.random.choice(JUNK)
        return created

    def operation(self, value: Any) -> dict[str, Any]:
        name = self.random.choice(OPERATIONS)
        path = self.random.choice(PATHS)
        return {"op": name, "path": path, "from": "/metadata", "value": self.random.choice([value, *JUNK])}

    async def send(self, registry: Registry, kind: Kind) -> None:
        obj = self.object(schema.schema_for(kind))
        if isinstance(obj.get("metadata"), dict):
            obj["metadata"]["name"] = self.random.choice(["a", "b"])
            for name in ("namespace", "resourceVersion", "uid"):
                obj["metadata"].pop(name, None)
        for name in ("kind", "apiVersion"):
            obj.pop(name, None)
        options = WriteOptions(
            manager=self.random.choice(["one", "two"]),
            field_validation=self.random.choice(["Strict", "Warn", "Ignore"]),
            force=self.random.random() < 0.5,
        )
        namespace = "default" if kind.namespaced else None
        part = self.random.choice([None, *(name for name in kind.subresources if name in ("status", "finalize"))])
        verb = self.random.choice(["post", "post", "put", "delete", "patch", "patch", "patch", "patch"])
        if verb == "post":
            await registry.write("create", kind.plural, obj, None, namespace, options=options)
        elif verb == "put":
            await registry.write("update", kind.plural, obj, "a", namespace, subresource=part, options=options)
        elif verb == "delete":
            body = self.random.choice([{}, {"propagationPolicy": "Foreground"}, {"gracePeriodSeconds": 0}])
            await registry.write("delete", kind.plural, body, "a", namespace, options=options)
        else:
            media = self.random.choice(
                [objects.JSON_PATCH, objects.MERGE_PATCH, objects.STRATEGIC_PATCH, objects.APPLY_PATCH]
            )
            patch: Any = [self.operation(obj)] if media == objects.JSON_PATCH else obj
            await registry.write(
                "patch", kind.plural, patch, "a", namespace, content_type=media, subresource=part, options=options
            )


@pytest.mark.parametrize("seed", range(3))
async def test_random_objects_are_accepted_or_refused(tmp_path: Path, seed: int) -> None:
    generator = Generator(seed)
    registry = Registry(Store(tmp_path / "kube.db"))
    await registry.open()
    accepted = 0
    for _ in range(2000):
        try:
            await generator.send(registry, generator.random.choice(KINDS))
            accepted += 1
        except StatusError as error:
            assert error.code < 500 or "resourceVersion should not be set" in error.message
            orjson.dumps(error.status)
    assert accepted > 50
    stored = {kind.plural: [entry.data for entry in registry.store.entries(kind.plural)] for kind in KINDS}
    await registry.close()
    again = Store(tmp_path / "kube.db")
    await again.open()
    assert {kind.plural: [entry.data for entry in again.entries(kind.plural)] for kind in KINDS} == stored
    await again.close()


@pytest.mark.parametrize("resource", FULL)
async def test_objects_with_one_invalid_part(registry: Registry, resource: str) -> None:
    kind = next(kind for kind in KINDS if kind.plural == resource)
    namespace = "default" if kind.namespaced else None
    options = WriteOptions(dry_run=True, field_validation="Strict")
    await registry.write("create", resource, copy.deepcopy(FULL[resource]), None, namespace, options=options)
    for path in list(parts(FULL[resource]))[1:]:
        for obj in broken(FULL[resource], path):
            try:
                await registry.write("create", resource, obj, None, namespace, options=options)
            except StatusError as error:
                assert error.code < 500 or "resourceVersion should not be set" in error.message, path


def decoded(kind: Kind, generator: Generator) -> dict[str, Any]:
    """Return a random object as the server decodes it."""
    while True:
        try:
            result = schema.Decoder().decode(schema.schema_for(kind), generator.object(schema.schema_for(kind)))
        except schema.DecodeError:
            continue
        assert isinstance(result, dict)
        return result


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)
def test_the_fast_way_to_managed_fields_agrees_with_the_plain_one(kind: Kind) -> None:
    generator = Generator(5)
    node = schema.schema_for(kind)
    for _ in range(60):
        new = decoded(kind, generator)
        for old in (schema.zero_value(node), decoded(kind, generator)):
            plain = field_sets.dump(field_sets.compare(node, old, new)[0])
            fast = field_sets.changes(node, old, new) or {}
            assert orjson.dumps(fast) == orjson.dumps(plain)


def test_the_fast_way_agrees_about_members_of_a_set_that_occur_twice() -> None:
    node = schema.schema_for(KINDS[0])
    old = {"metadata": {"finalizers": ["a.io/b"]}}
    new = {"metadata": {"finalizers": ["a.io/b", "a.io/b"]}}
    plain = field_sets.dump(field_sets.compare(node, old, new)[0])
    assert plain
    assert field_sets.changes(node, old, new) == plain
