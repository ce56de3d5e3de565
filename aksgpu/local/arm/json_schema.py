"""One check of JSON against a schema, in the few words of JSON Schema that ``fields.yaml`` uses.

Fields that a schema does not name are let through, as Azure lets through what another API version may know. Null is
no value and always allowed, but not inside arrays and maps.
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


class WrongField(ValueError):
    """A value against its schema.

    Args:
        path: the field, in dots.
        why: what is wrong and what is allowed.
    """

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


def require(schema: Mapping[str, Any], value: Any, path: str = "") -> None:
    """Refuse a value that is against the schema; raises WrongField."""
    kind = schema["type"]
    if not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        raise WrongField(path, f"cannot unmarshal {_name(value)} into a field of type {kind}.")
    if isinstance(value, str) and value:  # an empty text stands for none
        if value not in schema.get("enum", [value]):
            raise WrongField(path, f"'{value}' is not one of {', '.join(schema['enum'])}.")
        if "pattern" in schema and re.fullmatch(schema["pattern"], value) is None:
            raise WrongField(path, f"'{value}' is not {schema['description']}.")
    if "minimum" in schema and not schema["minimum"] <= value <= schema["maximum"]:
        between = f"it must be between {schema['minimum']} and {schema['maximum']}"
        raise WrongField(path, f"{value} is not allowed: {between}.")
    inner = schema.get("title", path)
    for name, field in schema.get("properties", {}).items():
        if value.get(name) is not None:
            require(field, value[name], f"{inner}.{name}" if inner else name)
    for element in value if "items" in schema else ():
        require(schema["items"], element, path)
    for element in value.values() if "additionalProperties" in schema else ():
        require(schema["additionalProperties"], element, path)


def _name(value: Any) -> str:
    """What JSON calls the type of a value; a whole number is a number."""
    names = (name for name, kind in TYPES.items() if isinstance(value, kind) and name != "integer")
    return "null" if value is None else next(names)
