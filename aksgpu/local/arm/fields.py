"""One check of JSON against a table of fields: their types, the words and numbers that they may be, their parts.

It knows neither Azure nor HTTP: the tables are those of whoever asks. Fields that a table does not name are let
through, as Azure lets through what another API version may know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

NAMES: dict[type, str] = {
    bool: "bool",
    int: "number",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
    type(None): "null",
}
"""JSON's names of Python's types."""


class WrongField(ValueError):
    """A value against its rule.

    Args:
        path: the field, in dots.
        why: what is wrong and what is allowed.
    """

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path, self.why = path, why


@dataclass(frozen=True)
class Rule:
    """What a value has to be. Null is no value and always allowed, but not inside arrays and maps."""

    kind: type
    """``str``, ``bool``, ``int``, ``float`` (any number), ``list`` or ``dict``."""
    words: tuple[str, ...] = ()
    """All that a string may be; an empty one stands for none."""
    check: Callable[[Any], str] | None = None
    """What is wrong with a value of the right type, or an empty text."""
    fields: Mapping[str, Rule] = field(default_factory=dict)
    """An object's fields."""
    each: Rule | None = None
    """Every element of an array, or every value of a map."""

    def require(self, value: Any, path: str) -> None:
        """Refuse a value that is against the rule; raises WrongField."""
        if value is None:
            return
        self._require_type(value, path)
        if self.words and value not in ("", *self.words):
            raise WrongField(path, f"'{value}' is not one of {', '.join(self.words)}.")
        if self.check is not None and (why := self.check(value)):
            raise WrongField(path, why)
        for name, rule in self.fields.items():
            rule.require(value.get(name), f"{path}.{name}" if path else name)
        if self.each is not None:
            for element in value.values() if isinstance(value, dict) else value:
                self.each._require_type(element, path)
                self.each.require(element, path)

    def _require_type(self, value: Any, path: str) -> None:
        kinds = (int, float) if self.kind is float else self.kind
        if not isinstance(value, kinds) or (isinstance(value, bool) and self.kind is not bool):
            wanted = "integer" if self.kind is int else NAMES[self.kind]
            raise WrongField(path, f"cannot unmarshal {NAMES[type(value)]} into a field of type {wanted}.")


def between(low: float, high: float, also: tuple[float, ...] = ()) -> Callable[[Any], str]:
    """A check that a number is in a range, or one of a few others."""

    def check(value: Any) -> str:
        if low <= value <= high or value in also:
            return ""
        others = "".join(f", or {other}" for other in also)
        return f"{value} is not allowed: it must be between {low} and {high}{others}."

    return check
