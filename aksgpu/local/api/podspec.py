"""Validation of a pod's spec, in pods and in the templates of Jobs and DaemonSets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aksgpu.local.api import names, quantity
from aksgpu.local.api.causes import Causes

Object = dict[str, Any]

_PULL = ("Always", "IfNotPresent", "Never")
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_OPERATORS = ("Equal", "Exists")
_NATIVE = ("cpu", "memory", "ephemeral-storage")


def validate(spec: Object, path: str, causes: Causes, *, restart_policies: tuple[str, ...] = ()) -> None:
    """Add what is wrong with a pod's spec; ``restart_policies`` are those that its owner allows, when not all."""
    volumes = _volumes(spec.get("volumes") or (), f"{path}.volumes", causes)
    containers = spec.get("containers")
    if not containers:
        causes.required(f"{path}.containers")
    seen: set[str] = set()
    for group in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(group) or ()):
            here = f"{path}.{group}[{index}]"
            if container["name"] in seen:
                causes.duplicate(f"{here}.name", container["name"])
            seen.add(container["name"])
            _container(container, here, volumes, causes)
    policy = spec["restartPolicy"]
    if restart_policies and policy not in restart_policies:
        _restart(policy, f"{path}.restartPolicy", restart_policies, causes)
    elif policy not in ("Always", "OnFailure", "Never"):
        causes.unsupported(f"{path}.restartPolicy", policy, ("Always", "OnFailure", "Never"))
    for field, least in (("activeDeadlineSeconds", 1), ("terminationGracePeriodSeconds", 0)):
        value = spec.get(field)
        if value is not None and value < least:
            why = "must be between 1 and 2147483647, inclusive" if least else "must be greater than or equal to 0"
            causes.invalid(f"{path}.{field}", value, why)
    for key, value in (spec.get("nodeSelector") or {}).items():
        for problem in names.qualified(key):
            causes.invalid(f"{path}.nodeSelector", key, problem)
        for problem in names.label_value(value):
            causes.invalid(f"{path}.nodeSelector", value, problem)
    for index, toleration in enumerate(spec.get("tolerations") or ()):
        _toleration(toleration, f"{path}.tolerations[{index}]", causes)


def _restart(policy: str, path: str, allowed: tuple[str, ...], causes: Causes) -> None:
    # The default, Always, counts as not said in a Job, where it can only be an omission.
    if len(allowed) > 1 and policy == "Always":
        causes.required(path, "valid values: " + ", ".join(f'"{each}"' for each in allowed))
    else:
        causes.unsupported(path, policy, allowed)


def _volumes(volumes: Any, path: str, causes: Causes) -> set[str]:
    seen: set[str] = set()
    for index, volume in enumerate(volumes):
        name = volume.get("name", "")
        for problem in names.label(name) if name else ():
            causes.invalid(f"{path}[{index}].name", name, problem)
        if name in seen:
            causes.duplicate(f"{path}[{index}].name", name)
        seen.add(name)
        for extra in [key for key in volume if key != "name"][1:]:
            causes.forbidden(f"{path}[{index}].{extra}", "may not specify more than 1 volume type")
    return seen


def _container(container: Object, path: str, volumes: set[str], causes: Causes) -> None:
    name = container["name"]
    if not name:
        causes.required(f"{path}.name")
    for problem in names.label(name) if name else ():
        causes.invalid(f"{path}.name", name, problem)
    image = container.get("image", "")
    if not image:
        causes.required(f"{path}.image")
    elif image != image.strip():
        causes.invalid(f"{path}.image", image, "must not have leading or trailing whitespace")
    if container["imagePullPolicy"] not in _PULL:
        causes.unsupported(f"{path}.imagePullPolicy", container["imagePullPolicy"], _PULL)
    for index, variable in enumerate(container.get("env") or ()):
        for problem in names.env_name(variable.get("name", "")) if variable.get("name") else ():
            causes.invalid(f"{path}.env[{index}].name", variable["name"], problem)
        if variable.get("value") and variable.get("valueFrom"):
            causes.invalid(f"{path}.env[{index}].valueFrom", "", "may not be specified when `value` is not empty")
    for index, port in enumerate(container.get("ports") or ()):
        for field in ("containerPort", "hostPort"):
            if not 0 < port.get(field, 1) < 65536:
                causes.invalid(f"{path}.ports[{index}].{field}", port[field], "must be between 1 and 65535, inclusive")
    mounted: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        here, target = f"{path}.volumeMounts[{index}]", mount.get("mountPath", "")
        if mount.get("name") and mount["name"] not in volumes:
            causes.not_found(f"{here}.name", mount["name"])
        if target and target in mounted:
            causes.invalid(f"{here}.mountPath", target, "must be unique")
        mounted.add(target)
    _resources(container["resources"], f"{path}.resources", causes)


def _resources(resources: Object, path: str, causes: Causes) -> None:
    limits: Mapping[str, Any] = resources.get("limits") or {}
    requests: Mapping[str, Any] = resources.get("requests") or {}
    for field, amounts in (("limits", limits), ("requests", requests)):
        for name, value in amounts.items():
            _amount(name, value, f"{path}.{field}", causes)
    for name, value in requests.items():
        if name not in limits:
            if extended(name):
                causes.required(f"{path}.limits", "Limit must be set for non overcommitable resources")
            continue
        asked, most = quantity.parse(value), quantity.parse(limits[name])
        if extended(name) and asked != most:
            causes.invalid(f"{path}.requests", value, f"must be equal to {name} limit of {limits[name]}")
        elif asked > most:
            causes.invalid(f"{path}.requests", value, f"must be less than or equal to {name} limit of {limits[name]}")


def extended(name: str) -> bool:
    """Whether a resource is one that nodes advertise, such as nvidia.com/gpu; it comes in whole pieces."""
    prefix, slash, _ = name.partition("/")
    return bool(slash) and not (prefix == "kubernetes.io" or prefix.endswith(".kubernetes.io"))


def _amount(name: str, value: str, path: str, causes: Causes) -> None:
    for problem in names.qualified(name):
        causes.invalid(path, name, problem)
    if "/" not in name and name not in _NATIVE and not name.startswith("hugepages-"):
        causes.invalid(path, name, "must be a standard resource for containers")
    number = quantity.parse(value)
    if number < 0:
        causes.invalid(f"{path}[{name}]", value, "must be greater than or equal to 0")
    if extended(name) and number % 1:
        causes.invalid(f"{path}[{name}]", value, "must be an integer")


def _toleration(toleration: Object, path: str, causes: Causes) -> None:
    key, operator, effect = toleration.get("key"), toleration.get("operator"), toleration.get("effect")
    for problem in names.qualified(key) if key else ():
        causes.invalid(f"{path}.key", key, problem)
    if not key and operator != "Exists":
        why = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
        causes.invalid(f"{path}.operator", operator or "", why)
    if operator and operator not in _OPERATORS:
        causes.unsupported(f"{path}.operator", operator, _OPERATORS)
    if operator == "Exists" and toleration.get("value"):
        causes.invalid(f"{path}.operator", toleration["value"], "value must be empty when `operator` is 'Exists'")
    if effect and effect not in _EFFECTS:
        causes.unsupported(f"{path}.effect", effect, _EFFECTS)
    if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
        causes.invalid(f"{path}.effect", effect or "", "effect must be 'NoExecute' when `tolerationSeconds` is set")
