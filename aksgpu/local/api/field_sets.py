"""Sets of fields, as in metadata.managedFields. Lists the fields of an object, and compares two objects.

A field is a path of elements in the notation of ``FieldsV1``: ``f:name`` for a field or key, ``k:{"name":"x"}`` for an
item of a list with keys, ``v:"x"`` for a member of a set. The schemas say which lists have keys and which values are
atomic. The rules are those of structured-merge-diff.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import orjson

from aksgpu.local.api.schema import SchemaNode
from aksgpu.local.status_error import bad_request

Path = tuple[str, ...]
Fields = set[Path]

_LEAF = SchemaNode("any")
_MAX_DEPTH = 64
"""Maximum number of elements of a path."""


def path_element(node: SchemaNode, item: Any) -> str:
    """Return the path element of an item of a list."""
    if node.list_type == "set":
        return "v:" + orjson.dumps(item).decode()
    # A missing key has its default, such as the protocol of a port.
    defaults = node.item.defaults if node.item else {}
    keys = {key: item.get(key, defaults.get(key)) for key in sorted(node.keys) if key in item or key in defaults}
    return "k:" + orjson.dumps(keys).decode()


def children(node: SchemaNode, value: Any) -> list[tuple[str, SchemaNode, Any]] | None:
    """Return the parts of a value that can have different owners, or None if the value is atomic."""
    if node.atomic or value is None:
        return None
    if node.type == "object":
        return [("f:" + key, node.fields.get(key, _LEAF), each) for key, each in value.items()]
    if node.type == "map":
        assert node.item is not None
        return [("f:" + key, node.item, each) for key, each in value.items()]
    if node.type == "array" and node.list_type in ("map", "set"):
        assert node.item is not None
        return [(path_element(node, each), node.item, each) for each in value]
    return None


def all_fields(node: SchemaNode, value: Any, path: Path = (), *, applied: bool = False) -> Fields:
    """Return all fields of a value, including its own path.

    With ``applied``, only leaves and list items are returned, as server-side apply counts them.
    """
    parts = children(node, value)
    if not parts:
        return {path}
    if applied:
        _check_duplicates(path, [name for name, _, _ in parts])
    includes_self = bool(path) and (not applied or path[-1].startswith("k:"))
    found: Fields = {path} if includes_self else set()
    for name, part, each in parts:
        found |= all_fields(part, each, (*path, name), applied=applied)
    return found


def _check_duplicates(path: Path, names: list[str]) -> None:
    """Raise BadRequest if two items of a list have the same key."""
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        why = f"{format_path(path)}: duplicate entries for key {format_path((name,))}"
        raise bad_request(f"failed to create typed patch object: {why}")


def compare(node: SchemaNode, old: Any, new: Any, path: Path = ()) -> tuple[Fields, Fields]:
    """Return the fields that were added or changed, and those that were removed."""
    if old == new and type(old) is type(new):
        return set(), set()
    before = children(node, old)
    after = children(node, new)
    if before is None or after is None:
        # A field that changes between null and an object exists in both.
        if old is None and after:
            return all_fields(node, new, path) - {path}, set()
        if new is None and before:
            return set(), all_fields(node, old, path) - {path}
        return {path}, set()
    changed: Fields = set()
    removed: Fields = set()
    remaining = {name: (part, value) for name, part, value in before}
    for name, part, new_value in after:
        if name not in remaining:
            changed |= all_fields(part, new_value, (*path, name))
            continue
        _, old_value = remaining.pop(name)
        inner_changed, inner_removed = compare(part, old_value, new_value, (*path, name))
        changed |= inner_changed
        removed |= inner_removed
    for name, (part, old_value) in remaining.items():
        removed |= all_fields(part, old_value, (*path, name))
    return changed, removed


def dump(fields: Fields) -> dict[str, Any]:
    """Return the set in the form of FieldsV1."""
    root: dict[str, Any] = {}
    for path in sorted(fields):  # A field comes before the fields inside it.
        parent = root
        for depth, name in enumerate(path):
            if not parent and path[:depth] in fields:
                parent["."] = {}
            parent = parent.setdefault(name, {})
    return root


def changes(node: SchemaNode, old: Any, new: Any) -> dict[str, Any] | None:
    """Return what :func:`compare` finds added or changed, in the form of FieldsV1; None if nothing is.

    It needs no sets of paths, which makes the creation of an object faster.
    """
    if old == new and type(old) is type(new):
        return None
    before = children(node, old)
    after = children(node, new)
    if before is None or after is None:
        if old is None and after:
            return _tree(after)
        return None if new is None and before else {}
    remaining = {name: value for name, _, value in before}
    found: dict[str, Any] = {}
    for name, part, value in sorted(after, key=_name):
        inner = changes(part, remaining.pop(name), value) if name in remaining else _whole(part, value)
        if inner is not None:
            found[name] = _union(found[name], inner) if name in found else inner
    return found or None


def _name(part: tuple[str, SchemaNode, Any]) -> str:
    return part[0]


def _whole(node: SchemaNode, value: Any) -> dict[str, Any]:
    """Return a value and all fields in it, in the form of FieldsV1."""
    parts = children(node, value)
    return {".": {}, **_tree(parts)} if parts else {}


def _tree(parts: list[tuple[str, SchemaNode, Any]]) -> dict[str, Any]:
    """Return all fields of the parts of a value, in the form of FieldsV1."""
    found: dict[str, Any] = {}
    for name, part, value in sorted(parts, key=_name):
        inner = _whole(part, value)
        found[name] = _union(found[name], inner) if name in found else inner
    return found


def _union(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return the union of two sets in the form of FieldsV1, such as those of two list items with the same key."""
    union: dict[str, Any] = dump(load(one, ("",)) | load(other, ("",)))[""]
    return union


def load(fields_v1: Any, path: Path = ()) -> Fields:
    """Return the set in a FieldsV1. Malformed parts are ignored."""
    found: Fields = set()
    if not isinstance(fields_v1, dict):
        return found
    if path and (not fields_v1 or "." in fields_v1):
        found.add(path)
    for name, inner in fields_v1.items():
        if name[:2] in ("f:", "k:", "v:") and len(path) < _MAX_DEPTH:
            found |= load(inner, (*path, name))
    return found


def format_path(path: Path) -> str:
    """Return a field in the notation of error texts: ``.spec.containers[name="main"].image``."""
    shown = ""
    for name in path:
        rest = name[2:]
        if name.startswith("f:"):
            shown += f".{rest}"
        elif name.startswith("v:"):
            shown += f"[={rest}]"
        else:  # {"name":"main"} becomes name="main".
            shown += "[" + re.sub(r'^\{"|\}$', "", rest).replace('":', "=").replace(',"', ",") + "]"
    return shown
