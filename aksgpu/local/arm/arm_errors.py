"""Refusals of the laptop's Resource Manager, in Azure's words (``refusals.yaml``) and Azure's two body shapes.

The front door of Azure Resource Manager wraps an error in ``{"error": {...}}``; the AKS resource provider behind it
answers flat. Clients meet both, so the laptop gives both where Azure does.
"""

from __future__ import annotations

from typing import Any

from aksgpu.local.arm.reference_data import SUBSCRIPTION, table


class ArmError(Exception):
    """A refusal.

    Args:
        status: the HTTP status.
        code: Azure's error code.
        message: Azure's text.
        flat: whether the AKS resource provider says it, whose bodies are not wrapped.
        target: the field at fault, where AKS names one.
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
        """The answer's body."""
        target = {"target": self.target} if self.target else {}
        if self.flat:
            return {"code": self.code, "details": None, "message": self.message, "subcode": "", **target}
        return {"error": {"code": self.code, "message": self.message, **target}}


def refuse_if(wrong: object, name: str, /, **facts: Any) -> None:
    """Refuse if this is so; raises ArmError."""
    if wrong:
        raise refusal(name, **facts)


def refusal(name: str, /, **facts: Any) -> ArmError:
    """The refusal that ``refusals.yaml`` has under this name, filled in with the facts."""
    rows = table("refusals")
    if name in rows["values"]:
        ((field, why),) = rows["values"][name].items()
        return refusal("invalid", field=field, why=why.format(**facts))
    flat = name in rows["aks"]
    status, code, *texts = rows["aks" if flat else "azure"][name]
    message, target = (text.format(subscription=SUBSCRIPTION, **facts) for text in (*texts, "")[:2])
    return ArmError(status, code, message, flat=flat, target=target)
