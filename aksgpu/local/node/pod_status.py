"""A pod's status, worked out from the statuses of its containers as a kubelet does.

Pure functions over plain data: nothing is started, read or sent here. A container's status is what the API shows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from aksgpu.common import times
from aksgpu.local.objects import Object

_ORDER = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")


def timestamp(nanoseconds: int) -> str:
    """A time to the second, as Kubernetes writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(nanoseconds // 1_000_000_000))


def container(spec: Object, image: str, state: Object) -> Object:
    """The status of a container that has not run yet; ``image`` is the full reference."""
    read_only = {"readOnly": True, "recursiveReadOnly": "Disabled"}
    mounts = [
        {"mountPath": one["mountPath"], "name": one["name"], **(read_only if one.get("readOnly") else {})}
        for one in spec.get("volumeMounts") or []
    ]
    status = {"image": image, "imageID": "", "lastState": {}, "name": spec["name"], "ready": False, "restartCount": 0}
    return status | {"started": False, "state": state} | ({"volumeMounts": mounts} if mounts else {})


def waiting(reason: str, message: str = "") -> Object:
    """The state of a container that does not run yet, or not again."""
    return {"waiting": _said(message, reason)}


def running(started: int) -> Object:
    """The state of a container whose command runs."""
    return {"running": {"startedAt": timestamp(started)}}


def terminated(container_id: str, code: int, reason: str, message: str, started: int, finished: int) -> Object:
    """The state of a container that ended."""
    when = {"finishedAt": timestamp(finished), "startedAt": timestamp(started)}
    return {"terminated": {"containerID": container_id, "exitCode": code, **when, **_said(message, reason)}}


def _said(message: str, reason: str) -> Object:
    return {key: text for key, text in (("message", message), ("reason", reason)) if text}


def exit_code(container: Object) -> int | None:
    """How a container ended last; None while it runs or before it ever ran."""
    state = container["state"]
    ended = state.get("terminated") or ({} if "running" in state else container["lastState"].get("terminated") or {})
    return ended.get("exitCode")


def _phase(restart_policy: str, initialised: bool, containers: Sequence[Object]) -> str:
    codes = [exit_code(one) for one in containers]
    fresh = any("waiting" in one["state"] and code is None for one, code in zip(containers, codes, strict=True))
    if not initialised or fresh:
        return "Pending"
    if restart_policy == "Always" or any(one["started"] for one in containers):
        return "Running"
    if not any(codes):
        return "Succeeded"
    return "Failed" if restart_policy == "Never" else "Running"


def build(
    pod: Object,
    init: Sequence[Object],
    containers: Sequence[Object],
    known: Object,
    *,
    sandbox: bool,
    initialised: bool,
    phase: str = "",
) -> Object:
    """The pod's whole new status; what others wrote into it stays.

    Args:
        pod: with the status that it has in the API.
        init: the statuses of its init containers.
        containers: those of its other containers.
        known: what the node itself says of it: addresses, start, and why it was refused or ended, if it was.
        sandbox: whether the pod's own processes and volumes are there.
        initialised: whether all init containers have succeeded.
        phase: the final one.
    """
    old = pod.get("status") or {}
    beside = [one for one in init if one["ready"] and one["started"]]  # sidecars
    phase = phase or _phase(pod["spec"].get("restartPolicy", "Always"), initialised, [*containers, *beside])
    status = {key: value for key, value in old.items() if key in ("qosClass", "nominatedNodeName", "resize")} | known
    status["phase"] = phase
    if init:
        status["initContainerStatuses"] = init
    if containers:
        status["containerStatuses"] = containers
    ended = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(phase, "")
    idle = " ".join(one["name"] for one in containers if not one["ready"])
    pending = " ".join(one["name"] for one in init if not one["ready"])
    told = {
        "PodReadyToStartContainers": (sandbox and not ended, "", ""),
        "Initialized": (True, "PodCompleted" if phase == "Succeeded" else "", ""),
        "PodScheduled": (True, "", ""),
        "Ready": (not ended, ended, ""),
    }
    if not initialised and (pending or not ended):
        told["Initialized"] = False, "ContainersNotInitialized", f"containers with incomplete status: [{pending}]"
    if idle and not ended:
        told["Ready"] = False, "ContainersNotReady", f"containers with unready status: [{idle}]"
    told["ContainersReady"] = told["Ready"]
    before = {condition["type"]: condition for condition in old.get("conditions") or []}
    status["conditions"] = [_condition(kind, *told[kind], before.pop(kind, {})) for kind in _ORDER]
    status["conditions"] += before.values()
    return status


def _condition(kind: str, true: bool, reason: str, message: str, before: dict[str, Any]) -> Object:
    value = "True" if true else "False"
    since = before.get("lastTransitionTime") if before.get("status") == value else None
    head = {"lastProbeTime": None, "lastTransitionTime": since or times.now()}
    return {**head, **_said(message, reason), "status": value, "type": kind}
