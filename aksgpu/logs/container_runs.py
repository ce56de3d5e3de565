"""Which run of a container a pod's status describes, and whether another run may follow. Sends no requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from aksgpu.errors import InvalidInput
from aksgpu.kube.pod_facts import containers
from aksgpu.logs.deduplication import seconds_of

__all__ = [
    "Observation",
    "Run",
    "State",
    "choose_container",
    "first_line",
    "observe",
    "remember_first_line",
]

Object = Mapping[str, Any]


class State(Enum):
    """The state of a container."""

    WAITING = "waiting"
    """It has not started."""
    RUNNING = "running"
    """Its newest run is running."""
    ENDED = "ended"
    """Its newest run has ended."""
    NEVER_STARTED = "never started"
    """The pod has ended, and the container never started."""
    GONE = "gone"
    """The pod no longer exists."""


_REMEMBERED_RUNS = 1000
"""Number of runs whose first line is remembered."""

_first_lines: dict[str, str] = {}
"""Timestamp of the first line of each run that this process has read or followed, by the container's ID."""


@dataclass(frozen=True)
class Run:
    """One run of a container, from its start to its end."""

    number: int
    """The number of restarts before it."""
    id: str = ""
    """The runtime's ID of the container; empty if the status does not have it."""
    started: float | None = None
    """Seconds since 1970 by the node's clock, truncated; None if the status does not have it."""
    finished: float | None = None
    """The same for its end; None while it is running too."""

    def is_same(self, other: Run) -> bool:
        """Return whether both describe the same run."""
        if self.id and other.id:
            return self.id == other.id
        if self.number == other.number and self.started is not None and other.started is not None:
            return self.started == other.started
        return self.number == other.number


@dataclass(frozen=True)
class Observation:
    """The state of one container according to a Pod object."""

    state: State
    run: Run | None = None
    """The newest run; None before the first."""
    previous: Run | None = None
    """The run before it, which ``previous=true`` requests. None while the container waits for its restart."""
    final: bool = False
    """Whether no further run can follow."""
    restarts_possible: bool = True
    """Whether the kubelet may restart this container in its pod."""
    awaits_restart: bool = False
    """Whether a run has ended, and the container waits for its next run. The log, with ``previous=true`` too, is that
    of the ended run. The runs before that cannot be read."""


def observe(pod: Object, container: str) -> Observation:
    """Return the state of one container according to a Pod object."""
    status = pod.get("status") or {}
    has_ended = status.get("phase") in ("Succeeded", "Failed")
    policy = _restart_policy(pod, container)
    for entry in containers(status):
        if entry["name"] == container:
            return _observe_status(entry, policy, has_ended)
    state = State.NEVER_STARTED if has_ended else State.WAITING
    return Observation(state, final=has_ended, restarts_possible=policy != "Never")


def _observe_status(entry: Object, policy: str, pod_has_ended: bool) -> Observation:
    """Return the state of a container according to its status."""
    state = entry.get("state") or {}
    restarts = int(entry.get("restartCount") or 0)
    restarts_possible = policy != "Never"
    ended = state.get("terminated")
    last = (entry.get("lastState") or {}).get("terminated")
    previous = None
    if last is not None:
        previous = _run(last, max(restarts - 1, 0))
    if ended is not None:
        is_last = not restarts_possible or (policy == "OnFailure" and ended.get("exitCode") == 0)
        run = _run(ended, restarts, entry)
        return Observation(State.ENDED, run, previous, pod_has_ended or is_last, restarts_possible)
    if "running" in state:
        run = _run(state["running"] or {}, restarts, entry)
        return Observation(State.RUNNING, run, previous, pod_has_ended, restarts_possible)
    if last is not None:
        run = _run(last, _number_of_last_state(entry, last))
        return Observation(State.ENDED, run, None, pod_has_ended, restarts_possible, awaits_restart=True)
    waiting = State.NEVER_STARTED if pod_has_ended else State.WAITING
    return Observation(waiting, None, None, pod_has_ended, restarts_possible)


def _number_of_last_state(entry: Object, last: Object) -> int:
    """Return the number of the run in ``lastState`` of a container that waits for its restart.

    ``restartCount`` counts the next run once its container has been created, which shows in ``containerID``.
    """
    restarts = int(entry.get("restartCount") or 0)
    current = entry.get("containerID")
    ended = last.get("containerID")
    if current and ended:
        is_created = current != ended
    else:
        waiting = (entry.get("state") or {}).get("waiting") or {}
        is_created = waiting.get("reason") != "CrashLoopBackOff"
    return max(restarts - 1, 0) if is_created else restarts


def _run(detail: Object, number: int, entry: Object | None = None) -> Run:
    container_id = detail.get("containerID") or (entry or {}).get("containerID") or ""
    return Run(number, str(container_id), _seconds(detail.get("startedAt")), _seconds(detail.get("finishedAt")))


def _seconds(timestamp: Any) -> float | None:
    try:
        return seconds_of(timestamp) if timestamp else None
    except (TypeError, ValueError):
        return None


def _restart_policy(pod: Object, container: str) -> str:
    """Return the restart policy of a container.

    Sidecars are always restarted; other init containers until they succeed, unless the pod's policy is Never.
    """
    spec = pod["spec"]
    policy = str(spec.get("restartPolicy") or "Always")
    for each in spec.get("initContainers") or ():
        if each["name"] == container:
            init_policy = "Never" if policy == "Never" else "OnFailure"
            return str(each.get("restartPolicy") or init_policy)
    return policy


def remember_first_line(container_id: str, timestamp: str) -> None:
    """Remember how a run begins, so that a later read can tell whether the node has rotated its first lines away.

    Args:
        container_id: the runtime's ID of the container; if it is empty, nothing is remembered.
        timestamp: timestamp of the run's first line.
    """
    if not container_id or container_id in _first_lines:
        return
    if len(_first_lines) >= _REMEMBERED_RUNS:
        oldest = next(iter(_first_lines))
        _first_lines.pop(oldest, None)
    _first_lines[container_id] = timestamp


def first_line(container_id: str) -> str | None:
    """Return the timestamp of a run's first line as it was read before; None if it was not."""
    return _first_lines.get(container_id)


def choose_container(pod: Object, name: str | None) -> str:
    """Return the named container, or the pod's default or first one.

    Raises:
        InvalidInput: the pod has no container of that name.
    """
    spec = pod["spec"]
    if name is None:
        annotations = pod["metadata"].get("annotations") or {}
        return str(annotations.get("kubectl.kubernetes.io/default-container") or spec["containers"][0]["name"])
    names = [each["name"] for each in (*(spec.get("initContainers") or ()), *spec["containers"])]
    if name not in names:
        pod_name = pod["metadata"]["name"]
        raise InvalidInput(
            f"`container` must be one of the containers of pod {pod_name}, got {name!r}",
            hint=f"It has {', '.join(names)}.",
        )
    return name
