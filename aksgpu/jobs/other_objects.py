"""The objects of a manifest beside its Job, which are applied before the Job."""

from __future__ import annotations

from collections.abc import Sequence

from aksgpu.errors import InvalidInput, NotFound
from aksgpu.jobs.apply_rules import ONE_JOB
from aksgpu.jobs.other_kinds import explain, served_scope
from aksgpu.kube.client import HasKube, Object
from aksgpu.manifests.load import Manifest, documents
from aksgpu.progress import note

__all__ = ["apply_others", "split_job"]

_SHOWN_KINDS = 10
"""Kinds that the error about a manifest with several objects names."""


def split_job(aks: HasKube, manifest: Manifest) -> tuple[Object, list[Object]]:
    """Return the Job of a manifest, and its other objects in their order.

    Raises:
        InvalidInput: the manifest does not hold exactly one Job, or an object has no kind or no name.
    """
    objects = documents(manifest)
    found = [obj for obj in objects if obj.get("kind") == "Job" and _is_kubernetes(obj)]
    if len(found) == 1:
        others = [obj for obj in objects if obj is not found[0]]
        for obj in others:
            _check_other(obj)
        return found[0], others
    kinds = [_kind_shown(obj) for obj in objects]
    listed = ", ".join(kinds[:_SHOWN_KINDS])
    if len(kinds) > _SHOWN_KINDS:
        listed += f" and {len(kinds) - _SHOWN_KINDS} more"
    message = f"`manifest` must hold exactly one Job, got {listed}"
    if found:
        raise InvalidInput(message, hint=ONE_JOB)
    if not any(obj.get("kind") for obj in objects):
        raise InvalidInput(message, hint="Is `kind: Job` missing? aksgpu.manifests.mnist() is an example.")
    added, hint = explain(aks, [obj for obj in objects if obj.get("kind")])
    raise InvalidInput(message + added, hint=hint)


def _is_kubernetes(obj: Object) -> bool:
    """Return whether a Job is meant as Kubernetes' own. Volcano has a kind of this name too."""
    group = str(obj.get("apiVersion") or "").rpartition("/")[0]
    return "." not in group


def _kind_shown(obj: Object) -> str:
    """Return the kind of an object for an error; with its group, if it is another program's Job."""
    kind = str(obj.get("kind") or "an object without `kind`")
    return f"{kind} of {obj['apiVersion']}" if kind == "Job" and not _is_kubernetes(obj) else kind


def _check_other(obj: Object) -> None:
    kind = obj.get("kind")
    metadata = obj.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not kind or not obj.get("apiVersion") or not name:
        lacks = "kind" if not kind else "apiVersion" if not obj.get("apiVersion") else "metadata.name"
        raise InvalidInput(
            f"`manifest` must have {lacks} in each object, got {kind or 'an object'} without it",
            hint="Each object needs apiVersion, kind and metadata: {name: ...}.",
        )


def apply_others(aks: HasKube, others: Sequence[Object], namespace: str) -> tuple[str, ...]:
    """Apply the objects in their order, and return their kinds and names. A line of output says what was applied.

    Args:
        aks: the cluster.
        others: the objects.
        namespace: the namespace of those that name none.

    Raises:
        NotFound: the cluster does not have a kind; no object was applied.
    """
    for obj in others:
        try:
            has_namespace = served_scope(aks, obj)
        except NotFound as missing:
            missing.message += "; nothing was applied"
            missing.args = (missing.message,)
            _, missing.hint = explain(aks, [obj])
            raise
        if has_namespace is not False:
            # Without a namespace of its own, an object belongs beside the Job.
            obj["metadata"].setdefault("namespace", namespace)
    applied = []
    for obj in others:
        aks.kube.apply(obj)
        applied.append(f"{obj['kind']} {obj['metadata']['name']}")
    if applied:
        note(f"Applied {', '.join(applied)}.")
    return tuple(applied)
