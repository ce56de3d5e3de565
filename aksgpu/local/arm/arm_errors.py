"""Errors of Resource Manager, with the texts of ``refusals.yaml``.

Azure Resource Manager wraps an error in ``{"error": {...}}``. The AKS resource provider behind it sends the error's
fields at the top level. The laptop sends each error in the form that Azure uses for it.
"""

from __future__ import annotations

from typing import Any

from aksgpu.local.arm.reference_data import SUBSCRIPTION, table


class ArmError(Exception):
    """An error response.

    Args:
        status: the HTTP status.
        code: Azure's error code.
        message: Azure's text.
        flat: whether the AKS resource provider sends it, so that the body is not wrapped.
        target: the field that caused the error; empty if the error names none.

    Attributes:
        headers: further headers of the response.
    """

    def __init__(self, status: int, code: str, message: str, *, flat: bool = False, target: str = "") -> None:
        super().__init__(f"({code}) {message}")
        self.status = status
        self.code = code
        self.message = message
        self.flat = flat
        self.target = target
        self.headers: dict[str, str] = {}

    def body(self) -> dict[str, Any]:
        """Return the response's body."""
        target = {"target": self.target} if self.target else {}
        if self.flat:
            return {"code": self.code, "details": None, "message": self.message, "subcode": "", **target}
        return {"error": {"code": self.code, "message": self.message, **target}}


def refuse_if(condition: object, name: str, /, **facts: Any) -> None:
    """Raise the error of this name if the condition is true; see :func:`refusal`."""
    if condition:
        raise refusal(name, **facts)


def refusal(name: str, /, **facts: Any) -> ArmError:
    """Return the error with this name in ``refusals.yaml``. The facts fill the placeholders of its text."""
    sections = table("refusals")
    if name in sections["values"]:
        ((field, why),) = sections["values"][name].items()
        return refusal("invalid", field=field, why=why.format(**facts))
    flat = name in sections["aks"]
    row = sections["aks"][name] if flat else (sections["azure"] | sections["faults"])[name]
    status, code, message = row[:3]
    target = row[3] if len(row) > 3 else ""
    facts["subscription"] = SUBSCRIPTION
    return ArmError(status, code, message.format(**facts), flat=flat, target=target.format(**facts))
