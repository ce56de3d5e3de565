"""A pod's status, worked out from the states of its containers as a kubelet does.

Pure functions over plain data: nothing is started, read or sent here.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aksgpu.local.objects import Object

_ORDER = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")


def timestamp(nanoseconds: int) -> str:
    """A time to the second, as Kubernetes writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(nanoseconds // 1_000_000_000))


@dataclass
class Container:
    """How one container of a pod stands.

    Attributes:
        spec: the container as the pod's spec has it.
        image: the image's full reference.
        state: its ``state`` in the API: one of waiting, running, terminated.
        last: its ``lastState``.
    """

    spec: Object
    image: str
    image_id: str = ""
    container_id: str = ""
    restarts: int = 0
    state: dict[str, Any] = field(default_factory=lambda: waiting("ContainerCreating"))
    last: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The container's name."""
        return str(self.spec["name"])

    @property
    def sidecar(self) -> bool:
        """Whether it is an init container that runs beside those after it; only those have a policy of their own."""
        return self.spec.get("restartPolicy") == "Always"

    @property
    def running(self) -> bool:
        """Whether its command runs."""
        return "running" in self.state

    @property
    def exit_code(self) -> int | None:
        """How it ended last; None while it runs or before it ever ran."""
        ended = self.state.get("terminated") or ({} if self.running else self.last.get("terminated") or {})
        return ended.get("exitCode")


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    """The state of a container that does not run yet, or not again."""
    return {"waiting": {**({"message": message} if message else {}), "reason": reason}}


def running(started: int) -> dict[str, Any]:
    """The state of a container whose command runs."""
    return {"running": {"startedAt": timestamp(started)}}


def terminated(container_id: str, code: int, reason: str, message: str, started: int, finished: int) -> dict[str, Any]:
    """The state of a container that ended."""
    return {
        "terminated": {
            "containerID": container_id,
            "exitCode": code,
            "finishedAt": timestamp(finished),
            **({"message": message} if message else {}),
            "reason": reason,
            "startedAt": timestamp(started),
        }
    }


def phase(restart_policy: str, initialised: bool, containers: Sequence[Container]) -> str:
    """The pod's phase."""
    if not initialised:
        return "Pending"
    if any("waiting" in one.state and one.exit_code is None for one in containers):
        return "Pending"
    if any(one.running for one in containers) or restart_policy == "Always":
        return "Running"
    if all(one.exit_code == 0 for one in containers):
        return "Succeeded"
    return "Failed" if restart_policy == "Never" else "Running"


@dataclass(frozen=True)
class Facts:
    """What a pod's status is made of, beside the pod itself.

    Attributes:
        sandbox: whether the pod's own processes and volumes are there.
        initialised: whether all init containers have succeeded.
        failure: ``reason`` and ``message`` of a pod that was refused or ended by its node.
    """

    init: Sequence[Container]
    containers: Sequence[Container]
    host_ip: str
    pod_ip: str
    started: str
    sandbox: bool
    initialised: bool
    failure: tuple[str, str] | None = None
    phase: str = ""


def build(pod: Object, facts: Facts) -> dict[str, Any]:
    """The pod's whole new status; what others wrote into it stays."""
    spec, old = pod["spec"], pod.get("status") or {}
    beside = [one for one in facts.init if one.sidecar and one.running]
    now = facts.phase or phase(spec.get("restartPolicy", "Always"), facts.initialised, [*facts.containers, *beside])
    status = {key: value for key, value in old.items() if key in ("qosClass", "nominatedNodeName", "resize")}
    status |= {
        "conditions": _conditions(old.get("conditions") or [], facts, now),
        "hostIP": facts.host_ip,
        "hostIPs": [{"ip": facts.host_ip}],
        "phase": now,
        "startTime": facts.started,
    }
    if facts.pod_ip:
        status |= {"podIP": facts.pod_ip, "podIPs": [{"ip": facts.pod_ip}]}
    if facts.init:
        status["initContainerStatuses"] = [_container(one, init=True) for one in facts.init]
    if facts.containers:
        status["containerStatuses"] = [_container(one) for one in facts.containers]
    if facts.failure:
        status["reason"], status["message"] = facts.failure
    return status


def _prepared(one: Container) -> bool:
    """Whether an init container lets those after it start."""
    return one.running if one.sidecar else one.exit_code == 0 and "terminated" in one.state


def _container(one: Container, *, init: bool = False) -> dict[str, Any]:
    mounts = [
        {
            "mountPath": mount["mountPath"],
            "name": mount["name"],
            **({"readOnly": True, "recursiveReadOnly": "Disabled"} if mount.get("readOnly") else {}),
        }
        for mount in one.spec.get("volumeMounts") or []
    ]
    return {
        **({"containerID": one.container_id} if one.container_id else {}),
        "image": one.image,
        "imageID": one.image_id,
        "lastState": one.last,
        "name": one.name,
        "ready": _prepared(one) if init else one.running,
        "restartCount": one.restarts,
        "started": one.running,
        "state": one.state,
        **({"volumeMounts": mounts} if mounts else {}),
    }


def _conditions(old: list[dict[str, Any]], facts: Facts, now: str) -> list[dict[str, Any]]:
    ended = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(now)
    idle = [one.name for one in facts.containers if not one.running]
    pending = [one.name for one in facts.init if not _prepared(one)]
    told: dict[str, tuple[bool, str, str]] = {
        "PodReadyToStartContainers": (facts.sandbox and not ended, "", ""),
        "Initialized": (True, "PodCompleted" if now == "Succeeded" else "", ""),
        "PodScheduled": (True, "", ""),
    }
    if not facts.initialised and not (ended and not pending):
        text = f"containers with incomplete status: [{' '.join(pending)}]"
        told["Initialized"] = (False, "ContainersNotInitialized", text)
    ready = (True, "", "")
    if ended:
        ready = (False, ended, "")
    elif idle:
        ready = (False, "ContainersNotReady", f"containers with unready status: [{' '.join(idle)}]")
    told["Ready"] = told["ContainersReady"] = ready
    before = {condition["type"]: condition for condition in old}
    mine = [_condition(kind, *told[kind], before.get(kind)) for kind in _ORDER]
    return mine + [condition for condition in old if condition["type"] not in _ORDER]


def _condition(kind: str, true: bool, reason: str, message: str, before: dict[str, Any] | None) -> dict[str, Any]:
    value = "True" if true else "False"
    unchanged = before is not None and before["status"] == value
    since = before.get("lastTransitionTime") if before and unchanged else None
    return {
        "lastProbeTime": None,
        "lastTransitionTime": since or timestamp(time.time_ns()),
        **({"message": message} if message else {}),
        **({"reason": reason} if reason else {}),
        "status": value,
        "type": kind,
    }
