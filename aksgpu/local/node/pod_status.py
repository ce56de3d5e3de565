"""Computes a pod's status from the statuses of its containers, as a kubelet does.

These are pure functions on plain data.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from aksgpu.common import times
from aksgpu.local.objects import Object

_CONDITION_ORDER = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")


def timestamp(nanoseconds: int) -> str:
    """Return a time in whole seconds as Kubernetes writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(nanoseconds // 1_000_000_000))


def new_container_status(spec: Object, image: str, state: Object) -> Object:
    """Return the status of a container that has not run yet.

    Args:
        spec: the container in the pod's spec.
        image: the full image reference.
        state: the container's state.
    """
    status: Object = {
        "image": image,
        "imageID": "",
        "lastState": {},
        "name": spec["name"],
        "ready": False,
        "restartCount": 0,
        "started": False,
        "state": state,
    }
    mounts = []
    for mount in spec.get("volumeMounts") or []:
        mount_status = {"mountPath": mount["mountPath"], "name": mount["name"]}
        if mount.get("readOnly"):
            mount_status |= {"readOnly": True, "recursiveReadOnly": "Disabled"}
        mounts.append(mount_status)
    if mounts:
        status["volumeMounts"] = mounts
    return status


def waiting(reason: str, message: str = "") -> Object:
    """Return the state of a container that waits for its first start or for a restart."""
    return {"waiting": _reason_fields(reason, message)}


def running(started: int) -> Object:
    """Return the state of a running container. ``started`` is in nanoseconds since 1970."""
    return {"running": {"startedAt": timestamp(started)}}


def terminated(container_id: str, code: int, reason: str, message: str, started: int, finished: int) -> Object:
    """Return the state of a container that has ended. Times are in nanoseconds since 1970."""
    fields = {
        "containerID": container_id,
        "exitCode": code,
        "finishedAt": timestamp(finished),
        "startedAt": timestamp(started),
    }
    return {"terminated": fields | _reason_fields(reason, message)}


def _reason_fields(reason: str, message: str) -> Object:
    """Return the fields that are not empty."""
    return {key: text for key, text in (("message", message), ("reason", reason)) if text}


def exit_code(container: Object) -> int | None:
    """Return the exit code of a container's last run. Return None while it is running, or if it has never run."""
    state = container["state"]
    if "running" in state:
        return None
    ended: Object = state.get("terminated") or container["lastState"].get("terminated") or {}
    code: int | None = ended.get("exitCode")
    return code


def _phase(restart_policy: str, initialized: bool, containers: Sequence[Object]) -> str:
    not_started = [each for each in containers if "waiting" in each["state"] and exit_code(each) is None]
    if not initialized or not_started:
        return "Pending"
    if restart_policy == "Always" or any(each["started"] for each in containers):
        return "Running"
    if not any(exit_code(each) for each in containers):
        return "Succeeded"
    return "Failed" if restart_policy == "Never" else "Running"


def build_status(
    pod: Object,
    init: Sequence[Object],
    containers: Sequence[Object],
    own_fields: Object,
    *,
    has_sandbox: bool,
    initialized: bool,
    final_phase: str = "",
) -> Object:
    """Return the pod's new status. Fields and conditions that other components have set are kept.

    Args:
        pod: the pod with its current status.
        init: the statuses of its init containers.
        containers: the statuses of its other containers.
        own_fields: the fields that the node sets: addresses, start time, and reason and message of a failure.
        has_sandbox: whether the pod's volumes are mounted and its processes can run.
        initialized: whether all init containers have succeeded.
        final_phase: the phase of a pod that has ended; empty for other pods.
    """
    old = pod.get("status") or {}
    sidecars = [each for each in init if each["ready"] and each["started"]]
    restart_policy = pod["spec"].get("restartPolicy", "Always")
    phase = final_phase or _phase(restart_policy, initialized, [*containers, *sidecars])
    status = {key: value for key, value in old.items() if key in ("qosClass", "nominatedNodeName", "resize")}
    status |= own_fields
    status["phase"] = phase
    if init:
        status["initContainerStatuses"] = init
    if containers:
        status["containerStatuses"] = containers
    own_conditions = _conditions(phase, init, containers, has_sandbox, initialized)
    old_conditions = {condition["type"]: condition for condition in old.get("conditions") or []}
    status["conditions"] = []
    for kind in _CONDITION_ORDER:
        value, reason, message = own_conditions[kind]
        status["conditions"].append(_condition(kind, value, reason, message, old_conditions.pop(kind, {})))
    status["conditions"] += old_conditions.values()
    return status


def _conditions(
    phase: str, init: Sequence[Object], containers: Sequence[Object], has_sandbox: bool, initialized: bool
) -> dict[str, tuple[bool, str, str]]:
    """Return status, reason and message of the node's conditions by type."""
    ended_reason = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(phase, "")
    incomplete = " ".join(each["name"] for each in init if not each["ready"])
    unready = " ".join(each["name"] for each in containers if not each["ready"])
    initialized_condition = (True, "PodCompleted" if phase == "Succeeded" else "", "")
    if not initialized and (incomplete or not ended_reason):
        message = f"containers with incomplete status: [{incomplete}]"
        initialized_condition = (False, "ContainersNotInitialized", message)
    ready_condition = (not ended_reason, ended_reason, "")
    if unready and not ended_reason:
        ready_condition = (False, "ContainersNotReady", f"containers with unready status: [{unready}]")
    return {
        "PodReadyToStartContainers": (has_sandbox and not ended_reason, "", ""),
        "Initialized": initialized_condition,
        "Ready": ready_condition,
        "ContainersReady": ready_condition,
        "PodScheduled": (True, "", ""),
    }


def _condition(kind: str, status: bool, reason: str, message: str, old: dict[str, Any]) -> Object:
    value = "True" if status else "False"
    since = old.get("lastTransitionTime") if old.get("status") == value else None
    return {
        "lastProbeTime": None,
        "lastTransitionTime": since or times.now(),
        **_reason_fields(reason, message),
        "status": value,
        "type": kind,
    }
