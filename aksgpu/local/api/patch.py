"""The three patches that compute a new object from an old one: JSON patch, merge patch, strategic merge patch.

Server-side apply, the fourth, knows about owners: see :mod:`aksgpu.local.api.server_side_apply`. Patches never
change what they
are given; parts of the result are shared with the old object.
"""

from __future__ import annotations

import copy
from typing import Any

import jsonpatch
import orjson

from aksgpu.local.api.schema import SchemaNode
from aksgpu.local.status_error import StatusError, bad_request

MAX_OPERATIONS = 10_000
MAX_COPIED = 3 * 1024 * 1024
"""Bytes that the copies of one JSON patch may amount to, as in Kubernetes."""
_MALFORMED = (AttributeError, KeyError, RecursionError, TypeError, ValueError)
"""What jsonpatch lets through of operations that are none."""
_ORDER = "$setElementOrder/"
_DELETE = "$deleteFromPrimitiveList/"
_RETAIN = "$retainKeys"
_DIRECTIVE = "$patch"


def json_patch(target: Any, operations: list[Any]) -> Any:
    """RFC 6902."""
    if len(operations) > MAX_OPERATIONS:
        message = (
            f"Request entity too large: The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, "
            f"got {len(operations)}"
        )
        raise StatusError(413, "RequestEntityTooLarge", message)
    result = copy.deepcopy(target)
    copied = 0
    try:
        for each in operations:
            if (
                each["op"] == "copy"
            ):  # of what holds copies already, and so on: without a bound, a few would fill memory
                copied += len(orjson.dumps(jsonpatch.JsonPointer(each["from"]).resolve(result)))
                if copied > MAX_COPIED:
                    raise ValueError(copied)
            result = jsonpatch.apply_patch(result, [each], in_place=True)
        return result
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, *_MALFORMED) as error:
        message = "the server rejected our request due to an error in our request"
        raise StatusError(422, "Invalid", message, {}) from error


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def strategic_patch(node: SchemaNode | None, target: Any, patch: Any) -> Any:
    """Kubernetes' own merge patch, in which lists with a merge key are merged item by item."""
    if not isinstance(patch, dict):
        return patch
    directive = patch.get(_DIRECTIVE)
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != _DIRECTIVE}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise bad_request(f"Unrecognized patch type: {directive}")
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if key in (_DIRECTIVE, _RETAIN) or key.startswith((_ORDER, _DELETE)):
            continue
        if value is None:
            result.pop(key, None)
            continue
        field = _field(node, key)
        if isinstance(value, list) and field is not None and field.merge_key:
            result[key] = _merge_lists(field, result.get(key), value)
        elif isinstance(value, list):
            result[key] = value
        else:
            result[key] = strategic_patch(field, result.get(key), value)
    return _directives(node, result, patch)


def _field(node: SchemaNode | None, key: str) -> SchemaNode | None:
    if node is None:
        return None
    return node.item if node.type == "map" else node.fields.get(key)


def _directives(node: SchemaNode | None, result: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    if isinstance(retained := patch.get(_RETAIN), list):
        kept = {*map(str, retained)}
        result = {key: value for key, value in result.items() if key in kept}
    for key, value in patch.items():
        if not isinstance(value, list):
            continue
        if key.startswith(_DELETE):
            name = key.removeprefix(_DELETE)
            if isinstance(result.get(name), list):
                gone = {*map(str, value)}
                result[name] = [each for each in result[name] if str(each) not in gone]
        elif key.startswith(_ORDER):
            name = key.removeprefix(_ORDER)
            if isinstance(result.get(name), list):
                result[name] = _ordered(_field(node, name), result[name], value)
    return result


def _identity(field: SchemaNode | None, item: Any) -> Any:
    key = field.merge_key if field else "*"
    return item.get(key) if isinstance(item, dict) else item


def _ordered(field: SchemaNode | None, items: list[Any], order: list[Any]) -> list[Any]:
    """Items in the patch's order; those that it does not name keep their place after the one before them."""
    wanted = {str(_identity(field, each)): place for place, each in enumerate(order)}
    place = -1
    placed: list[tuple[int, int, Any]] = []
    for index, item in enumerate(items):
        place = wanted.get(str(_identity(field, item)), place)
        placed.append((place, index, item))
    return [item for _, _, item in sorted(placed, key=lambda each: each[:2])]


def _merge_lists(field: SchemaNode, target: Any, patch: list[Any]) -> list[Any]:
    directives = [each.get(_DIRECTIVE) if isinstance(each, dict) else None for each in patch]
    if "replace" in directives:
        return [each for each in patch if not (isinstance(each, dict) and _DIRECTIVE in each)]
    names = [str(_identity(field, each)) for each in patch]
    for each in patch:
        if isinstance(each, dict) and each.get(field.merge_key) is None:
            raise bad_request(f"map: {each} does not contain declared merge key: {field.merge_key}")
    gone = {name for name, directive in zip(names, directives, strict=True) if directive == "delete"}
    old = target if isinstance(target, list) else []
    items = [item for item in old if str(_identity(field, item)) not in gone]
    place = {str(_identity(field, item)): index for index, item in reversed([*enumerate(items)])}
    for name, each, directive in zip(names, patch, directives, strict=True):
        if directive == "delete":
            continue
        index = place.setdefault(name, len(items))
        items[index : index + 1] = [strategic_patch(field.item, items[index] if index < len(items) else None, each)]
    return items
