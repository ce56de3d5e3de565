"""What is wrong with an object's values: rules of single fields, and one 422 with a cause a field."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from aksgpu.common import quantities
from aksgpu.local import name_formats
from aksgpu.local.kinds import Type
from aksgpu.local.status_error import StatusError


def _format_value(value: Any) -> str:
    """A value as the server prints it: quoted text, plain numbers, JSON for the rest."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class Causes:
    """Collects what is wrong with an object, so that all of it is told at once."""

    def __init__(self) -> None:
        self.found: list[dict[str, str]] = []

    def _add(self, reason: str, field: str, message: str) -> None:
        self.found.append({"reason": reason, "message": message, "field": field})

    def invalid(self, field: str, value: Any, why: str) -> None:
        """A value that breaks a rule."""
        self._add("FieldValueInvalid", field, f"Invalid value: {_format_value(value)}: {why}")

    def required(self, field: str, why: str = "") -> None:
        """A value that must be there."""
        self._add("FieldValueRequired", field, "Required value" + (f": {why}" if why else ""))

    def duplicate(self, field: str, value: Any) -> None:
        """A value that may occur once."""
        self._add("FieldValueDuplicate", field, f"Duplicate value: {_format_value(value)}")

    def too_long(self, field: str, most: int) -> None:
        """A value of too many bytes."""
        self._add("FieldValueTooLong", field, f"Too long: may not be more than {most} bytes")

    def unsupported(self, field: str, value: Any, supported: Iterable[str]) -> None:
        """A value outside an enumeration."""
        choices = ", ".join(_format_value(each) for each in supported)
        self._add(
            "FieldValueNotSupported", field, f"Unsupported value: {_format_value(value)}: supported values: {choices}"
        )

    def forbidden(self, field: str, why: str) -> None:
        """A field that may not be set or changed."""
        self._add("FieldValueForbidden", field, f"Forbidden: {why}")

    def not_found(self, field: str, value: Any) -> None:
        """A reference into the object that leads nowhere."""
        self._add("FieldValueNotFound", field, f"Not found: {_format_value(value)}")

    def rule(self, rule: Mapping[str, Any], value: Any, field: str) -> None:
        """A value that may break a rule of ``data/rules.yaml``, where the words are explained."""
        for word, argument in rule.items():
            match word:
                case "forbidden":
                    self.forbidden(field, argument)
                case "enum" if value not in argument:
                    self.unsupported(field, value, argument)
                case "format":
                    for problem in name_formats.format_problems(argument, value):
                        self.invalid(field, value, problem)
                case "minimum":
                    number = quantities.parse(value)
                    most = rule.get("maximum")
                    if number < argument or (most is not None and number > most):
                        why = (
                            f"greater than or equal to {argument}"
                            if most is None
                            else f"between {argument} and {most}, inclusive"
                        )
                        self.invalid(field, value, f"must be {why}")
                case "unique":
                    seen: set[Any] = set()
                    for index, key in enumerate(each.get(argument) for each in value):
                        if key in seen:
                            self.duplicate(f"{field}[{index}].{argument}", key)
                        seen.add(key)
                case "maxBytes" if sum(len(key) + len(each) for key, each in value.items()) > argument:
                    self.too_long(field, argument)
                case "items":
                    for index, each in enumerate(value):
                        self.rule(argument, each, f"{field}[{index}]")
                case "propertyNames" | "additionalProperties":
                    for key, each in value.items():
                        here = f"{field}[{key}]" if rule.get("keyed") else field
                        self.rule(argument, key if word == "propertyNames" else each, here)

    def check(self, kind: Type, name: str = "") -> None:
        """Raise Invalid when anything was found."""
        if not self.found:
            return
        texts = [f"{cause['field']}: {cause['message']}" for cause in self.found]
        listed = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
        details: dict[str, Any] = {"name": name} if name else {}
        details |= {"group": kind.group} if kind.group else {}
        details |= {"kind": kind.kind, "causes": self.found}
        raise StatusError(422, "Invalid", f'{kind.kind_and_group} "{name}" is invalid: {listed}', details)
