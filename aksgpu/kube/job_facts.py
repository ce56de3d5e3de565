"""Conditions of Job objects. Sends no requests."""

from __future__ import annotations

from aksgpu.common.kubernetes_objects import Object

__all__ = ["end_condition", "true_conditions"]


def true_conditions(job: Object) -> dict[str, Object]:
    """Return the conditions of a Job whose status is True, by type."""
    conditions = (job.get("status") or {}).get("conditions") or ()
    return {condition["type"]: condition for condition in conditions if condition["status"] == "True"}


def end_condition(job: Object) -> Object | None:
    """Return the condition with which a Job has ended, of the type Complete or Failed; None if it has not ended."""
    conditions = true_conditions(job)
    return conditions.get("Complete") or conditions.get("Failed")
