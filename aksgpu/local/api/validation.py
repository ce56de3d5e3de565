"""Validation of whole objects: what no single field can tell, and what may change.

What one field's value may be is data (``data/rules.yaml``), checked while an object is decoded. Here are a name's form,
which differs by kind, the rules that span fields, and what an update must leave alone.
"""

from __future__ import annotations

from typing import Any

from aksgpu.local.api import names, quantity
from aksgpu.local.api.causes import Causes
from aksgpu.local.api.kinds import Kind
from aksgpu.local.api.selectors import at, labels_match

Object = dict[str, Any]

_IMMUTABLE = "field is immutable"
_FIXED: dict[str, tuple[str, ...]] = {
    "clusterrolebindings": ("roleRef",),
    "daemonsets": ("spec.selector",),
    "jobs": ("spec.selector", "spec.completionMode", "spec.podFailurePolicy"),
    "priorityclasses": ("value",),
    "rolebindings": ("roleRef",),
    "secrets": ("type",),
}
"""Fields that an update may not change."""
_FREE = {
    "persistentvolumeclaims": (
        ("resources", "volumeName", "volumeAttributesClassName"),
        "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
    ),
    "pods": (
        ("activeDeadlineSeconds", "schedulingGates", "tolerations"),
        "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
        "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
        "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
    ),
}
"""The fields of a spec that an update may change where it may change no others, and what to say to who tries."""
_MOVABLE = ("nodeSelector", "tolerations", "affinity", "schedulingGates")
"""What may change in the template of a suspended Job before it first starts: where its pods go."""
_UNSUPPORTED = ("successPolicy", "backoffLimitPerIndex", "maxFailedIndexes")
_CONTROLLER = "kubernetes.io/job-controller"
_MOST_PARALLEL = 100_000
_SYSTEM_CLASSES = ("system-cluster-critical", "system-node-critical")
_HIGHEST_PRIORITY = 1_000_000_000
_NATIVE = ("cpu", "memory", "ephemeral-storage")


def validate(kind: Kind, obj: Object, given: Causes) -> Causes:
    """What is wrong with an object on its own, beside what was ``given`` when its fields were decoded."""
    causes, name = Causes(), obj["metadata"].get("name", "")
    if not name:
        causes.required("metadata.name", "name or generateName is required")
    for problem in names.problems(kind.name_rule, name) if name else ():
        causes.invalid("metadata.name", name, problem)
    # A status is its controller's, and is taken as it comes.
    causes.found += [each for each in given.found if not each["field"].startswith("status.")]
    # The rules below rely on the fields that must be there.
    if not any(each["reason"] == "FieldValueRequired" for each in causes.found):
        owners = obj["metadata"].get("ownerReferences", [])
        controllers = [f"{each['kind']}/{each['name']}" for each in owners if each.get("controller")]
        if len(controllers) > 1:
            why = 'Only one reference can have Controller set to true. Found "true" in references for'
            causes.invalid("metadata.ownerReferences", owners, f"{why} {' and '.join(controllers[:2])}")
        match kind.plural:
            case "pods":
                _pod_spec(obj["spec"], "spec", causes)
            case "jobs":
                _job(obj, causes)
            case "priorityclasses" if name not in _SYSTEM_CLASSES:
                if name.startswith("system-"):
                    why = "priority class names with 'system-' prefix are reserved for system use only"
                    causes.forbidden("metadata.name", why)
                if obj["value"] > _HIGHEST_PRIORITY:
                    why = f"maximum allowed value of a user defined priority is {_HIGHEST_PRIORITY}"
                    causes.forbidden("value", why)
            case "persistentvolumeclaims":
                storage = obj["spec"]["resources"]["requests"].get("storage", "0")
                if quantity.parse(storage) <= 0:
                    causes.invalid("spec.resources[storage]", storage, "must be greater than zero")
            case "daemonsets" if not any(obj["spec"]["selector"].values()):
                causes.invalid("spec.selector", obj["spec"]["selector"], "empty selector is invalid for daemonset")
            case "daemonsets":
                _template(obj["spec"], ("Always",), causes)
    return causes


def validate_update(kind: Kind, obj: Object, old: Object, given: Causes) -> Causes:
    """What is wrong with an object that replaces ``old``."""
    causes = validate(kind, obj, given)
    before = old["metadata"].get("finalizers", ())
    if "deletionTimestamp" in old["metadata"] and (
        added := [f'"{each}"' for each in obj["metadata"].get("finalizers", ()) if each not in before]
    ):
        why = "no new finalizers can be added if the object is being deleted, found new finalizers "
        causes.forbidden("metadata.finalizers", f"{why}[]string{{{', '.join(added)}}}")
    if causes.found:
        return causes
    for path in _FIXED.get(kind.plural, ()):
        if (value := at(obj, path)) != at(old, path):
            causes.invalid(path, value, "cannot change roleRef" if path == "roleRef" else _IMMUTABLE)
    if kind.plural in _FREE:
        free, why = _FREE[kind.plural]
        if _without(_imageless(obj["spec"]), free) != _without(_imageless(old["spec"]), free):
            causes.forbidden("spec", why)
    match kind.plural:
        case "jobs":
            _job_update(obj["spec"], old["spec"], "startTime" in old["status"], causes)
        case "pods":
            kept = obj["spec"].get("tolerations", ())
            if any(each not in kept for each in old["spec"].get("tolerations", ())):
                why = "existing toleration can not be modified except its tolerationSeconds"
                causes.forbidden("spec.tolerations", why)
            for gate in obj["spec"].get("schedulingGates", ()):
                if gate not in old["spec"].get("schedulingGates", ()):
                    why = f"only deletion is allowed, but found new scheduling gate '{gate['name']}'"
                    causes.forbidden("spec.schedulingGates", why)
        case "configmaps" | "secrets" if old.get("immutable"):
            for field in ("immutable", "data", "binaryData"):
                if obj.get(field) != old.get(field):
                    causes.forbidden(field, "field is immutable when `immutable` is set")
    return causes


def _without(spec: Object, free: tuple[str, ...]) -> Object:
    return {key: value for key, value in spec.items() if key not in free}


def _imageless(spec: Object) -> Object:
    groups = [group for group in ("containers", "initContainers") if group in spec]
    return spec | {group: [{**each, "image": ""} for each in spec[group]] for group in groups}


def _job(job: Object, causes: Causes) -> None:
    spec, template, selector = job["spec"], job["spec"]["template"], job["spec"].get("selector", {})
    for field in _UNSUPPORTED:
        if field in spec:
            causes.forbidden(f"spec.{field}", "the laptop does not have success policies and limits per index")
    if spec.get("managedBy", _CONTROLLER) != _CONTROLLER:
        causes.forbidden("spec.managedBy", f"the laptop does not have other controllers than {_CONTROLLER}")
    if spec["completionMode"] == "Indexed":
        if "completions" not in spec:
            causes.required("spec.completions", "when completion mode is Indexed")
        if spec["parallelism"] > _MOST_PARALLEL:
            why = f"must be less than or equal to {_MOST_PARALLEL} when completion mode is Indexed"
            causes.invalid("spec.parallelism", spec["parallelism"], why)
    replacements = ("Failed",) if "podFailurePolicy" in spec else ("Failed", "TerminatingOrFailed")
    if spec["podReplacementPolicy"] not in replacements:
        causes.unsupported("spec.podReplacementPolicy", spec["podReplacementPolicy"], replacements)
    for index, rule in enumerate(spec.get("podFailurePolicy", {}).get("rules") or ()):
        exits, path = rule.get("onExitCodes", {}), f"spec.podFailurePolicy.rules[{index}].onExitCodes.values"
        codes = exits.get("values", [])
        if codes != sorted({*codes}):
            causes.invalid(path, codes, "must be ordered")
        if 0 in codes and exits["operator"] == "In":
            causes.invalid(f"{path}[{codes.index(0)}]", 0, "must not be 0 for the In operator")
    if not selector:
        causes.required("spec.selector")
        return
    own = {"batch.kubernetes.io/controller-uid": job["metadata"].get("uid")}
    if not spec["manualSelector"] and not own.items() <= selector.get("matchLabels", {}).items():
        causes.invalid("spec.selector", selector, "`selector` not auto-generated")
    name = job["metadata"]["name"]
    if len(name) > 63:  # it is the value of a label of the pods
        causes.invalid("spec.template.labels", name, "must be no more than 63 bytes")
    _template(spec, ("OnFailure", "Never"), causes)
    if "podFailurePolicy" in spec and template["spec"]["restartPolicy"] != "Never":
        why = 'only "Never" is supported when podFailurePolicy is specified'
        causes.invalid("spec.template.spec.restartPolicy", template["spec"]["restartPolicy"], why)


def _job_update(spec: Object, old: Object, started: bool, causes: Causes) -> None:
    scaled = old["completionMode"] == "Indexed" and spec.get("completions") == spec["parallelism"]
    if not scaled and spec.get("completions") != old.get("completions"):
        causes.invalid("spec.completions", spec.get("completions"), _IMMUTABLE)
    template, before = spec["template"], old["template"]
    if old["suspend"] and not started:
        template, before = _without(template["spec"], _MOVABLE), _without(before["spec"], _MOVABLE)
    if template != before:
        causes.invalid("spec.template", spec["template"], _IMMUTABLE)


def _template(spec: Object, policies: tuple[str, ...], causes: Causes) -> None:
    """The pods that a Job or DaemonSet makes: its selector finds them, and they restart as their owner allows."""
    template, selector, policy = spec["template"], spec["selector"], spec["template"]["spec"]["restartPolicy"]
    if not labels_match(selector, labels := template["metadata"].get("labels", {})) or not any(selector.values()):
        causes.invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    if policy == "Always" and policy not in policies:  # the default, which can only be an omission
        choices = ", ".join(f'"{each}"' for each in policies)
        causes.required("spec.template.spec.restartPolicy", f"valid values: {choices}")
    elif policy not in policies:
        causes.unsupported("spec.template.spec.restartPolicy", policy, policies)
    _pod_spec(template["spec"], "spec.template.spec", causes)


def _pod_spec(spec: Object, path: str, causes: Causes) -> None:
    volumes = {each["name"] for each in spec.get("volumes", ())}
    for index, volume in enumerate(spec.get("volumes", ())):
        if len(volume) > 2:
            causes.forbidden(f"{path}.volumes[{index}]", "may not specify more than 1 volume type")
    seen: set[str] = set()
    for group in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(group, ())):
            here = f"{path}.{group}[{index}]"
            if container["name"] in seen:
                causes.duplicate(f"{here}.name", container["name"])
            seen.add(container["name"])
            for number, variable in enumerate(container.get("env", ())):
                if variable.get("value") and "valueFrom" in variable:
                    why = "may not be specified when `value` is not empty"
                    causes.invalid(f"{here}.env[{number}].valueFrom", "", why)
            for number, mount in enumerate(container.get("volumeMounts", ())):
                if mount["name"] not in volumes:
                    causes.not_found(f"{here}.volumeMounts[{number}].name", mount["name"])
                for field in ("subPath", "subPathExpr"):
                    inner = mount.get(field, "")
                    if inner.startswith("/"):
                        causes.invalid(f"{here}.volumeMounts[{number}].{field}", inner, "must be a relative path")
                    if ".." in inner.split("/"):
                        causes.invalid(f"{here}.volumeMounts[{number}].{field}", inner, "must not contain '..'")
            _resources(container["resources"], f"{here}.resources", causes)
    for index, toleration in enumerate(spec.get("tolerations", ())):
        key, operator = toleration.get("key"), toleration.get("operator", "")
        if not key and operator != "Exists":
            why = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            causes.invalid(f"{path}.tolerations[{index}].operator", operator, why)
        if operator == "Exists" and (value := toleration.get("value")):
            why = "value must be empty when `operator` is 'Exists'"
            causes.invalid(f"{path}.tolerations[{index}].operator", value, why)


def _resources(resources: Object, path: str, causes: Causes) -> None:
    limits, requests = resources.get("limits", {}), resources.get("requests", {})
    for field, amounts in (("limits", limits), ("requests", requests)):
        for name, value in amounts.items():
            if "/" not in name and name not in _NATIVE and not name.startswith("hugepages-"):
                causes.invalid(f"{path}.{field}", name, "must be a standard resource for containers")
            if names.extended(name) and quantity.parse(value) % 1:
                causes.invalid(f"{path}.{field}[{name}]", value, "must be an integer")
    for name, value in requests.items():
        extended, limit = names.extended(name), limits.get(name)
        if limit is None:
            if extended:
                causes.required(f"{path}.limits", "Limit must be set for non overcommitable resources")
        elif extended and value != limit:
            causes.invalid(f"{path}.requests", value, f"must be equal to {name} limit of {limit}")
        elif quantity.parse(value) > quantity.parse(limit):
            causes.invalid(f"{path}.requests", value, f"must be less than or equal to {name} limit of {limit}")
