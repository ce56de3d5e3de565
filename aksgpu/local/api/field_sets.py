"""Sets of fields, as metadata.managedFields has them: which fields an object has, and in which two objects differ.

A field is a path of elements in the notation of ``FieldsV1``: ``f:name`` for a field or key, ``k:{"name":"x"}`` for
an item of a list with keys, ``v:"x"`` for a member of a set. What is a list with keys and what is one value comes
from the schemas. The rules are those of structured-merge-diff.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from aksgpu.local.api.schema import SchemaNode
from aksgpu.local.status_error import bad_request

Path = tuple[str, ...]
Fields = set[Path]

_LEAF = SchemaNode("any")


def path_element(node: SchemaNode, item: Any) -> str:
    """The path element of a list's item."""
    if node.list_type == "set":
        return "v:" + json.dumps(item, separators=(",", ":"), ensure_ascii=False)
    # An absent key counts with its default, as the protocol of a port does.
    defaults = node.item.defaults if node.item else {}
    keys = {key: item.get(key, defaults.get(key)) for key in sorted(node.keys) if key in item or key in defaults}
    return "k:" + json.dumps(keys, separators=(",", ":"), ensure_ascii=False)


def children(node: SchemaNode, value: Any) -> list[tuple[str, SchemaNode, Any]] | None:
    """The parts of a value that have an owner each, or None where the value is owned as a whole."""
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
    """All fields of a value, its own path included; with ``applied`` only leaves and items, as apply counts them."""
    parts = children(node, value)
    if not parts:
        return {path}
    if applied and len(names := Counter(name for name, _, _ in parts)) < len(parts):
        why = f"{format_path(path)}: duplicate entries for key {format_path((names.most_common(1)[0][0],))}"
        raise bad_request(f"failed to create typed patch object: {why}")
    own = bool(path) and (not applied or path[-1].startswith("k:"))
    found: Fields = {path} if own else set()
    for name, part, each in parts:
        found |= all_fields(part, each, (*path, name), applied=applied)
    return found


def compare(node: SchemaNode, old: Any, new: Any, path: Path = ()) -> tuple[Fields, Fields]:
    """Fields that were added or changed, and fields that were removed."""
    if old == new and type(old) is type(new):
        return set(), set()
    before = children(node, old)
    after = children(node, new)
    if before is None or after is None:
        # A null that is filled or emptied was there before and after.
        if old is None and after:
            return all_fields(node, new, path) - {path}, set()
        if new is None and before:
            return set(), all_fields(node, old, path) - {path}
        return {path}, set()
    changed: Fields = set()
    removed: Fields = set()
    olds = {name: each for name, _, each in before}
    for name, part, each in after:
        if name not in olds:
            changed |= all_fields(part, each, (*path, name))
            continue
        more, less = compare(part, olds.pop(name), each, (*path, name))
        changed |= more
        removed |= less
    parts = {name: part for name, part, _ in before}
    for name, each in olds.items():
        removed |= all_fields(parts[name], each, (*path, name))
    return changed, removed


def dump(fields: Fields) -> dict[str, Any]:
    """The set as FieldsV1."""
    root: dict[str, Any] = {}
    for path in sorted(fields):  # so that what holds others comes before them
        at = root
        for depth, name in enumerate(path):
            if not at and path[:depth] in fields:
                at["."] = {}
            at = at.setdefault(name, {})
    return root


def load(fields_v1: Any, path: Path = ()) -> Fields:
    """A set from FieldsV1; what is malformed counts as no field."""
    found: Fields = set()
    if not isinstance(fields_v1, dict):
        return found
    if path and (not fields_v1 or "." in fields_v1):
        found.add(path)
    for name, inner in fields_v1.items():
        if name[:2] in ("f:", "k:", "v:") and len(path) < 64:
            found |= load(inner, (*path, name))
    return found


def format_path(path: Path) -> str:
    """A field as error texts show it: ``.spec.containers[name="main"].image``."""
    shown = ""
    for name in path:
        rest = name[2:]
        if name.startswith("f:"):
            shown += f".{rest}"
        elif name.startswith("v:"):
            shown += f"[={rest}]"
        else:
            shown += "[" + re.sub(r'^\{"|\}$', "", rest).replace('":', "=").replace(',"', ",") + "]"
    return shown
