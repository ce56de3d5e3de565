"""Validation rules that involve several fields of the spec of a Job.

The rules and the error texts are those of Kubernetes 1.36.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aksgpu.local import name_formats
from aksgpu.local.api.status_causes import Causes
from aksgpu.local.objects import Object

_MAX_INDEXES = 100_000
"""Largest parallelism and maxFailedIndexes of an Indexed Job."""
_MANY_COMPLETIONS = 100_000
"""Completions above which a Job with limits per index has tighter limits."""
_MAX_WITH_MANY_COMPLETIONS = 10_000
"""Largest parallelism and maxFailedIndexes of a Job above this number of completions."""
_MAX_RULES = 20
"""Maximum number of rules of a policy, and of conditions of a rule."""
_MAX_EXIT_CODES = 255
_MAX_INDEX_BYTES = 64 * 1024
"""Maximum number of bytes of ``succeededIndexes``."""
_MAX_MANAGER_BYTES = 63
"""Maximum number of bytes of ``managedBy``."""

_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
_OPERATORS = ("In", "NotIn")
_STATUSES = ("False", "True", "Unknown")


def check_job(spec: Object, prefix: str, causes: Causes) -> None:
    """Report the problems of the spec of a Job, apart from its selector and template."""
    _limits_per_index(spec, prefix, causes)
    if spec["completionMode"] == "Indexed":
        _indexed(spec, prefix, causes)
    if "podFailurePolicy" in spec:
        _failure_policy(spec, f"{prefix}podFailurePolicy", causes)
    if "successPolicy" in spec:
        _success_policy(spec, f"{prefix}successPolicy", causes)
    replacements = ("Failed",) if "podFailurePolicy" in spec else ("Failed", "TerminatingOrFailed")
    if spec["podReplacementPolicy"] not in replacements:
        causes.unsupported(f"{prefix}podReplacementPolicy", spec["podReplacementPolicy"], replacements)
    restart_policy = spec["template"]["spec"]["restartPolicy"]
    if "podFailurePolicy" in spec and restart_policy != "Never":
        why = 'only "Never" is supported when podFailurePolicy is specified'
        causes.invalid(f"{prefix}template.spec.restartPolicy", restart_policy, why)
    if "managedBy" in spec:
        _manager(spec["managedBy"], f"{prefix}managedBy", causes)


def _limits_per_index(spec: Object, prefix: str, causes: Causes) -> None:
    if "maxFailedIndexes" in spec and "backoffLimitPerIndex" not in spec:
        causes.required(f"{prefix}backoffLimitPerIndex", "when maxFailedIndexes is specified")
    if spec["completionMode"] == "Indexed":
        return
    for field in ("backoffLimitPerIndex", "maxFailedIndexes"):
        if field in spec:
            causes.invalid(f"{prefix}{field}", spec[field], "requires indexed completion mode")


def _indexed(spec: Object, prefix: str, causes: Causes) -> None:
    completions = spec.get("completions")
    max_failed = spec.get("maxFailedIndexes")
    parallelism = spec["parallelism"]
    if completions is None:
        causes.required(f"{prefix}completions", "when completion mode is Indexed")
    if parallelism > _MAX_INDEXES:
        why = f"must be less than or equal to {_MAX_INDEXES} when completion mode is Indexed"
        causes.invalid(f"{prefix}parallelism", parallelism, why)
    if max_failed is not None:
        if completions is not None and max_failed > completions:
            causes.invalid(f"{prefix}maxFailedIndexes", max_failed, "must be less than or equal to completions")
        if max_failed > _MAX_INDEXES:
            causes.invalid(f"{prefix}maxFailedIndexes", max_failed, f"must be less than or equal to {_MAX_INDEXES}")
    if completions is None or completions <= _MANY_COMPLETIONS or "backoffLimitPerIndex" not in spec:
        return
    if max_failed is None:
        why = f"must be specified when completions is above {_MANY_COMPLETIONS}"
        causes.required(f"{prefix}maxFailedIndexes", why)
    why = (
        f"must be less than or equal to {_MAX_WITH_MANY_COMPLETIONS} when completions are above {_MANY_COMPLETIONS} "
        "and used with backoff limit per index"
    )
    for field in ("parallelism", "maxFailedIndexes"):
        if spec.get(field, 0) > _MAX_WITH_MANY_COMPLETIONS:
            causes.invalid(f"{prefix}{field}", spec[field], why)


def _manager(name: str, path: str, causes: Causes) -> None:
    domain, _, rest = name.partition("/")
    if not name:
        causes.required(path)
    elif not domain or not rest:
        causes.invalid(path, name, 'must be a domain-prefixed path (such as "acme.io/foo")')
    else:
        for problem in name_formats.format_problems("subdomain", domain):
            causes.invalid(path, domain, problem)
    if len(name.encode()) > _MAX_MANAGER_BYTES:
        causes.too_long(path, _MAX_MANAGER_BYTES)


# Pod failure policy


def _failure_policy(spec: Object, path: str, causes: Causes) -> None:
    rules = spec["podFailurePolicy"].get("rules") or []
    if len(rules) > _MAX_RULES:
        causes.too_many(f"{path}.rules", len(rules), _MAX_RULES)
    for index, rule in enumerate(rules):
        _failure_rule(spec, rule, f"{path}.rules[{index}]", causes)


def _failure_rule(spec: Object, rule: Object, path: str, causes: Causes) -> None:
    action = rule.get("action")
    if not action:
        causes.required(f"{path}.action", f"valid values: {_quoted(_ACTIONS)}")
    elif action not in _ACTIONS:
        causes.unsupported(f"{path}.action", action, _ACTIONS)
    elif action == "FailIndex" and "backoffLimitPerIndex" not in spec:
        causes.invalid(f"{path}.action", action, "requires the backoffLimitPerIndex to be set")
    conditions = rule.get("onPodConditions", [])
    if "onExitCodes" in rule:
        _exit_codes(spec, rule["onExitCodes"], f"{path}.onExitCodes", causes)
    if len(conditions) > _MAX_RULES:
        causes.too_many(f"{path}.onPodConditions", len(conditions), _MAX_RULES)
    for index, pattern in enumerate(conditions):
        _pod_condition(pattern, f"{path}.onPodConditions[{index}]", causes)
    if "onExitCodes" in rule and conditions:
        causes.invalid_part(path, "specifying both OnExitCodes and OnPodConditions is not supported")
    if "onExitCodes" not in rule and not conditions:
        causes.invalid_part(path, "specifying one of OnExitCodes and OnPodConditions is required")


def _pod_condition(pattern: Mapping[str, Any], path: str, causes: Causes) -> None:
    kind = pattern.get("type", "")
    for problem in name_formats.qualified_name_problems(kind):
        causes.invalid(f"{path}.type", kind, problem)
    if pattern["status"] not in _STATUSES:
        causes.unsupported(f"{path}.status", pattern["status"], _STATUSES)


def _exit_codes(spec: Object, exits: Object, path: str, causes: Causes) -> None:
    operator = exits.get("operator")
    if not operator:
        causes.required(f"{path}.operator", f"valid values: {_quoted(_OPERATORS)}")
    elif operator not in _OPERATORS:
        causes.unsupported(f"{path}.operator", operator, _OPERATORS)
    pod = spec["template"]["spec"]
    names = {each.get("name") for group in ("containers", "initContainers") for each in pod.get(group) or ()}
    if exits.get("containerName") is not None and exits["containerName"] not in names:
        why = "must be one of the container or initContainer names in the pod template"
        causes.invalid(f"{path}.containerName", exits["containerName"], why)
    codes = exits.get("values")
    if not codes:
        causes.invalid(f"{path}.values", codes, "at least one value is required")
        return
    if len(codes) > _MAX_EXIT_CODES:
        causes.too_many(f"{path}.values", len(codes), _MAX_EXIT_CODES)
    seen: set[int] = set()
    for index, code in enumerate(codes):
        if code == 0 and operator == "In":
            causes.invalid(f"{path}.values[{index}]", 0, "must not be 0 for the In operator")
        if code in seen:
            causes.duplicate(f"{path}.values[{index}]", code)
        seen.add(code)
    if codes != sorted(codes):
        causes.invalid(f"{path}.values", codes, "must be ordered")


def _quoted(values: tuple[str, ...]) -> str:
    return "[" + " ".join(f'"{value}"' for value in values) + "]"


# Success policy


def _success_policy(spec: Object, path: str, causes: Causes) -> None:
    policy = spec["successPolicy"]
    if spec["completionMode"] != "Indexed":
        causes.invalid(path, policy, "requires indexed completion mode")
        return
    rules = policy.get("rules") or []
    if not rules:
        causes.required(f"{path}.rules", "at least one rules must be specified when the successPolicy is specified")
    if len(rules) > _MAX_RULES:
        causes.too_many(f"{path}.rules", len(rules), _MAX_RULES)
    if "completions" in spec:  # Missing completions are reported elsewhere.
        for index, rule in enumerate(rules):
            _success_rule(rule, spec["completions"], f"{path}.rules[{index}]", causes)


def _success_rule(rule: Object, completions: int, path: str, causes: Causes) -> None:
    indexes = rule.get("succeededIndexes")
    count = rule.get("succeededCount")
    if indexes is None and count is None:
        causes.required(path, "at least one of succeededCount or succeededIndexes must be specified")
    total = 0
    if indexes is not None:
        if len(indexes.encode()) > _MAX_INDEX_BYTES:
            causes.too_long(f"{path}.succeededIndexes", _MAX_INDEX_BYTES)
        try:
            total = _count_indexes(indexes, completions)
        except ValueError as error:
            causes.invalid(f"{path}.succeededIndexes", indexes, f"error parsing succeededIndexes: {error}")
    if count is None:
        return
    if count < 0:
        causes.invalid(f"{path}.succeededCount", count, "must be greater than or equal to 0")
    if count > completions:
        why = f"must be less than or equal to {completions} (the number of specified completions)"
        causes.invalid(f"{path}.succeededCount", count, why)
    if indexes is not None and count > total:
        why = f"must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
        causes.invalid(f"{path}.succeededCount", count, why)


def _count_indexes(text: str, completions: int) -> int:
    """Return the number of indexes in a text such as ``1,3-5``.

    Raises:
        ValueError: The text is not valid.
    """
    total = 0
    previous: int | None = None
    for part in text.split(",") if text else ():
        limits = part.split("-")
        if len(limits) > 2:
            why = "violates the requirement that an index interval can have at most two parts separated by '-'"
            raise ValueError(f'the fragment "{part}" {why}')
        numbers = [_parse_index(limit, completions) for limit in limits]
        for number in numbers:
            if previous is not None and number <= previous:
                raise ValueError(f"non-increasing order, previous: {previous}, current: {number}")
            previous = number
        total += numbers[-1] - numbers[0] + 1
    return total


def _parse_index(text: str, completions: int) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(f'cannot convert string to integer for index: "{text}"')
    if int(text) >= completions:
        raise ValueError(f'too large index: "{text}"')
    return int(text)
