"""Validation of whole objects.

Rules for single fields are in ``data/rules.yaml`` and are checked while an object is decoded. This module checks names,
whose format depends on the kind, rules that involve several parts of an object, and what an update must not change.
"""

from __future__ import annotations

from collections.abc import Collection

from aksgpu.common import quantities
from aksgpu.local import api_data, name_formats
from aksgpu.local.api.deletion import FOREGROUND, ORPHAN
from aksgpu.local.api.status_causes import Causes
from aksgpu.local.kinds import Kind
from aksgpu.local.objects import Object
from aksgpu.local.selectors import get_path, labels_match

_IMMUTABLE = "field is immutable"
_MUTABLE_WHILE_SUSPENDED = ("nodeSelector", "tolerations", "affinity", "schedulingGates")
"""Fields of the template that may change while a Job is suspended, besides its metadata and containers' resources."""
_FIXED_IN_JOBS = ("completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy")
"""Fields of a Job's spec that must not change, apart from those with rules of their own."""
_MAX_PRIORITY = 1_000_000_000


def validate(kind: Kind, obj: Object, given: Causes) -> Causes:
    """Return the problems of an object, including those that were found while its fields were decoded (``given``)."""
    causes = Causes()
    name = obj["metadata"].get("name", "")
    prefix = obj["metadata"].get("generateName") or ""
    for problem in name_formats.format_problems(kind.name_format, _masked(prefix)) if prefix else ():
        causes.invalid("metadata.generateName", prefix, problem)
    if not name:
        causes.required("metadata.name", "name or generateName is required")
    else:
        for problem in name_formats.format_problems(kind.name_format, name):
            causes.invalid("metadata.name", name, problem)
    # The status is written by controllers and is not checked.
    causes.found += [each for each in given.found if not each["field"].startswith("status.")]
    _owner_references(obj["metadata"].get("ownerReferences", []), causes)
    finalizers = obj["metadata"].get("finalizers") or []
    if {ORPHAN, FOREGROUND} <= set(finalizers):
        causes.invalid("metadata.finalizers", finalizers, f"finalizer {ORPHAN} and {FOREGROUND} cannot be both set")
    match kind.plural:
        case "jobs":
            _job(obj, causes)
        case "priorityclasses":
            _priority_class(obj, name, causes)
        case "persistentvolumeclaims":
            _volume_claim(obj["spec"], causes)
        case "daemonsets":
            _daemon_set(obj["spec"], causes)
    return causes


def _masked(prefix: str) -> str:
    """Return a prefix of names with a letter in place of the hyphen at its end, as Kubernetes checks it."""
    return f"{prefix[:-2]}a" if prefix.endswith("-") and len(prefix) > 1 else prefix


def _owner_references(references: list[Object], causes: Causes) -> None:
    controllers = [f"{each.get('kind')}/{each.get('name')}" for each in references if each.get("controller")]
    if len(controllers) > 1:
        why = 'Only one reference can have Controller set to true. Found "true" in references for'
        causes.invalid("metadata.ownerReferences", references, f"{why} {' and '.join(controllers[:2])}")
    for each in references:
        if (each.get("apiVersion"), each.get("kind")) == ("v1", "Event"):
            causes.invalid("metadata.ownerReferences", each, "/v1, Kind=Event is disallowed from being an owner")


def _priority_class(priority_class: Object, name: str, causes: Causes) -> None:
    if name in api_data.load("rules.yaml")["initialObjects"]["priorityclasses"]:
        return
    if name.startswith("system-"):
        why = "priority class names with 'system-' prefix are reserved for system use only"
        causes.forbidden("metadata.name", why)
    if priority_class["value"] > _MAX_PRIORITY:
        why = f"maximum allowed value of a user defined priority is {_MAX_PRIORITY}"
        causes.forbidden("value", why)


def _volume_claim(spec: Object, causes: Causes) -> None:
    storage = spec["resources"].get("requests", {}).get("storage")
    if storage is None:
        causes.required("spec.resources[storage]")
    elif quantities.parse(storage) <= 0:
        causes.invalid("spec.resources[storage]", storage, "must be greater than zero")


def _daemon_set(spec: Object, causes: Causes) -> None:
    selector = spec.get("selector")
    if selector is None:
        return
    if any(selector.values()):
        _template(spec, ("Always",), causes)
    else:
        causes.invalid("spec.selector", selector, "empty selector is invalid for daemonset")


def validate_update(kind: Kind, obj: Object, old: Object, given: Causes) -> Causes:
    """Return the problems of an object that replaces ``old``."""
    causes = validate(kind, obj, given)
    if "deletionTimestamp" in old["metadata"]:
        _no_new_finalizers(obj["metadata"], old["metadata"], causes)
    if kind.plural == "jobs":
        # Kubernetes reports all causes of a Job: a replaced one usually lacks its generated selector and labels.
        _job_update(obj["spec"], old, causes)
    if causes.found:
        return causes
    rules = api_data.load("rules.yaml")["updates"].get(kind.plural, {})
    for path in rules.get("fixed", ()):
        value = get_path(obj, path)
        if value != get_path(old, path):
            causes.invalid(path, value, rules.get("text", _IMMUTABLE))
    mutable = rules.get("free")
    if mutable and _without(_without_images(obj["spec"]), mutable) != _without(_without_images(old["spec"]), mutable):
        causes.forbidden("spec", rules["text"])
    match kind.plural:
        case "pods":
            _pod_update(obj["spec"], old["spec"], causes)
        case "configmaps" | "secrets" if old.get("immutable"):
            for field in ("immutable", "data", "binaryData"):
                if obj.get(field) != old.get(field):
                    causes.forbidden(field, "field is immutable when `immutable` is set")
    return causes


def _no_new_finalizers(metadata: Object, old: Object, causes: Causes) -> None:
    added = [f'"{each}"' for each in metadata.get("finalizers", ()) if each not in old.get("finalizers", ())]
    if added:
        why = "no new finalizers can be added if the object is being deleted, found new finalizers "
        causes.forbidden("metadata.finalizers", f"{why}[]string{{{', '.join(added)}}}")


def _pod_update(spec: Object, old: Object, causes: Causes) -> None:
    tolerations = {frozenset(each.items()) for each in spec.get("tolerations", ())}
    old_tolerations = {frozenset(each.items()) for each in old.get("tolerations", ())}
    if not old_tolerations <= tolerations:
        why = "existing toleration can not be modified except its tolerationSeconds"
        causes.forbidden("spec.tolerations", why)
    gates = {each["name"] for each in spec.get("schedulingGates", ())}
    old_gates = {each["name"] for each in old.get("schedulingGates", ())}
    for gate in sorted(gates - old_gates):
        why = f"only deletion is allowed, but found new scheduling gate '{gate}'"
        causes.forbidden("spec.schedulingGates", why)


def _without(spec: Object, fields: Collection[str]) -> Object:
    return {key: value for key, value in spec.items() if key not in fields}


def _without_images(spec: Object) -> Object:
    groups = [group for group in ("containers", "initContainers") if group in spec]
    return spec | {group: [{**each, "image": ""} for each in spec[group]] for group in groups}


def _job(job: Object, causes: Causes) -> None:
    spec = job["spec"]
    selector = job["spec"].get("selector", {})
    name = job["metadata"].get("name", "")
    uid = job["metadata"].get("uid")
    generated = selector.get("matchLabels", {}).get("batch.kubernetes.io/controller-uid") == uid
    if not selector:
        causes.required("spec.selector")
    elif not spec["manualSelector"] and not generated:
        causes.invalid("spec.selector", selector, "`selector` not auto-generated")
    last_hostname = f"{name}-{spec.get('completions', 0) - 1}"
    is_indexed = spec["completionMode"] == "Indexed" and spec.get("completions", 0) > 0
    if is_indexed and name_formats.format_problems("label", last_hostname):
        why = f"will not able to create pod with invalid DNS label: {last_hostname}"
        causes.invalid("metadata.name", name, why)
    if len(name) > 63:  # The name is the value of a label of the pods.
        causes.invalid("spec.template.labels", name, "must be no more than 63 bytes")
    _template(spec, ("OnFailure", "Never"), causes)


def _job_update(spec: Object, old_job: Object, causes: Causes) -> None:
    old = old_job["spec"]
    scaled = old["completionMode"] == "Indexed" and spec.get("completions") == spec["parallelism"]
    if not scaled and spec.get("completions") != old.get("completions"):
        causes.invalid("spec.completions", spec.get("completions"), _IMMUTABLE)
    if spec.get("selector") != old.get("selector"):
        causes.invalid("spec.selector", spec.get("selector") or "null", _IMMUTABLE)
    _job_template_update(spec["template"], old_job, causes)
    for field in _FIXED_IN_JOBS:
        if spec.get(field) != old.get(field):
            causes.invalid(f"spec.{field}", spec.get(field), _IMMUTABLE)


def _job_template_update(template: Object, old_job: Object, causes: Causes) -> None:
    old = old_job["spec"]
    before = old["template"]
    if template == before:
        return
    if not old["suspend"] or not _is_stopped(old_job["status"]):
        causes.invalid("spec.template", template, _IMMUTABLE)
    elif _immutable_part(template["spec"]) != _immutable_part(before["spec"]):
        causes.invalid("spec.template.spec", template["spec"], _IMMUTABLE)


def _is_stopped(status: Object) -> bool:
    """Return whether a suspended Job has never started, or has stopped since it was suspended."""
    is_marked = any(each["type"] == "Suspended" and each["status"] == "True" for each in status.get("conditions", ()))
    return not status.get("active") and (is_marked or "startTime" not in status)


def _immutable_part(spec: Object) -> Object:
    """Return the part of a template's spec that must not change, even while the Job is suspended."""
    groups = [group for group in ("containers", "initContainers") if group in spec]
    return _without(spec, _MUTABLE_WHILE_SUSPENDED) | {
        group: [_without(each, ("resources",)) for each in spec[group]] for group in groups
    }


def _template(spec: Object, policies: tuple[str, ...], causes: Causes) -> None:
    """Check that the selector of a Job or DaemonSet matches its template, and that the restart policy is allowed."""
    template = spec["template"]
    selector = spec.get("selector") or {}
    policy = spec["template"]["spec"]["restartPolicy"]
    labels = template["metadata"].get("labels", {})
    if not labels_match(selector, labels) or not any(selector.values()):
        causes.invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    if policy == "Always" and policy not in policies:  # This is the default, so the field was probably missing.
        choices = ", ".join(f'"{each}"' for each in policies)
        causes.required("spec.template.spec.restartPolicy", f"valid values: {choices}")
    elif policy not in policies:
        causes.unsupported("spec.template.spec.restartPolicy", policy, policies)
