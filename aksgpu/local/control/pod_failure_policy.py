"""The pod failure policy of a Job: the consequence of a failed pod."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from aksgpu.local.objects import Object


class FailureMatch(NamedTuple):
    """The rule of a pod failure policy that a failed pod matches."""

    action: str
    """``Count``, ``FailIndex``, ``FailJob`` or ``Ignore``. It is ``Count`` if no rule matches."""
    message: str
    """The reason why the rule matches; empty if no rule matches."""


def match_failure_policy(job: Object, pod: Object) -> FailureMatch:
    """Return the result of the Job's pod failure policy for a failed pod. The first matching rule applies."""
    for number, rule in enumerate((job["spec"].get("podFailurePolicy") or {}).get("rules") or ()):
        reason = _matches(rule, pod)
        if reason:
            return FailureMatch(rule["action"], f"{reason} matching {rule['action']} rule at index {number}")
    return FailureMatch("Count", "")


def _matches(rule: Mapping[str, Any], pod: Object) -> str:
    name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    status = pod.get("status") or {}
    codes = rule.get("onExitCodes")
    if codes:
        for container in (*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())):
            code = ((container.get("state") or {}).get("terminated") or {}).get("exitCode", 0)
            is_named = codes.get("containerName") in (None, container["name"])
            if code and is_named and (code in codes["values"]) == (codes["operator"] == "In"):
                return f"Container {container['name']} for pod {name} failed with exit code {code}"
        return ""
    for condition in status.get("conditions") or ():
        for pattern in rule.get("onPodConditions") or ():
            if (condition["type"], condition["status"]) == (pattern["type"], pattern.get("status", "True")):
                return f"Pod {name} has condition {pattern['type']}"
    return ""
