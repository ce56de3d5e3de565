"""Checks of the arguments of functions that talk to Azure. They run before a request is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aksgpu.azure.subscription import Azure
from aksgpu.common.arguments import flag, shown
from aksgpu.errors import InvalidInput
from aksgpu.waiting import check_timeout

__all__ = [
    "CHECKS",
    "check_azure",
    "check_choice",
    "check_text",
    "check_text_list",
    "check_text_mapping",
]


def check_azure(value: object) -> None:
    """Raise InvalidInput unless the argument ``azure`` is a subscription."""
    if isinstance(value, Azure):
        return
    hint = "Call azure = aksgpu.connect() to get a subscription."
    if getattr(value, "has_azure", False):
        hint = "Pass the cluster's subscription, aks.azure."
    raise InvalidInput(f"`azure` must be a subscription from aksgpu.connect(), got {shown(value)}", hint=hint)


def check_choice(value: object, argument: str, choices: tuple[str, ...]) -> str:
    """Return an argument that must be one of several strings."""
    if isinstance(value, str) and value in choices:
        return value
    listed = " or ".join(map(repr, choices))
    raise InvalidInput(
        f"`{argument}` must be {listed}, got {shown(value)}", hint=f"For example: {argument}={choices[0]!r}."
    )


def check_text(value: object, argument: str, example: str) -> str:
    """Return an argument that must be a string with at least one visible character."""
    if isinstance(value, str) and value.strip() and value.isprintable():
        return value
    raise InvalidInput(
        f"`{argument}` must be a string, got {shown(value)}", hint=f"For example: {argument}={example!r}."
    )


def check_text_list(value: object, argument: str) -> list[str]:
    """Return an argument that must be a list of strings or integers, as strings. A single string is a list of one."""
    hint = f'For example: {argument}=["1"].'
    if value is None:
        return []
    if isinstance(value, str):
        value = [value]
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise InvalidInput(f"`{argument}` must be a list of strings, got {shown(value)}", hint=hint)
    items = list(value)
    for item in items:
        is_text = isinstance(item, str | int) and not isinstance(item, bool)
        if not is_text or item == "" or not str(item).isprintable():
            raise InvalidInput(f"`{argument}` must be a list of strings, got an item {shown(item)}", hint=hint)
    return [str(item) for item in items]


def check_text_mapping(value: object, argument: str) -> dict[str, str]:
    """Return an argument that must be a mapping of names to strings; empty for None."""
    if value is None:
        return {}
    if isinstance(value, Mapping) and all(_is_unicode(name) and _is_unicode(text) for name, text in value.items()):
        return dict(value)
    raise InvalidInput(
        f"`{argument}` must map names to strings, got {shown(value)}",
        hint=f'For example: {argument}={{"team": "research"}}.',
    )


def _is_unicode(value: object) -> bool:
    """Return whether a value is a string that UTF-8 can encode: one without lone surrogates."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


CHECKS: dict[str, Callable[[Any], object]] = {
    "azure": check_azure,
    "timeout": check_timeout,
    "progress": lambda value: flag("progress", value, optional=True),
    "delete_group": lambda value: flag("delete_group", value, optional=True),
    "preflight": lambda value: flag("preflight", value),
    "spot": lambda value: flag("spot", value),
    "needs_gpu": lambda value: flag("needs_gpu", value),
    "admin": lambda value: flag("admin", value),
    "autoscaler": lambda value: flag("autoscaler", value),
    "overwrite_existing": lambda value: flag("overwrite_existing", value),
    "missing": lambda value: check_choice(value, "missing", ("warn", "error")),
}
"""Checks of the arguments that mean the same in every function, by name. The cluster package adds ``aks``."""
