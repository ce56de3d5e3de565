"""State, owner and GPUs of Pod objects. Sends no requests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from aksgpu.common import times
from aksgpu.common.kubernetes_objects import Object
from aksgpu.kube.node_facts import gpus_of

__all__ = [
    "STUCK",
    "UNPULLABLE",
    "State",
    "container_runs",
    "container_state",
    "containers",
    "disruption",
    "ended",
    "ended_by_deletion",
    "gpus",
    "has_run_since",
    "job_name",
    "last_failure",
    "owner",
    "readable_message",
    "restarts",
    "state",
    "was_signalled",
]

UNPULLABLE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
"""Waiting reasons of containers whose image cannot be pulled."""
STUCK = (*UNPULLABLE, "CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff")
"""Waiting reasons of containers that do not start until somebody changes something."""
_SIGNALLED = (137, 143)
"""Exit codes of programs that SIGKILL and SIGTERM end, which the kubelet sends when a pod is deleted."""

_RECORD = "\naksgpu1."
"""Beginning of such a record: see :mod:`aksgpu.payload.records`."""


class State(NamedTuple):
    """A pod's state."""

    word: str
    """As kubectl's STATUS column has it: ``Pending``, ``ContainerCreating``, ``Running``, ``OOMKilled``, ..."""
    message: str
    """The cluster's message about it; may be empty."""


def state(pod: Object) -> State:
    """Return a pod's state as kubectl shows it, and the reason."""
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
    """Return the statuses of a pod's containers, then those of its init containers.

    Sidecars are init containers and end after the containers, so their state matters less.
    """
    return (*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ()))


def container_state(pod: Object, name: str) -> Object:
    """Return the state of a container that is not an init container; empty if the pod has none of this name yet."""
    for entry in (pod.get("status") or {}).get("containerStatuses") or ():
        if entry["name"] == name:
            found: Object = entry.get("state") or {}
            return found
    return {}


def container_runs(pod: Object, name: str) -> bool:
    """Return whether a container that is not an init container runs."""
    return "running" in container_state(pod, name)


def _container_states(status: Object) -> Iterator[State]:
    """Yield the states of containers that wait or failed, the most important first."""
    for entry in containers(status):
        current = entry.get("state") or {}
        waiting = current.get("waiting")
        ended = current.get("terminated")
        if waiting and waiting.get("reason") not in (None, "PodInitializing"):
            yield State(waiting["reason"], waiting.get("message") or "")
        elif ended and ended.get("exitCode"):
            message = readable_message(ended) or f"exit code {ended.get('exitCode')}"
            yield State(ended.get("reason") or "Error", message)


def readable_message(ended: Mapping[str, Any]) -> str:
    """Return the termination message of a container, without the record that the runner of an Executor adds.

    Args:
        ended: the container's ``terminated`` state.
    """
    return str(ended.get("message") or "").partition(_RECORD)[0]


def ended(pod: Object) -> bool:
    """Return whether all containers of a pod have ended."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def last_failure(pod: Object) -> Object | None:
    """Return the ``terminated`` state of a container that failed, now or before a restart; None if none failed.

    The container's name is added as ``container``. A container that ended because its pod was being deleted is returned
    only if no container failed before that.
    """
    ended: Object | None = None
    status = pod.get("status") or {}
    for entry in containers(status):
        for when in ("state", "lastState"):
            found: Object | None = (entry.get(when) or {}).get("terminated")
            if not found or not found.get("exitCode"):
                continue
            failure = {**found, "container": entry["name"]}
            if not ended_by_deletion(pod, failure):
                return failure
            ended = ended or failure
    return ended


def disruption(pod: Object) -> Object | None:
    """Return the DisruptionTarget condition of a pod that the cluster ended; None if there is none."""
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            found: Object = condition
            return found
    return None


def ended_by_deletion(pod: Object, failure: Object) -> bool:
    """Return whether a container ended because its pod was being deleted.

    Times have a resolution of one second. In the second of the deletion, the exit code decides: a Job with the restart
    policy OnFailure deletes its pod at its last failure, often in the same second.

    Args:
        pod: the pod.
        failure: the container's ``terminated`` state.
    """
    metadata = pod["metadata"]
    deadline = times.parse(metadata.get("deletionTimestamp"))
    finished = times.parse(failure.get("finishedAt"))
    if deadline is None or finished is None:
        return False
    deleted = deadline - timedelta(seconds=float(metadata.get("deletionGracePeriodSeconds") or 0))
    if finished == deleted:
        return was_signalled(failure)
    return finished > deleted


def was_signalled(failure: Object) -> bool:
    """Return whether a container ended because of a signal, and not because of its own memory limit (OOMKilled).

    Args:
        failure: the container's ``terminated`` state.
    """
    return failure.get("exitCode") in _SIGNALLED and failure.get("reason") != "OOMKilled"


def has_run_since(pod: Object, failure: Object) -> bool:
    """Return whether a container has run again since it failed. The log of the failed run is then the previous one.

    Args:
        pod: the pod.
        failure: the result of :func:`last_failure`.
    """
    for entry in containers(pod.get("status") or {}):
        if entry["name"] != failure["container"]:
            continue
        state = entry.get("state") or {}
        run = state.get("terminated")
        if "running" in state or (run and {**run, "container": entry["name"]} != failure):
            return True
    return False


def restarts(pod: Object) -> int:
    """Return how often the containers of a pod were restarted."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return sum(int(entry.get("restartCount") or 0) for entry in statuses)


def owner(pod: Object) -> str:
    """Return ``namespace/name`` of a pod's controller (such as a Job), or of the pod if it has none."""
    metadata = pod["metadata"]
    for reference in metadata.get("ownerReferences") or ():
        if reference.get("controller"):
            return f"{metadata['namespace']}/{reference['name']}"
    return f"{metadata['namespace']}/{metadata['name']}"


def job_name(pod: Object) -> str:
    """Return the name of the Job that a pod belongs to; empty if it belongs to none."""
    for reference in pod["metadata"].get("ownerReferences") or ():
        if reference.get("kind") == "Job":
            return str(reference["name"])
    return ""


def gpus(spec: Object) -> dict[str, int]:
    """Return the GPUs that a pod requests, by resource name.

    The scheduler counts the sum of the containers or the largest init container, whichever is more. Sidecars count as
    containers. The runtime's overhead is added.
    """
    together: dict[str, int] = {}
    largest: dict[str, int] = {}
    for container in spec.get("initContainers") or ():
        requested = _requested(container)
        if container.get("restartPolicy") == "Always":
            _add(together, requested)
        else:
            # An init container runs at the same time as the sidecars before it.
            _raise_to(largest, {name: count + together.get(name, 0) for name, count in requested.items()})
    for container in spec["containers"]:
        _add(together, _requested(container))
    _raise_to(together, largest)
    _add(together, gpus_of(spec.get("overhead")))
    return {name: count for name, count in together.items() if count}


def _requested(container: Object) -> dict[str, int]:
    resources = container.get("resources") or {}
    where = f"container {container.get('name')!r}: resources"
    lists = (gpus_of(resources.get(field), f"{where}.{field}") for field in ("limits", "requests"))
    return {name: count for found in lists for name, count in found.items()}


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, count in more.items():
        total[name] = total.get(name, 0) + count


def _raise_to(total: dict[str, int], other: Mapping[str, int]) -> None:
    for name, count in other.items():
        total[name] = max(total.get(name, 0), count)
