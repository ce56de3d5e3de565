"""The manifest with which a Job that exists can be run again."""

from __future__ import annotations

import json

from aksgpu.jobs.manifest_diff import applied_before
from aksgpu.kube.client import Object

__all__ = ["manifest_of", "without_added_fields"]

_ADDED_LABELS = ("controller-uid", "job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name")
"""Labels that the Job controller adds to the pods."""
_ADDED_METADATA = ("creationTimestamp", "generation", "managedFields", "resourceVersion", "uid", "selfLink")
"""Metadata that the API server adds."""
_OWN_ANNOTATIONS = ("aksgpu.dev/", "kubectl.kubernetes.io/", "batch.kubernetes.io/")
"""Prefixes of annotations that describe this object and would be wrong for another one."""


def manifest_of(live: Object) -> Object:
    """Return the manifest of a Job that exists, without what the cluster added.

    If the Job was created with this library or with ``kubectl apply``, its spec is that of the manifest.

    Args:
        live: the Job object.
    """
    copied: Object = json.loads(json.dumps(live))
    metadata = {key: value for key, value in copied["metadata"].items() if key not in _ADDED_METADATA}
    annotations = metadata.pop("annotations", None) or {}
    kept = {key: value for key, value in annotations.items() if not key.startswith(_OWN_ANNOTATIONS)}
    if kept:
        metadata["annotations"] = kept
    metadata.pop("finalizers", None)
    metadata.pop("ownerReferences", None)
    spec = applied_before(live).get("spec") or _without_added(copied["spec"])
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def without_added_fields(job: Object) -> None:
    """Remove the fields that the cluster added to a Job, so that it can be created again. It is changed in place.

    A Job that was never created has no ``uid`` and no ``resourceVersion``, and stays as it is.

    Args:
        job: the Job, with its metadata.
    """
    metadata = job["metadata"]
    if "uid" not in metadata and "resourceVersion" not in metadata:
        return
    for field in (*_ADDED_METADATA, "ownerReferences"):
        metadata.pop(field, None)
    _remove_added_labels(metadata.get("labels"))
    job.pop("status", None)
    spec = job.get("spec")
    if isinstance(spec, dict):
        _remove_selector(spec)


def _remove_selector(spec: Object) -> None:
    """Remove the selector and the labels of the pods that the API server adds. The spec may be invalid."""
    if not spec.get("manualSelector"):
        spec.pop("selector", None)
    value: object = spec
    for field in ("template", "metadata", "labels"):
        value = value.get(field) if isinstance(value, dict) else None
    _remove_added_labels(value)


def _remove_added_labels(labels: object) -> None:
    if isinstance(labels, dict):
        for name in _ADDED_LABELS:
            labels.pop(name, None)


def _without_added(spec: Object) -> Object:
    """Return a Job's spec without what the cluster added to it, and not suspended."""
    _remove_selector(spec)
    template = spec["template"].get("metadata") or {}
    template.pop("creationTimestamp", None)
    spec.pop("suspend", None)
    return spec
