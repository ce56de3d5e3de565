"""Validation of JSON against the subset of JSON Schema that ``fields.yaml`` uses.

Fields that a schema does not name are accepted, as Azure accepts fields of other API versions. Null is accepted
everywhere except inside arrays and maps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

TYPES: dict[str, Any] = {
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "string": str,
    "array": list,
    "object": dict,
}


class InvalidField(ValueError):
    """A value that does not match its schema.

    Args:
        path: the path of the field, separated by dots.
        why: the problem, and the allowed values.
    """

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


def require(schema: Mapping[str, Any], value: Any, path: str = "") -> None:
    """Raise InvalidField if the value does not match the schema."""
    kind = schema["type"]
    if not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        raise InvalidField(path, f"cannot unmarshal {_json_type(value)} into a field of type {kind}.")
    if isinstance(value, str) and value:  # Azure treats an empty string as absent
        if value not in schema.get("enum", [value]):
            raise InvalidField(path, f"'{value}' is not one of {', '.join(schema['enum'])}.")
        if "pattern" in schema and re.fullmatch(schema["pattern"], value) is None:
            raise InvalidField(path, f"'{value}' is not {schema['description']}.")
    if "minimum" in schema and not schema["minimum"] <= value <= schema["maximum"]:
        limits = f"it must be between {schema['minimum']} and {schema['maximum']}"
        raise InvalidField(path, f"{value} is not allowed: {limits}.")
    prefix = schema.get("title", path)
    for name, field in schema.get("properties", {}).items():
        if value.get(name) is not None:
            require(field, value[name], f"{prefix}.{name}" if prefix else name)
    if "items" in schema:
        for element in value:
            require(schema["items"], element, path)
    if "additionalProperties" in schema:
        for element in value.values():
            require(schema["additionalProperties"], element, path)


def _json_type(value: Any) -> str:
    """Return JSON's name of a value's type. An integer is a number."""
    if value is None:
        return "null"
    return next(name for name, kind in TYPES.items() if isinstance(value, kind) and name != "integer")
