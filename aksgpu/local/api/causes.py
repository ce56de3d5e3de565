"""Failed validations as the API reports them: one 422 with a cause a field."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from aksgpu.local.api.kinds import Kind
from aksgpu.local.status import StatusError


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

    def too_long(self, field: str, why: str) -> None:
        """More than fits."""
        self._add("FieldValueTooLong", field, f"Too long: {why}")

    def check(self, kind: Kind, name: str) -> None:
        """Raise Invalid when anything was found."""
        if not self.found:
            return
        texts = [f"{cause['field']}: {cause['message']}" for cause in self.found]
        listed = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
        details: dict[str, Any] = {"name": name} if name else {}
        details |= {"group": kind.group} if kind.group else {}
        details |= {"kind": kind.kind, "causes": self.found}
        raise StatusError(422, "Invalid", f'{kind.qualified_kind} "{name}" is invalid: {listed}', details)
