"""Validation of whole objects: metadata for every kind, then a function a kind where it has rules of its own.

Types, unknown and absent fields are the schema's business (:mod:`aksgpu.local.api.schema`); here is what values mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aksgpu.local.api import jobspec, names, podspec, quantity
from aksgpu.local.api.causes import Causes
from aksgpu.local.api.kinds import Kind
from aksgpu.local.api.selectors import labels_match

Object = dict[str, Any]

_ANNOTATIONS = 256 * 1024
_CONFIG = 1024 * 1024
_IMMUTABLE = "field is immutable"
_FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")


def validate(kind: Kind, obj: Object, missing: list[str]) -> Causes:
    """What is wrong with an object on its own; ``missing`` are the paths of absent required fields."""
    causes = Causes()
    _metadata(kind, obj["metadata"], "metadata", causes)
    # A status is its controller's, and is taken as it comes.
    absent = [path for path in missing if not path.startswith("status.")]
    for path in absent:
        causes.required(path)
    rule = _KINDS.get(kind.plural)
    if rule is not None and not absent:
        rule(obj, causes)
    return causes


def validate_update(kind: Kind, obj: Object, old: Object, missing: list[str]) -> Causes:
    """What is wrong with an object that replaces ``old``."""
    causes = validate(kind, obj, missing)
    metadata, before = obj["metadata"], old["metadata"]
    if "deletionTimestamp" in before:
        added = [each for each in metadata.get("finalizers", ()) if each not in before.get("finalizers", ())]
        if added:
            listed = ", ".join(f'"{each}"' for each in added)
            why = "no new finalizers can be added if the object is being deleted, found new finalizers "
            causes.forbidden("metadata.finalizers", why + f"[]string{{{listed}}}")
    rule = _UPDATES.get(kind.plural)
    if rule is not None and not causes.found:
        rule(obj, old, causes)
    return causes


def _metadata(kind: Kind, metadata: Object, path: str, causes: Causes) -> None:
    name = metadata.get("name", "")
    if not name:
        causes.required(f"{path}.name", "name or generateName is required")
    for problem in names.RULES[kind.name_rule](name) if name else ():
        causes.invalid(f"{path}.name", name, problem)
    labels(metadata.get("labels") or {}, f"{path}.labels", causes)
    annotations = metadata.get("annotations") or {}
    for key in annotations:
        for problem in names.qualified(key.lower()):
            causes.invalid(f"{path}.annotations", key, problem)
    if sum(len(key) + len(value) for key, value in annotations.items()) > _ANNOTATIONS:
        causes.too_long(f"{path}.annotations", f"may not be more than {_ANNOTATIONS} bytes")
    for index, finalizer in enumerate(metadata.get("finalizers") or ()):
        problems = names.qualified(finalizer)
        if not problems and "/" not in finalizer and finalizer not in _FINALIZERS:
            problems = ["name is neither a standard finalizer name nor is it fully qualified"]
        for problem in problems:
            causes.invalid(f"{path}.finalizers[{index}]", finalizer, problem)
    controllers = [each for each in metadata.get("ownerReferences") or () if each.get("controller")]
    if len(controllers) > 1:
        why = 'Only one reference can have Controller set to true. Found "true" in references for ' + " and ".join(
            f"{each['kind']}/{each['name']}" for each in controllers[:2]
        )
        causes.invalid(f"{path}.ownerReferences", metadata["ownerReferences"], why)


def labels(given: dict[str, str], path: str, causes: Causes) -> None:
    """Keys and values of labels."""
    for key, value in given.items():
        for problem in names.qualified(key):
            causes.invalid(path, key, problem)
        for problem in names.label_value(value):
            causes.invalid(path, value, problem)


def _selector(selector: Object, causes: Causes) -> None:
    for index, each in enumerate(selector.get("matchExpressions") or ()):
        if each["operator"] not in ("In", "NotIn", "Exists", "DoesNotExist"):
            path = f"spec.selector.matchExpressions[{index}].operator"
            causes.invalid(path, each["operator"], "not a valid selector operator")


def _not_negative(spec: Object, fields: tuple[str, ...], causes: Causes) -> None:
    for field in fields:
        if spec.get(field, 0) < 0:
            causes.invalid(f"spec.{field}", spec[field], "must be greater than or equal to 0")


def _pod(pod: Object, causes: Causes) -> None:
    podspec.validate(pod["spec"], "spec", causes)


def _job(job: Object, causes: Causes) -> None:
    spec, template = job["spec"], job["spec"]["template"]
    counts = ("parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished")
    _not_negative(spec, (*counts, "backoffLimitPerIndex", "maxFailedIndexes"), causes)
    jobspec.validate(spec, causes)
    _selector(spec.get("selector") or {}, causes)
    uid = job["metadata"].get("uid")
    if "selector" not in spec:
        causes.required("spec.selector")
    elif not spec["manualSelector"]:
        wanted = spec["selector"].get("matchLabels", {})
        if wanted.get("batch.kubernetes.io/controller-uid", wanted.get("controller-uid")) != uid:
            causes.invalid("spec.selector", spec["selector"], "`selector` not auto-generated")
    if not labels_match(spec.get("selector"), template["metadata"].get("labels")) and "selector" in spec:
        given = template["metadata"].get("labels") or {}
        causes.invalid("spec.template.metadata.labels", given, "`selector` does not match template `labels`")
    if len(job["metadata"].get("name", "")) > 63:
        causes.invalid("spec.template.labels", job["metadata"]["name"], "must be no more than 63 bytes")
    labels(template["metadata"].get("labels") or {}, "spec.template.labels", causes)
    podspec.validate(template["spec"], "spec.template.spec", causes, restart_policies=("OnFailure", "Never"))
    if "podFailurePolicy" in spec and template["spec"]["restartPolicy"] != "Never":
        why = 'only "Never" is supported when podFailurePolicy is specified'
        causes.invalid("spec.template.spec.restartPolicy", template["spec"]["restartPolicy"], why)


def _job_update(job: Object, old: Object, causes: Causes) -> None:
    spec, before = job["spec"], old["spec"]
    fixed = ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "successPolicy"]
    if before["completionMode"] == "NonIndexed" or spec.get("completions") != spec.get("parallelism"):
        fixed.insert(0, "completions")
    for field in fixed:
        if spec.get(field) != before.get(field):
            causes.invalid(f"spec.{field}", spec.get(field), _IMMUTABLE)
    template, was = spec["template"], before["template"]
    if before["suspend"] and "startTime" not in old["status"]:
        template, was = _unscheduled(template), _unscheduled(was)
    if template != was:
        causes.invalid("spec.template", spec["template"], _IMMUTABLE)


def _unscheduled(template: Object) -> Object:
    """A template without what may change before a suspended Job first starts: where its pods go."""
    movable = ("nodeSelector", "tolerations", "affinity", "schedulingGates")
    spec = {key: value for key, value in template["spec"].items() if key not in movable}
    metadata = {key: value for key, value in template["metadata"].items() if key not in ("labels", "annotations")}
    return {"metadata": metadata, "spec": spec}


def _daemon_set(daemon_set: Object, causes: Causes) -> None:
    spec, template = daemon_set["spec"], daemon_set["spec"]["template"]
    selector = spec.get("selector")
    _selector(selector or {}, causes)
    if selector is not None and not (selector.get("matchLabels") or selector.get("matchExpressions")):
        causes.invalid("spec.selector", selector, "empty selector is invalid for daemonset")
    elif selector is not None and not labels_match(selector, template["metadata"].get("labels")):
        given = template["metadata"].get("labels") or {}
        causes.invalid("spec.template.metadata.labels", given, "`selector` does not match template `labels`")
    labels(template["metadata"].get("labels") or {}, "spec.template.labels", causes)
    podspec.validate(template["spec"], "spec.template.spec", causes, restart_policies=("Always",))
    if spec["updateStrategy"]["type"] not in ("RollingUpdate", "OnDelete"):
        causes.unsupported("spec.updateStrategy", spec["updateStrategy"]["type"], ("RollingUpdate", "OnDelete"))


def _daemon_set_update(daemon_set: Object, old: Object, causes: Causes) -> None:
    if daemon_set["spec"].get("selector") != old["spec"].get("selector"):
        causes.invalid("spec.selector", daemon_set["spec"].get("selector"), _IMMUTABLE)


def _pod_update(pod: Object, old: Object, causes: Causes) -> None:
    spec, before = pod["spec"], old["spec"]
    tolerations = spec.get("tolerations") or []
    if any(each not in tolerations for each in before.get("tolerations") or ()):
        causes.forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")
    gates = before.get("schedulingGates") or ()
    for gate in spec.get("schedulingGates") or ():
        if gate not in gates:
            why = f"only deletion is allowed, but found new scheduling gate '{gate.get('name', '')}'"
            causes.forbidden("spec.schedulingGates", why)
    if _fixed(spec) != _fixed(before):
        causes.forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
            "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
            "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        )


def _fixed(spec: Object) -> Object:
    free = ("activeDeadlineSeconds", "schedulingGates", "tolerations")
    fixed = {key: value for key, value in spec.items() if key not in free}
    for group in ("containers", "initContainers"):
        if group in fixed:
            fixed[group] = [{**each, "image": ""} for each in fixed[group]]
    return fixed


def _config(obj: Object, causes: Causes) -> None:
    data = [*(obj.get("data") or {}).items(), *(obj.get("binaryData") or {}).items()]
    for key, _ in data:
        for problem in names.config_key(key):
            causes.invalid(f"data[{key}]", key, problem)
    if sum(len(value) for _, value in data) > _CONFIG * (4 / 3 if obj["kind"] == "Secret" else 1):
        causes.too_long("data", f"may not be more than {_CONFIG} bytes")


def _config_update(obj: Object, old: Object, causes: Causes) -> None:
    if obj.get("type") != old.get("type"):
        causes.invalid("type", obj.get("type"), _IMMUTABLE)
    if old.get("immutable"):
        if not obj.get("immutable"):
            causes.forbidden("immutable", "field is immutable when `immutable` is set")
        for field in ("data", "binaryData"):
            if obj.get(field) != old.get(field):
                causes.forbidden(field, "field is immutable when `immutable` is set")


def _claim(claim: Object, causes: Causes) -> None:
    spec = claim["spec"]
    modes = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
    if not spec.get("accessModes"):
        causes.required("spec.accessModes", "at least 1 access mode is required")
    for index, mode in enumerate(spec.get("accessModes") or ()):
        if mode not in modes:
            causes.unsupported(f"spec.accessModes[{index}]", mode, modes)
    storage = (spec["resources"].get("requests") or {}).get("storage")
    if storage is None:
        causes.required("spec.resources[storage]")
    elif quantity.parse(storage) <= 0:
        causes.invalid("spec.resources[storage]", storage, "must be greater than zero")


def _claim_update(claim: Object, old: Object, causes: Causes) -> None:
    free = ("resources", "volumeName", "volumeAttributesClassName")
    if any(claim["spec"].get(key) != old["spec"].get(key) for key in {*claim["spec"], *old["spec"]} - {*free}):
        why = (
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        )
        causes.forbidden("spec", why)


def _priority_class(obj: Object, causes: Causes) -> None:
    name, most = obj["metadata"].get("name", ""), 1_000_000_000
    if obj["value"] > most and not name.startswith("system-"):
        causes.forbidden("value", f"maximum allowed value of a user defined priority is {most}")


def _priority_class_update(obj: Object, old: Object, causes: Causes) -> None:
    if obj["value"] != old["value"]:
        causes.forbidden("value", "may not be changed in an update.")


def _quota(obj: Object, causes: Causes) -> None:
    for name, value in (obj["spec"].get("hard") or {}).items():
        for problem in names.qualified(name):
            causes.invalid(f"spec.hard[{name}]", name, problem)
        for problem in names.amount(value):
            causes.invalid(f"spec.hard[{name}]", value, problem)


def _role(obj: Object, causes: Causes) -> None:
    for index, rule in enumerate(obj.get("rules") or ()):
        if not rule.get("verbs"):
            causes.required(f"rules[{index}].verbs", "verbs must contain at least one value")


def _binding(obj: Object, causes: Causes) -> None:
    reference = obj["roleRef"]
    choices = ("ClusterRole",) if obj["kind"] == "ClusterRoleBinding" else ("Role", "ClusterRole")
    if reference["kind"] not in choices:
        causes.unsupported("roleRef.kind", reference["kind"], choices)
    if not reference["name"]:
        causes.required("roleRef.name")
    for index, subject in enumerate(obj.get("subjects") or ()):
        if subject.get("kind") not in ("ServiceAccount", "User", "Group"):
            causes.unsupported(f"subjects[{index}].kind", subject.get("kind"), ("ServiceAccount", "User", "Group"))
        elif subject["kind"] == "ServiceAccount" and not subject.get("namespace"):
            causes.required(f"subjects[{index}].namespace")


def _binding_update(obj: Object, old: Object, causes: Causes) -> None:
    if obj["roleRef"] != old["roleRef"]:
        causes.invalid("roleRef", obj["roleRef"], "cannot change roleRef")


def _service(obj: Object, causes: Causes) -> None:
    spec = obj["spec"]
    choices = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
    if spec["type"] not in choices:
        causes.unsupported("spec.type", spec["type"], choices)
    elif not spec.get("ports") and spec.get("clusterIP") != "None" and spec["type"] != "ExternalName":
        causes.required("spec.ports")
    for index, port in enumerate(spec.get("ports") or ()):
        if not 0 < port.get("port", 0) < 65536:
            causes.invalid(f"spec.ports[{index}].port", port.get("port", 0), "must be between 1 and 65535, inclusive")


def _lease(obj: Object, causes: Causes) -> None:
    if obj["spec"].get("leaseDurationSeconds", 1) <= 0:
        causes.invalid("spec.leaseDurationSeconds", obj["spec"]["leaseDurationSeconds"], "must be greater than 0")


def _node(obj: Object, causes: Causes) -> None:
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(obj["spec"].get("taints") or ()):
        path, key = f"spec.taints[{index}]", (taint.get("key", ""), taint.get("effect", ""))
        if key[1] not in ("NoSchedule", "PreferNoSchedule", "NoExecute"):
            causes.unsupported(f"{path}.effect", key[1], ("NoSchedule", "PreferNoSchedule", "NoExecute"))
        for problem in names.qualified(key[0]) if key[0] else ():
            causes.invalid(f"{path}.key", key[0], problem)
        if key in seen:
            causes.duplicate(path, taint)
        seen.add(key)


_KINDS: dict[str, Callable[[Object, Causes], None]] = {
    "clusterrolebindings": _binding,
    "clusterroles": _role,
    "configmaps": _config,
    "daemonsets": _daemon_set,
    "jobs": _job,
    "leases": _lease,
    "nodes": _node,
    "persistentvolumeclaims": _claim,
    "pods": _pod,
    "priorityclasses": _priority_class,
    "resourcequotas": _quota,
    "rolebindings": _binding,
    "roles": _role,
    "secrets": _config,
    "services": _service,
}
_UPDATES: dict[str, Callable[[Object, Object, Causes], None]] = {
    "clusterrolebindings": _binding_update,
    "configmaps": _config_update,
    "daemonsets": _daemon_set_update,
    "jobs": _job_update,
    "persistentvolumeclaims": _claim_update,
    "pods": _pod_update,
    "priorityclasses": _priority_class_update,
    "rolebindings": _binding_update,
    "secrets": _config_update,
}
