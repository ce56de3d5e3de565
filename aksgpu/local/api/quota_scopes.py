"""Scopes of ResourceQuotas: the pods to which a quota applies."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from aksgpu.local.api.status_causes import Causes
from aksgpu.local.api.strategy import qos_class
from aksgpu.local.objects import Object
from aksgpu.local.selectors import requirement_matches

_COMPUTE = ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
"""Resources of pods that a quota with scopes can limit, besides their number and extended resources."""


def _is_terminating(pod: Object) -> bool:
    return "activeDeadlineSeconds" in pod["spec"]


def _is_best_effort(pod: Object) -> bool:
    return bool((pod.get("status") or {}).get("qosClass", qos_class(pod["spec"])) == "BestEffort")


_SCOPES: dict[str, Callable[[Object], bool]] = {
    "Terminating": _is_terminating,
    "NotTerminating": lambda pod: not _is_terminating(pod),
    "BestEffort": _is_best_effort,
    "NotBestEffort": lambda pod: not _is_best_effort(pod),
}
"""Functions that return whether a pod is in a scope, for scopes without values."""
_PRIORITY_CLASS = "PriorityClass"
_OPPOSITES = (("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating"))


def has_scopes(spec: Object) -> bool:
    """Return whether a quota applies only to some of the pods."""
    return bool(spec.get("scopes") or spec.get("scopeSelector"))


def requirements(spec: Object) -> list[Object]:
    """Return the scopes of a quota as requirements."""
    plain = [{"scopeName": scope, "operator": "Exists"} for scope in spec.get("scopes") or ()]
    return [*plain, *((spec.get("scopeSelector") or {}).get("matchExpressions") or ())]


def matches(spec: Object, plural: str, obj: Object) -> bool:
    """Return whether a quota applies to an object. A quota with scopes applies to the pods that are in all of them."""
    required = requirements(spec)
    if not required:
        return True
    return plural == "pods" and all(_is_in_scope(each, obj) for each in required)


def _is_in_scope(requirement: Object, pod: Object) -> bool:
    scope = requirement["scopeName"]
    if scope != _PRIORITY_CLASS:
        return scope in _SCOPES and _SCOPES[scope](pod)
    name = pod["spec"].get("priorityClassName")
    return requirement_matches(requirement.get("operator", ""), name or None, requirement.get("values", ()))


def check_scopes(spec: Object, prefix: str, causes: Causes) -> None:
    """Report the problems of the scopes of a quota."""
    scopes = spec.get("scopes") or []
    hard = spec.get("hard") or {}
    for scope in scopes:
        for why in _scope_problems(scope, hard):
            causes.invalid(f"{prefix}scopes", scopes, why)
    for pair in _OPPOSITES:
        if set(pair) <= set(scopes):
            causes.invalid(f"{prefix}scopes", scopes, "conflicting scopes")
    for requirement in (spec.get("scopeSelector") or {}).get("matchExpressions") or ():
        path = f"{prefix}scopeSelector.matchExpressions"
        for why in _scope_problems(requirement.get("scopeName"), hard):
            causes.invalid(f"{path}.scopeName", requirement.get("scopeName"), why)
        _check_operator(requirement, path, causes)


def _scope_problems(scope: Any, hard: Iterable[str]) -> list[str]:
    if scope not in (*_SCOPES, _PRIORITY_CLASS):
        return ["unsupported scope"]
    allowed = ("pods",) if scope == "BestEffort" else ("pods", *_COMPUTE)
    standard = [name for name in hard if "/" not in name]
    return ["unsupported scope applied to resource" for name in standard if name not in allowed]


def _check_operator(requirement: Object, path: str, causes: Causes) -> None:
    operator = requirement.get("operator")
    values = requirement.get("values") or []
    if requirement.get("scopeName") in _SCOPES and operator != "Exists":
        why = (
            "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, "
            "ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or "
            "ResourceQuotaScopeCrossNamespacePodAffinity"
        )
        causes.invalid(f"{path}.operator", operator, why)
    if operator in ("In", "NotIn"):
        if not values:
            why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
            causes.required(f"{path}.values", why)
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
            causes.invalid(f"{path}.values", values, why)
    else:
        causes.invalid(f"{path}.operator", operator, "not a valid selector operator")
