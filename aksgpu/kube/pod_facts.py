"""What a Pod object says: its state in one word, who owns it, and the GPUs that it takes. Reads dicts, asks nobody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from aksgpu.common.kubernetes_objects import Object
from aksgpu.kube.node_facts import gpus_of

__all__ = [
    "STUCK",
    "UNPULLABLE",
    "State",
    "containers",
    "disruption",
    "ended",
    "ended_by_deletion",
    "gpus",
    "last_failure",
    "owner",
    "restarts",
    "state",
]

UNPULLABLE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
"""Reasons with which a container waits for an image that does not come."""
STUCK = (*UNPULLABLE, "CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff")
"""Reasons with which a container waits for something that only a person changes."""


class State(NamedTuple):
    """A pod's state."""

    word: str
    """As kubectl's STATUS column has it: ``Pending``, ``ContainerCreating``, ``Running``, ``OOMKilled``, ..."""
    message: str
    """The cluster's own words for it; may be empty."""


def state(pod: Object) -> State:
    """A pod's state in one word, and why."""
    status = pod.get("status") or {}
    phase = status.get("phase") or "Unknown"
    if pod["metadata"].get("deletionTimestamp"):
        return State("Terminating", status.get("message") or "")
    if status.get("reason"):  # such as Evicted
        return State(status["reason"], status.get("message") or "")
    if phase in ("Pending", "Running", "Failed"):
        for found in _container_states(status):
            return found
    if phase == "Pending":
        for condition in status.get("conditions") or ():
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                return State(condition.get("reason") or "Pending", condition.get("message") or "")
        return State("ContainerCreating" if pod["spec"].get("nodeName") else "Pending", "")
    return State("Completed" if phase == "Succeeded" else phase, status.get("message") or "")


def containers(status: Object) -> tuple[Object, ...]:
    """What a pod's status says of each container, the most telling first.

    While an init container is in the way, the others have not begun; and a sidecar, which is one too, is ended when
    they have, whatever their fate.
    """
    return (*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ()))


def _container_states(status: Object) -> Iterator[State]:
    """States of containers that stand in the way, most telling first."""
    for entry in containers(status):
        waiting = (entry.get("state") or {}).get("waiting")
        ended = (entry.get("state") or {}).get("terminated")
        if waiting and waiting.get("reason") not in (None, "PodInitializing"):
            yield State(waiting["reason"], waiting.get("message") or "")
        elif ended and ended.get("exitCode"):
            yield State(ended.get("reason") or "Error", ended.get("message") or f"exit code {ended.get('exitCode')}")


def ended(pod: Object) -> bool:
    """Whether all its containers have ended for good."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def last_failure(pod: Object) -> Object | None:
    """How the container that failed last ended: its ``terminated`` state, of now or of before a restart.

    With the container's name, as ``container``.
    """
    status = pod.get("status") or {}
    for entry in containers(status):
        for when in ("state", "lastState"):
            found: Object | None = (entry.get(when) or {}).get("terminated")
            if found and found.get("exitCode"):
                return {**found, "container": entry["name"]}
    return None


def disruption(pod: Object) -> Object | None:
    """The pod's DisruptionTarget condition: the cluster ended the pod, not its program. None if there is none."""
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            found: Object = condition
            return found
    return None


def ended_by_deletion(pod: Object, failure: Object) -> bool:
    """Whether a container ended because its pod was being deleted.

    Args:
        pod: the pod.
        failure: the container's ``terminated`` state.
    """
    metadata = pod["metadata"]
    deadline = _moment(metadata.get("deletionTimestamp"))
    finished = _moment(failure.get("finishedAt"))
    if deadline is None or finished is None:
        return False
    return finished >= deadline - timedelta(seconds=float(metadata.get("deletionGracePeriodSeconds") or 0))


def _moment(stamp: Any) -> datetime | None:
    """A time of the API server's; None if there is none."""
    try:
        return datetime.fromisoformat(str(stamp)) if stamp else None
    except ValueError:
        return None


def restarts(pod: Object) -> int:
    """How often its containers were started again."""
    return sum(int(e.get("restartCount") or 0) for e in (pod.get("status") or {}).get("containerStatuses") or ())


def owner(pod: Object) -> str:
    """Who made it: ``namespace/name`` of its controller (such as a Job), or of itself."""
    metadata = pod["metadata"]
    for reference in metadata.get("ownerReferences") or ():
        if reference.get("controller"):
            return f"{metadata['namespace']}/{reference['name']}"
    return f"{metadata['namespace']}/{metadata['name']}"


def gpus(spec: Object) -> dict[str, int]:
    """GPUs that a pod takes, by resource name.

    As the scheduler counts: the containers together or the largest init container, whichever is more; init containers
    that stay (sidecars) count with the containers; the runtime's overhead comes on top.
    """
    together: dict[str, int] = {}
    largest: dict[str, int] = {}
    for container in spec.get("initContainers") or ():
        wants = _wants(container)
        if container.get("restartPolicy") == "Always":
            _add(together, wants)
        else:
            # An init container runs beside the sidecars that were started before it.
            _most(largest, {name: count + together.get(name, 0) for name, count in wants.items()})
    for container in spec["containers"]:
        _add(together, _wants(container))
    _most(together, largest)
    _add(together, gpus_of(spec.get("overhead")))
    return {name: count for name, count in together.items() if count}


def _wants(container: Object) -> dict[str, int]:
    resources = container.get("resources") or {}
    where = f"container {container.get('name')!r}: resources"
    lists = (gpus_of(resources.get(field), f"{where}.{field}") for field in ("limits", "requests"))
    return {name: count for found in lists for name, count in found.items()}


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, count in more.items():
        total[name] = total.get(name, 0) + count


def _most(total: dict[str, int], other: Mapping[str, int]) -> None:
    for name, count in other.items():
        total[name] = max(total.get(name, 0), count)
