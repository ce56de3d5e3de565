"""Validation of what is a Job's alone: completion modes, back-off by index, and pod failure policies.

The pods of a Job are the business of :mod:`aksgpu.local.api.podspec`; selectors, labels and updates, which other kinds
have too, that of :mod:`aksgpu.local.api.validation`.
"""

from __future__ import annotations

from typing import Any

from aksgpu.local.api.causes import Causes

Object = dict[str, Any]

_MOST_PARALLEL = 100_000
_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")


def validate(spec: Object, causes: Causes) -> None:
    """Add what is wrong with the spec of a Job, its template aside."""
    _modes(spec, causes)
    policy, replacement = spec.get("podFailurePolicy"), spec["podReplacementPolicy"]
    replacements = ("Failed", "TerminatingOrFailed") if policy is None else ("Failed",)
    if replacement not in replacements:
        causes.unsupported("spec.podReplacementPolicy", replacement, replacements)
    for index, rule in enumerate((policy or {}).get("rules") or ()):
        _rule(rule, spec, f"spec.podFailurePolicy.rules[{index}]", causes)
    if "successPolicy" in spec:
        causes.forbidden("spec.successPolicy", "the laptop does not have success policies")


def _modes(spec: Object, causes: Causes) -> None:
    mode, parallelism = spec["completionMode"], spec.get("parallelism", 1)
    if mode == "Indexed":
        if "completions" not in spec:
            causes.required("spec.completions", "when completion mode is Indexed")
        if parallelism > _MOST_PARALLEL:
            why = f"must be less than or equal to {_MOST_PARALLEL} when completion mode is Indexed"
            causes.invalid("spec.parallelism", parallelism, why)
        return
    if mode != "NonIndexed":
        causes.unsupported("spec.completionMode", mode, ("Indexed", "NonIndexed"))
    for field in ("backoffLimitPerIndex", "maxFailedIndexes"):
        if field in spec:
            causes.invalid(f"spec.{field}", spec[field], "requires indexed completion mode")


def _rule(rule: Object, spec: Object, path: str, causes: Causes) -> None:
    action, codes = rule["action"], rule.get("onExitCodes")
    if action not in _ACTIONS:
        causes.unsupported(f"{path}.action", action, _ACTIONS)
    elif action == "FailIndex" and "backoffLimitPerIndex" not in spec:
        causes.invalid(f"{path}.action", action, "requires the backoffLimitPerIndex to be set")
    if codes is not None:
        _exit_codes(codes, f"{path}.onExitCodes", causes)


def _exit_codes(codes: Object, path: str, causes: Causes) -> None:
    operator, values = codes["operator"], codes.get("values") or []
    if operator not in ("In", "NotIn"):
        causes.unsupported(f"{path}.operator", operator, ("In", "NotIn"))
    if not values:
        causes.invalid(f"{path}.values", values, "at least one value is required")
    for index, value in enumerate(values):
        if value == 0 and operator == "In":
            causes.invalid(f"{path}.values[{index}]", value, "must not be 0 for the In operator")
        if value in values[:index]:
            causes.duplicate(f"{path}.values[{index}]", value)
    if values != sorted(values):
        causes.invalid(f"{path}.values", values, "must be ordered")
