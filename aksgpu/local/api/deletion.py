"""Deletion: at once, after a grace period, or once all finalizers are removed.

These functions decide what happens to an object, and do not write it. Controllers collect garbage and delete the
content of namespaces. They use finalizers for that.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from aksgpu.common.times import now
from aksgpu.local.api.admission import PROTECTED_NAMESPACES, forbidden
from aksgpu.local.api.status_causes import Causes
from aksgpu.local.kinds import DELETE_OPTIONS, Kind
from aksgpu.local.objects import Object
from aksgpu.local.status_error import conflict

MAX_GRACE = 10**9
"""Longest grace period, in seconds. It is about 30 years, so that a timestamp can hold the result."""

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
_POLICIES = ("Foreground", "Background", "Orphan")
_JOB_WARNING = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set "
    "propagationPolicy=Orphan to suppress this warning"
)


def check_delete_options(kind: Kind, obj: Object, options: Mapping[str, Any]) -> None:
    """Raise unless this object may be deleted with these DeleteOptions."""
    metadata = obj["metadata"]
    name = obj["metadata"]["name"]
    if kind.plural == "namespaces" and name in PROTECTED_NAMESPACES:
        raise forbidden(kind, name, "this namespace may not be deleted")
    policy = options.get("propagationPolicy")
    causes = Causes()
    if policy is not None and options.get("orphanDependents") is not None:
        causes.invalid("propagationPolicy", policy, "orphanDependents and deletionPropagation cannot be both set")
    elif policy not in (None, *_POLICIES):
        causes.unsupported("propagationPolicy", policy, (*_POLICIES, "nil"))
    causes.raise_if_any(DELETE_OPTIONS)
    expected = options.get("preconditions") or {}
    check_precondition(kind, metadata, "uid", "UID", expected.get("uid"))
    check_precondition(kind, metadata, "resourceVersion", "ResourceVersion", expected.get("resourceVersion"))


def check_precondition(kind: Kind, metadata: Object, field: str, label: str, expected: str | None) -> None:
    """Raise Conflict if a field of the object is not what the request requires."""
    if expected and expected != metadata[field]:
        why = f"Precondition failed: {label} in precondition: {expected}, {label} in object meta: {metadata[field]}"
        raise conflict(kind.plural, metadata["name"], why, kind.group)


def start_deletion(kind: Kind, old: Object, options: Mapping[str, Any], warnings: list[str]) -> Object | None:
    """Return the object with its deletion timestamp, or None if it is deleted at once.

    A pod always gets a timestamp, also if the next write removes it.
    """
    obj = {**old, "metadata": copy.deepcopy(old["metadata"])}
    metadata = obj["metadata"]
    metadata["finalizers"] = _remaining_finalizers(kind, metadata, options, warnings)
    if not metadata["finalizers"]:
        del metadata["finalizers"]
    grace = _grace_seconds(kind, old, options)
    if grace == 0 and kind.plural != "pods" and not _has_finalizers(kind, obj):
        return None
    is_marked = "deletionTimestamp" in metadata
    if not is_marked and metadata.get("generation"):
        metadata["generation"] += 1
    if not is_marked or grace < metadata.get("deletionGracePeriodSeconds", 0):
        metadata["deletionTimestamp"] = now(grace)
        if kind.plural == "namespaces":
            obj["status"] = {**obj["status"], "phase": "Terminating"}
        else:
            metadata["deletionGracePeriodSeconds"] = grace
    return obj


def is_complete(kind: Kind, obj: Object) -> bool:
    """Return whether an object that is being deleted has no grace period and no finalizers left."""
    metadata = obj["metadata"]
    is_due = "deletionTimestamp" in metadata and not metadata.get("deletionGracePeriodSeconds")
    return is_due and not _has_finalizers(kind, obj)


def _has_finalizers(kind: Kind, obj: Object) -> bool:
    if obj["metadata"].get("finalizers"):
        return True
    return kind.plural == "namespaces" and bool(obj["spec"].get("finalizers"))


def _remaining_finalizers(kind: Kind, metadata: Object, options: Mapping[str, Any], warnings: list[str]) -> list[str]:
    """Return the finalizers of an object after its deletion has begun."""
    policy = options.get("propagationPolicy")
    if policy is None and options.get("orphanDependents") is not None:
        policy = "Orphan" if options["orphanDependents"] else "Background"
    kept = list(metadata.get("finalizers") or ())
    if policy is None:
        if kind.plural != "jobs" or "deletionTimestamp" in metadata or FOREGROUND in kept or ORPHAN in kept:
            return kept
        # Jobs are the only kind whose dependents are orphaned by default, as in Kubernetes.
        warnings.append(_JOB_WARNING)
        policy = "Orphan"
    kept = [each for each in kept if each not in (FOREGROUND, ORPHAN)]
    if policy == "Foreground":
        kept.append(FOREGROUND)
    elif policy == "Orphan":
        kept.append(ORPHAN)
    return kept


def _grace_seconds(kind: Kind, obj: Object, options: Mapping[str, Any]) -> int:
    """Return a pod's grace period in seconds; 0 for other kinds and for pods that do not run."""
    if (
        kind.plural != "pods"
        or not obj["spec"].get("nodeName")
        or obj["status"].get("phase") in ("Succeeded", "Failed")
    ):
        return 0
    seconds = options.get("gracePeriodSeconds")
    metadata = obj["metadata"]
    if seconds is None and "deletionTimestamp" in metadata:
        seconds = metadata.get("deletionGracePeriodSeconds", 0)
    elif seconds is None:
        seconds = obj["spec"].get("terminationGracePeriodSeconds", 30)
    # Kubernetes treats a negative number as one second. Zero would kill the containers at once.
    return 1 if int(seconds) < 0 else min(int(seconds), MAX_GRACE)
