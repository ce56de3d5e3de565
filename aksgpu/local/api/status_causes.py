"""Collects the problems of an object's values, for one 422 response with a cause per field."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from aksgpu.common import quantities
from aksgpu.local import name_formats
from aksgpu.local.kinds import Type
from aksgpu.local.status_error import StatusError


def _format_value(value: Any) -> str:
    """Return a value as JSON, the format of values in error texts."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class Causes:
    """The causes of a Status: all problems of an object."""

    def __init__(self) -> None:
        self.found: list[dict[str, str]] = []

    def _add(self, reason: str, field: str, message: str) -> None:
        self.found.append({"reason": reason, "message": message, "field": field})

    def invalid(self, field: str, value: Any, why: str) -> None:
        """Add a value that breaks a rule."""
        self._add("FieldValueInvalid", field, f"Invalid value: {_format_value(value)}: {why}")

    def invalid_part(self, field: str, why: str) -> None:
        """Add a part of an object that breaks a rule, without quoting it."""
        self._add("FieldValueInvalid", field, f"Invalid value: {why}")

    def required(self, field: str, why: str = "") -> None:
        """Add a required value that is missing."""
        self._add("FieldValueRequired", field, "Required value" + (f": {why}" if why else ""))

    def duplicate(self, field: str, value: Any) -> None:
        """Add a value that occurs more than once."""
        self._add("FieldValueDuplicate", field, f"Duplicate value: {_format_value(value)}")

    def too_long(self, field: str, maximum: int) -> None:
        """Add a value with too many bytes."""
        self._add("FieldValueTooLong", field, f"Too long: may not be more than {maximum} bytes")

    def too_many(self, field: str, count: int, maximum: int) -> None:
        """Add a list with too many items."""
        self._add("FieldValueTooMany", field, f"Too many: {count}: must have at most {maximum} items")

    def unsupported(self, field: str, value: Any, supported: Iterable[str]) -> None:
        """Add a value that is not in an enumeration."""
        choices = ", ".join(_format_value(each) for each in supported)
        self._add(
            "FieldValueNotSupported", field, f"Unsupported value: {_format_value(value)}: supported values: {choices}"
        )

    def forbidden(self, field: str, why: str) -> None:
        """Add a field that must not be set or changed."""
        self._add("FieldValueForbidden", field, f"Forbidden: {why}")

    def not_found(self, field: str, value: Any) -> None:
        """Add a reference to a part of the object that does not exist."""
        self._add("FieldValueNotFound", field, f"Not found: {_format_value(value)}")

    def rule(self, rule: Mapping[str, Any], value: Any, field: str) -> None:
        """Check a value against a rule of ``data/rules.yaml``. The file explains the keywords."""
        for keyword, argument in rule.items():
            match keyword:
                case "forbidden":
                    self.forbidden(field, argument)
                case "enum" if value not in argument:
                    self.unsupported(field, value, argument)
                case "format":
                    for problem in name_formats.format_problems(argument, value):
                        self.invalid(field, value, problem)
                case "minimum":
                    self._check_range(value, field, argument, rule.get("maximum"))
                case "unique":
                    self._check_unique(value, field, argument)
                case "maxBytes" if sum(len(key) + len(each) for key, each in value.items()) > argument:
                    self.too_long(field, argument)
                case "items":
                    for index, each in enumerate(value):
                        self.rule(argument, each, f"{field}[{index}]")
                case "propertyNames" | "additionalProperties":
                    for key, each in value.items():
                        path = f"{field}[{key}]" if rule.get("keyed") else field
                        self.rule(argument, key if keyword == "propertyNames" else each, path)

    def _check_range(self, value: Any, field: str, minimum: int, maximum: int | None) -> None:
        number = quantities.parse(value)
        if number >= minimum and (maximum is None or number <= maximum):
            return
        if maximum is None:
            self.invalid(field, value, f"must be greater than or equal to {minimum}")
        else:
            self.invalid(field, value, f"must be between {minimum} and {maximum}, inclusive")

    def _check_unique(self, items: Iterable[Mapping[str, Any]], field: str, key: str) -> None:
        seen: set[Any] = set()
        for index, item in enumerate(items):
            value = item.get(key)
            if value in seen:
                self.duplicate(f"{field}[{index}].{key}", value)
            seen.add(value)

    def raise_if_any(self, kind: Type, name: str = "") -> None:
        """Raise Invalid if there are any causes."""
        if not self.found:
            return
        texts = [f"{cause['field']}: {cause['message']}" for cause in self.found]
        listed = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
        details: dict[str, Any] = {"name": name} if name else {}
        details |= {"group": kind.group} if kind.group else {}
        details |= {"kind": kind.kind, "causes": self.found}
        raise StatusError(422, "Invalid", f'{kind.kind_and_group} "{name}" is invalid: {listed}', details)
