"""Validation of whole objects: what no single field can tell, and what may change.

What one field's value may be is data (``data/rules.yaml``), checked while an object is decoded. Here are a name's form,
which differs by kind, the rules that span fields, and what an update must leave alone.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from aksgpu.common import quantities
from aksgpu.local import api_data, name_formats
from aksgpu.local.api.status_causes import Causes
from aksgpu.local.kinds import Kind
from aksgpu.local.selectors import get_path, labels_match

Object = dict[str, Any]

_IMMUTABLE = "field is immutable"
_MOVABLE = ("nodeSelector", "tolerations", "affinity", "schedulingGates")
"""What may change in the template of a suspended Job before it first starts: where its pods go."""
_HIGHEST_PRIORITY = 1_000_000_000


def validate(kind: Kind, obj: Object, given: Causes) -> Causes:
    """What is wrong with an object on its own, beside what was ``given`` when its fields were decoded."""
    causes = Causes()
    name = obj["metadata"].get("name", "")
    if not name:
        causes.required("metadata.name", "name or generateName is required")
    for problem in name_formats.format_problems(kind.name_format, name) if name else ():
        causes.invalid("metadata.name", name, problem)
    # A status is its controller's, and is taken as it comes.
    causes.found += [each for each in given.found if not each["field"].startswith("status.")]
    managed_fields_entries = obj["metadata"].get("ownerReferences", [])
    controllers = [
        f"{each.get('kind')}/{each.get('name')}" for each in managed_fields_entries if each.get("controller")
    ]
    if len(controllers) > 1:
        why = 'Only one reference can have Controller set to true. Found "true" in references for'
        causes.invalid("metadata.ownerReferences", managed_fields_entries, f"{why} {' and '.join(controllers[:2])}")
    match kind.plural:
        case "jobs":
            _job(obj, causes)
        case "priorityclasses" if name not in api_data.load("rules.yaml")["first"]["priorityclasses"]:
            if name.startswith("system-"):
                why = "priority class names with 'system-' prefix are reserved for system use only"
                causes.forbidden("metadata.name", why)
            if obj["value"] > _HIGHEST_PRIORITY:
                why = f"maximum allowed value of a user defined priority is {_HIGHEST_PRIORITY}"
                causes.forbidden("value", why)
        case "persistentvolumeclaims":
            storage = obj["spec"]["resources"].get("requests", {}).get("storage")
            if storage is None:
                causes.required("spec.resources[storage]")
            elif quantities.parse(storage) <= 0:
                causes.invalid("spec.resources[storage]", storage, "must be greater than zero")
        case "daemonsets":
            selector = obj["spec"].get("selector")
            if selector is not None and not any(selector.values()):
                causes.invalid("spec.selector", selector, "empty selector is invalid for daemonset")
            elif selector is not None:
                _template(obj["spec"], ("Always",), causes)
    return causes


def validate_update(kind: Kind, obj: Object, old: Object, given: Causes) -> Causes:
    """What is wrong with an object that replaces ``old``."""
    causes = validate(kind, obj, given)
    before = {*old["metadata"].get("finalizers", ())}
    if "deletionTimestamp" in old["metadata"] and (
        added := [f'"{each}"' for each in obj["metadata"].get("finalizers", ()) if each not in before]
    ):
        why = "no new finalizers can be added if the object is being deleted, found new finalizers "
        causes.forbidden("metadata.finalizers", f"{why}[]string{{{', '.join(added)}}}")
    if causes.found:
        return causes
    said = api_data.load("rules.yaml")["updates"].get(kind.plural, {})
    for path in said.get("fixed", ()):
        if (value := get_path(obj, path)) != get_path(old, path):
            causes.invalid(path, value, said.get("text", _IMMUTABLE))
    free = said.get("free")
    if free and _without(_imageless(obj["spec"]), free) != _without(_imageless(old["spec"]), free):
        causes.forbidden("spec", said["text"])
    match kind.plural:
        case "jobs":
            _job_update(obj["spec"], old["spec"], "startTime" in old["status"], causes)
        case "pods":
            after, before = ({frozenset(t.items()) for t in each["spec"].get("tolerations", ())} for each in (obj, old))
            if not before <= after:
                why = "existing toleration can not be modified except its tolerationSeconds"
                causes.forbidden("spec.tolerations", why)
            after, before = ({g["name"] for g in each["spec"].get("schedulingGates", ())} for each in (obj, old))
            for gate in sorted(after - before):
                why = f"only deletion is allowed, but found new scheduling gate '{gate}'"
                causes.forbidden("spec.schedulingGates", why)
        case "configmaps" | "secrets" if old.get("immutable"):
            for field in ("immutable", "data", "binaryData"):
                if obj.get(field) != old.get(field):
                    causes.forbidden(field, "field is immutable when `immutable` is set")
    return causes


def _without(spec: Object, free: Collection[str]) -> Object:
    return {key: value for key, value in spec.items() if key not in free}


def _imageless(spec: Object) -> Object:
    groups = [group for group in ("containers", "initContainers") if group in spec]
    return spec | {group: [{**each, "image": ""} for each in spec[group]] for group in groups}


def _job(job: Object, causes: Causes) -> None:
    spec = job["spec"]
    selector = job["spec"].get("selector", {})
    name = job["metadata"].get("name", "")
    if not selector:
        causes.required("spec.selector")
        return
    own = {"batch.kubernetes.io/controller-uid": job["metadata"].get("uid")}
    if not spec["manualSelector"] and not own.items() <= selector.get("matchLabels", {}).items():
        causes.invalid("spec.selector", selector, "`selector` not auto-generated")
    if len(name) > 63:  # it is the value of a label of the pods
        causes.invalid("spec.template.labels", name, "must be no more than 63 bytes")
    _template(spec, ("OnFailure", "Never"), causes)


def _job_update(spec: Object, old: Object, started: bool, causes: Causes) -> None:
    scaled = old["completionMode"] == "Indexed" and spec.get("completions") == spec["parallelism"]
    if not scaled and spec.get("completions") != old.get("completions"):
        causes.invalid("spec.completions", spec.get("completions"), _IMMUTABLE)
    template = spec["template"]
    before = old["template"]
    if old["suspend"] and not started:
        template = _without(template["spec"], _MOVABLE)
        before = _without(before["spec"], _MOVABLE)
    if template != before:
        causes.invalid("spec.template", spec["template"], _IMMUTABLE)


def _template(spec: Object, policies: tuple[str, ...], causes: Causes) -> None:
    """The pods that a Job or DaemonSet makes: its selector finds them, and they restart as their owner allows."""
    template = spec["template"]
    selector = spec["selector"]
    policy = spec["template"]["spec"]["restartPolicy"]
    if not labels_match(selector, labels := template["metadata"].get("labels", {})) or not any(selector.values()):
        causes.invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    if policy == "Always" and policy not in policies:  # the default, which can only be an omission
        choices = ", ".join(f'"{each}"' for each in policies)
        causes.required("spec.template.spec.restartPolicy", f"valid values: {choices}")
    elif policy not in policies:
        causes.unsupported("spec.template.spec.restartPolicy", policy, policies)
