"""Validation rules that involve several fields of one part of an object, such as a container.

The functions in :data:`VALIDATORS` are called for each such part that a client sends, together with the rules for
single fields in ``data/rules.yaml``, so that all problems are reported at once. They must tolerate missing required
fields, which are reported elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from aksgpu.common import quantities
from aksgpu.local import name_formats
from aksgpu.local.api.job_rules import check_job
from aksgpu.local.api.quota_scopes import check_scopes
from aksgpu.local.api.status_causes import Causes
from aksgpu.local.objects import Object

Validator = Callable[[Object, str, Causes], None]
"""Function that reports the problems of a part.

The second argument is the path of the part, with a trailing dot. It is empty for the whole object.
"""

_NATIVE_RESOURCES = ("cpu", "memory", "ephemeral-storage")
_SOURCES = ("name", "emptyDir", "hostPath", "secret", "persistentVolumeClaim", "downwardAPI", "configMap", "projected")
"""The fields of a volume, in the order in which the API server looks for its source."""
_SECRET_KEYS = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}
"""Keys that Secrets of these types must have."""


def _pod_spec(spec: Object, prefix: str, causes: Causes) -> None:
    volumes = {each.get("name") for each in spec.get("volumes", ())}
    names = set[str]()
    if spec.get("ephemeralContainers"):
        in_pod = prefix == "spec."
        why = "cannot be set on create" if in_pod else "ephemeral containers not allowed in pod template"
        causes.forbidden(f"{prefix}ephemeralContainers", why)
    for group in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(group) or ()):
            path = f"{prefix}{group}[{index}]"
            name = container.get("name")
            if name and name in names:
                causes.duplicate(f"{path}.name", name)
            names.add(name)
            if group == "containers" and "restartPolicy" in container:
                causes.forbidden(f"{path}.restartPolicy", "may not be set for non-init containers")
            _volume_mounts(container.get("volumeMounts", ()), f"{path}.volumeMounts", volumes, causes)


def _volume_mounts(mounts: Iterable[Object], path: str, volumes: set[Any], causes: Causes) -> None:
    mount_paths = set[Any]()
    for index, mount in enumerate(mounts):
        if mount.get("name") not in volumes:
            causes.not_found(f"{path}[{index}].name", mount.get("name"))
        mount_path = mount.get("mountPath")
        if mount_path in mount_paths:
            causes.invalid(f"{path}[{index}].mountPath", mount_path, "must be unique")
        mount_paths.add(mount_path)


def _volume(volume: Object, prefix: str, causes: Causes) -> None:
    fields = sorted(volume, key=lambda field: _SOURCES.index(field) if field in _SOURCES else len(_SOURCES))
    for field in fields[2:]:  # After the name and the first source.
        causes.forbidden(f"{prefix}{field}", "may not specify more than 1 volume type")


def _mount(mount: Object, prefix: str, causes: Causes) -> None:
    for field in ("subPath", "subPathExpr"):
        path = mount.get(field, "")
        if path.startswith("/"):
            causes.invalid(f"{prefix}{field}", path, "must be a relative path")
        if ".." in path.split("/"):
            causes.invalid(f"{prefix}{field}", path, "must not contain '..'")


def _variable(variable: Object, prefix: str, causes: Causes) -> None:
    sources = variable.get("valueFrom")
    if sources is None:
        return
    why = ""
    if not sources:
        why = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
    elif variable.get("value"):
        why = "may not be specified when `value` is not empty"
    elif len(sources) > 1:
        why = "may not have more than one field specified at a time"
    if why:
        causes.invalid(f"{prefix}valueFrom", "", why)


def _toleration(toleration: Object, prefix: str, causes: Causes) -> None:
    key = toleration.get("key")
    operator = toleration.get("operator", "")
    if not key and operator != "Exists":
        why = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
        causes.invalid(f"{prefix}operator", operator, why)
    value = toleration.get("value")
    if operator == "Exists" and value:
        causes.invalid(f"{prefix}operator", value, "value must be empty when `operator` is 'Exists'")


def _resources(resources: Object, prefix: str, causes: Causes) -> None:
    limits = resources.get("limits", {})
    requests = resources.get("requests", {})
    for field, amounts in (("limits", limits), ("requests", requests)):
        for name, value in amounts.items():
            if "/" not in name and name not in _NATIVE_RESOURCES and not name.startswith("hugepages-"):
                causes.invalid(f"{prefix}{field}[{name}]", name, "must be a standard resource for containers")
            amount = quantities.parse(value)
            if name_formats.is_extended_resource(name) and amount != amount.to_integral_value():
                causes.invalid(f"{prefix}{field}[{name}]", value, "must be an integer")
    for name, value in requests.items():
        extended = name_formats.is_extended_resource(name)
        limit = limits.get(name)
        if limit is None:
            if extended:
                causes.required(f"{prefix}limits", "Limit must be set for non overcommitable resources")
        elif extended and value != limit:
            causes.invalid(f"{prefix}requests", value, f"must be equal to {name} limit of {limit}")
        elif quantities.parse(value) > quantities.parse(limit):
            causes.invalid(f"{prefix}requests", value, f"must be less than or equal to {name} limit of {limit}")


def _requirement(requirement: Object, prefix: str, causes: Causes) -> None:
    operator = requirement.get("operator")
    values = requirement.get("values")
    if operator in ("In", "NotIn"):
        if not values:
            causes.required(f"{prefix}values", "must be specified when `operator` is 'In' or 'NotIn'")
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            causes.forbidden(f"{prefix}values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
    elif operator is not None:
        causes.invalid(f"{prefix}operator", operator, "not a valid selector operator")


def _node_requirement(requirement: Object, prefix: str, causes: Causes) -> None:
    if requirement.get("operator") not in ("Gt", "Lt"):
        _requirement(requirement, prefix, causes)
    elif len(requirement.get("values", ())) != 1:
        causes.required(f"{prefix}values", "must be specified single value when `operator` is 'Lt' or 'Gt'")


def _role_rule(rule: Object, prefix: str, causes: Causes) -> None:
    for field, what in (("apiGroups", "api group"), ("resources", "resource")):
        if not rule.get("nonResourceURLs") and not rule.get(field):
            causes.required(f"{prefix}{field}", f"resource rules must supply at least one {what}")


def _secret(secret: Object, prefix: str, causes: Causes) -> None:
    for key in _SECRET_KEYS.get(secret["type"], ()):
        if key not in secret.get("data", {}):
            causes.required(f"{prefix}data[{key}]")


VALIDATORS: dict[str, Validator] = {
    "EnvVar": _variable,
    "JobSpec": check_job,
    "LabelSelectorRequirement": _requirement,
    "NodeSelectorRequirement": _node_requirement,
    "PodSpec": _pod_spec,
    "PolicyRule": _role_rule,
    "ResourceQuotaSpec": check_scopes,
    "ResourceRequirements": _resources,
    "Secret": _secret,
    "Toleration": _toleration,
    "Volume": _volume,
    "VolumeMount": _mount,
}
"""The validator of a part, by the name of its definition."""
