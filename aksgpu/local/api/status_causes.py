"""What is wrong with an object's values: rules of single fields, and one 422 with a cause a field."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from aksgpu.common import quantities
from aksgpu.local.api import name_formats
from aksgpu.local.kinds import Type
from aksgpu.local.status_error import StatusError


def _shown(value: Any) -> str:
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
        self._add("FieldValueInvalid", field, f"Invalid value: {_shown(value)}: {why}")

    def required(self, field: str, why: str = "") -> None:
        """A value that must be there."""
        self._add("FieldValueRequired", field, "Required value" + (f": {why}" if why else ""))

    def duplicate(self, field: str, value: Any) -> None:
        """A value that may occur once."""
        self._add("FieldValueDuplicate", field, f"Duplicate value: {_shown(value)}")

    def too_long(self, field: str, most: int) -> None:
        """A value of too many bytes."""
        self._add("FieldValueTooLong", field, f"Too long: may not be more than {most} bytes")

    def unsupported(self, field: str, value: Any, supported: Iterable[str]) -> None:
        """A value outside an enumeration."""
        choices = ", ".join(_shown(each) for each in supported)
        self._add("FieldValueNotSupported", field, f"Unsupported value: {_shown(value)}: supported values: {choices}")

    def forbidden(self, field: str, why: str) -> None:
        """A field that may not be set or changed."""
        self._add("FieldValueForbidden", field, f"Forbidden: {why}")

    def not_found(self, field: str, value: Any) -> None:
        """A reference into the object that leads nowhere."""
        self._add("FieldValueNotFound", field, f"Not found: {_shown(value)}")

    def rule(self, rule: Mapping[str, Any], value: Any, field: str) -> None:
        """A value that may break a rule of ``data/rules.yaml``, where the words are explained."""
        for word, said in rule.items():
            match word:
                case "forbidden":
                    self.forbidden(field, said)
                case "enum" if value not in said:
                    self.unsupported(field, value, said)
                case "format":
                    for problem in name_formats.problems(said, value):
                        self.invalid(field, value, problem)
                case "minimum":
                    number = quantities.parse(value)
                    most = rule.get("maximum")
                    if number < said or (most is not None and number > most):
                        why = (
                            f"greater than or equal to {said}"
                            if most is None
                            else f"between {said} and {most}, inclusive"
                        )
                        self.invalid(field, value, f"must be {why}")
                case "unique":
                    seen: set[Any] = set()
                    for index, key in enumerate(each.get(said) for each in value):
                        if key in seen:
                            self.duplicate(f"{field}[{index}].{said}", key)
                        seen.add(key)
                case "maxBytes" if sum(len(key) + len(each) for key, each in value.items()) > said:
                    self.too_long(field, said)
                case "items":
                    for index, each in enumerate(value):
                        self.rule(said, each, f"{field}[{index}]")
                case "propertyNames" | "additionalProperties":
                    for key, each in value.items():
                        here = f"{field}[{key}]" if rule.get("keyed") else field
                        self.rule(said, key if word == "propertyNames" else each, here)

    def check(self, kind: Type, name: str = "") -> None:
        """Raise Invalid when anything was found."""
        if not self.found:
            return
        texts = [f"{cause['field']}: {cause['message']}" for cause in self.found]
        listed = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
        details: dict[str, Any] = {"name": name} if name else {}
        details |= {"group": kind.group} if kind.group else {}
        details |= {"kind": kind.kind, "causes": self.found}
        raise StatusError(422, "Invalid", f'{kind.qualified_kind} "{name}" is invalid: {listed}', details)
