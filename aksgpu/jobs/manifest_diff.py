"""Compare a manifest with the object that the cluster has.

Only fields that the manifest sets are compared, because the server adds defaults. A field that the manifest sets to
null is treated as not set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from aksgpu.common.quantities import parse
from aksgpu.jobs.job_status import JobStatus
from aksgpu.kube.client import Object

__all__ = [
    "applied_before",
    "differences",
    "different_fields",
    "dropped",
    "quantities_as_text",
    "with_applied_manifest",
]

_APPLIED = "aksgpu.dev/applied-configuration"
"""Annotation with the manifest from which this library created an object."""
_KUBECTL_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""The same annotation of kubectl."""
_LONGEST_APPLIED = 200_000
"""Characters of the annotation. Kubernetes allows 256 KiB for all annotations of an object."""

_QUANTITY_MAPS = ("limits", "requests", "overhead")
"""Fields whose values are quantities by resource name."""
_QUANTITY_FIELDS = ("sizeLimit", "storage")
"""Fields whose value is a quantity."""


# Jobs


def with_applied_manifest(manifest: Object) -> Object:
    """Return a copy of a Job's manifest that has the manifest's spec as an annotation.

    A very long spec is left out. Then a field that a later manifest no longer sets is not noticed.
    """
    completed: Object = _copy(manifest)
    applied = json.dumps({"spec": manifest["spec"]}, sort_keys=True)
    if len(applied) < _LONGEST_APPLIED:
        annotations = completed["metadata"].get("annotations") or {}
        completed["metadata"]["annotations"] = {**annotations, _APPLIED: applied}
    return completed


def different_fields(manifest: Object, completed: Object, live: Object) -> list[str]:
    """Return the paths of the fields in which a manifest differs from the Job that exists.

    Args:
        manifest: the Job's manifest.
        completed: the object that would be created: the manifest, with the tolerations that its GPUs need.
        live: the Job object that exists.
    """
    wanted = {"spec": _copy(manifest["spec"])}
    own_tolerations = wanted["spec"]["template"]["spec"].pop("tolerations", None) or []
    fields = [*differences(wanted, live), *dropped(applied_before(live), {"spec": manifest["spec"]})]
    for key in ("labels", "annotations"):
        live_values = live["metadata"].get(key) or {}
        fields += differences(manifest["metadata"].get(key), live_values, f"metadata.{key}")
    # The live Job also has the tolerations that this library added. If some are missing, that matters only while the
    # Job has not started.
    needed = _tolerations(completed) if _has_not_started(live) else own_tolerations
    present = _tolerations(live)
    if any(toleration not in present for toleration in needed):
        fields.append("spec.template.spec.tolerations")
    return list(dict.fromkeys(fields))


def _copy(value: Object) -> Object:
    """Return a copy of JSON values."""
    copied: Object = json.loads(json.dumps(value))
    return copied


def _tolerations(job: Object) -> list[Object]:
    return job["spec"]["template"]["spec"].get("tolerations") or []


def _has_not_started(live: Object) -> bool:
    """Whether the Job waits for its first pod to run."""
    ready = (live.get("status") or {}).get("ready")
    return not ready and not JobStatus.from_objects(live, None).ended


def applied_before(live: Object) -> Object:
    """Return the manifest from which a Job was created, if its annotations have it; empty otherwise."""
    annotations = live["metadata"].get("annotations") or {}
    text = annotations.get(_APPLIED) or annotations.get(_KUBECTL_APPLIED) or "{}"
    try:
        applied = json.loads(text)
    except ValueError:
        # Anybody can write an annotation. The live Job is compared in any case.
        return {}
    spec = applied.get("spec") if isinstance(applied, dict) else None
    return {"spec": spec} if isinstance(spec, dict) else {}


# Any object


def quantities_as_text(value: Any) -> None:
    """Change quantities to the strings that the API defines them as: manifests write ``nvidia.com/gpu: 1``.

    The object is changed in place.
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in _QUANTITY_MAPS and isinstance(inner, dict):
                value[key] = {name: _as_text(quantity) for name, quantity in inner.items()}
            elif key in _QUANTITY_FIELDS:
                value[key] = _as_text(inner)
            else:
                quantities_as_text(inner)
    elif isinstance(value, list):
        for inner in value:
            quantities_as_text(inner)


def _as_text(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


def differences(wanted: Any, live: Any, path: str = "") -> Iterator[str]:
    """Yield the paths of fields in which ``live`` does not have what ``wanted`` sets, such as ``spec.backoffLimit``."""
    if wanted is None or (_is_empty(wanted) and _is_empty(live)):
        return
    if isinstance(wanted, Mapping) and isinstance(live, Mapping):
        for key, value in wanted.items():
            yield from differences(value, live.get(key), f"{path}.{key}" if path else key)
    elif isinstance(wanted, list) and isinstance(live, list) and len(wanted) == len(live):
        for label, item, other in _paired(wanted, live):
            yield from differences(item, other, f"{path}[{label}]")
    elif wanted != live and not _same_quantity(wanted, live, path):
        yield path


def dropped(before: Any, wanted: Any, path: str = "") -> Iterator[str]:
    """Yield the paths of fields that an earlier manifest set and this one does not."""
    if isinstance(before, Mapping) and isinstance(wanted, Mapping):
        for key, value in before.items():
            field = f"{path}.{key}" if path else key
            if wanted.get(key) is not None:
                yield from dropped(value, wanted[key], field)
            elif not _is_empty(value):
                yield field
    elif isinstance(before, list) and isinstance(wanted, list):
        for label, old, new in _paired(before[: len(wanted)], wanted):
            yield from dropped(old, new, f"{path}[{label}]")


def _is_empty(value: Any) -> bool:
    return value in (None, {}, [], "")


def _paired(items: list[Any], others: list[Any]) -> Iterator[tuple[object, Any, Any]]:
    """Yield a label, an item and the matching item of the other list.

    Items that have names are matched by name, others by their position.
    """
    if _have_names(items) and _have_names(others):
        by_name = {str(item["name"]): item for item in others}
        for item in items:
            yield item["name"], item, by_name.get(str(item["name"]))
    else:
        for index, item in enumerate(items):
            yield index, item, others[index]


def _have_names(items: list[Any]) -> bool:
    """Whether each item has a name, and no other item has the same one."""
    names = [str(item["name"]) for item in items if isinstance(item, Mapping) and item.get("name") is not None]
    return len(names) == len(items) == len(set(names))


def _same_quantity(wanted: Any, live: Any, path: str) -> bool:
    """Whether two values are the same quantity, written differently: the server writes 1Gi for 1024Mi."""
    in_map = any(f".{name}." in path for name in _QUANTITY_MAPS)
    if not in_map and not path.endswith(_QUANTITY_FIELDS):
        return False
    try:
        return parse(str(wanted)) == parse(str(live))
    except ValueError:
        return False
