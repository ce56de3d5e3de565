"""Arguments of the calls that talk to Azure, checked before anything is sent."""

from __future__ import annotations

from typing import Any

from aksgpu.azure.resource_names import shown
from aksgpu.azure.subscription import Azure
from aksgpu.errors import InvalidInput
from aksgpu.waiting import check_timeout


def check_azure(value: object) -> None:
    """The argument ``azure`` must be a subscription."""
    if isinstance(value, Azure):
        return
    hint = "Make one with azure = aksgpu.connect()."
    if getattr(value, "has_azure", False):
        hint = "Pass the subscription, which is aks.azure for this cluster."
    raise InvalidInput(f"`azure` must be a subscription from aksgpu.connect(), got {shown(value)}", hint=hint)


def check_choice(value: object, argument: str, choices: tuple[str, ...]) -> None:
    """An argument that must be one of a few words."""
    if isinstance(value, str) and value in choices:
        return
    listed = " or ".join(map(repr, choices))
    raise InvalidInput(
        f"`{argument}` must be {listed}, got {shown(value)}", hint=f"For example: {argument}={choices[0]!r}."
    )


def check_flag(value: object, argument: str, *, optional: bool = False) -> None:
    """An argument that must be True or False, or None where it is optional."""
    if isinstance(value, bool) or (optional and value is None):
        return
    wanted = "True, False or None" if optional else "True or False"
    raise InvalidInput(f"`{argument}` must be {wanted}, got {shown(value)}", hint=f"For example: {argument}=True.")


def check_text(value: object, argument: str, example: str) -> None:
    """An argument that must be a text, or None where nothing is asked for."""
    if value is None or (isinstance(value, str) and value.strip() and value.isprintable()):
        return
    raise InvalidInput(f"`{argument}` must be a text, got {shown(value)}", hint=f"For example: {argument}={example!r}.")


CHECKS: dict[str, Any] = {
    "azure": check_azure,
    "timeout": check_timeout,
    "progress": lambda value: check_flag(value, "progress", optional=True),
    "delete_group": lambda value: check_flag(value, "delete_group", optional=True),
    "preflight": lambda value: check_flag(value, "preflight"),
    "spot": lambda value: check_flag(value, "spot"),
    "gpu": lambda value: check_flag(value, "gpu"),
    "admin": lambda value: check_flag(value, "admin"),
    "autoscaler": lambda value: check_flag(value, "autoscaler"),
    "overwrite_existing": lambda value: check_flag(value, "overwrite_existing"),
    "missing": lambda value: check_choice(value, "missing", ("warn", "error")),
}
"""Checks of the arguments that mean the same in every call, by name. The cluster package adds ``aks``."""
