"""Which run of a container a pod's status speaks of, and whether a further one may come. Sends nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aksgpu.common.kubernetes_objects import Object
from aksgpu.errors import InvalidInput
from aksgpu.kube.pod_facts import containers
from aksgpu.logs.deduplication import seconds_of

WAITING = "waiting"
"""The container has not started."""
RUNNING = "running"
"""The newest run goes on."""
ENDED = "ended"
"""The newest run has ended."""
NEVER = "never"
"""The pod has ended and this container never started."""
GONE = "gone"
"""The pod is not there any more."""
_KNOWN_RUNS = 1000
"""Runs whose first line is remembered."""

_first_lines: dict[str, str] = {}
"""Stamp of the first line of each run that this process has read or followed, by the container's id."""


@dataclass(frozen=True)
class Run:
    """One run of a container, from its start to its end."""

    restarts: int
    """How often the container was restarted before it."""
    id: str = ""
    """The runtime's id of the container; empty where the status does not say."""
    started: float | None = None
    """Seconds since 1970 by the node's clock, truncated; None where the status does not say."""
    finished: float | None = None
    """The same for its end; None while it runs as well."""

    def same(self, other: Run) -> bool:
        """Whether both are one run."""
        if self.id and other.id:
            return self.id == other.id
        if self.restarts == other.restarts and self.started is not None and other.started is not None:
            return self.started == other.started
        return self.restarts == other.restarts


@dataclass(frozen=True)
class Seen:
    """What one look at a pod says of a container."""

    state: str
    """One of this module's constants."""
    run: Run | None = None
    """The newest run; None before the first."""
    previous: Run | None = None
    """The run before it, which ``previous=true`` asks for."""
    final: bool = False
    """No further run will come."""
    restarts_possible: bool = True
    """Whether the kubelet restarts this container in place at all."""
    deleting: bool = False
    """Whether the pod is being deleted."""
    between: bool = False
    """Whether a run has ended and the next one is waited for. The log is that of the ended one, with ``previous=true``
    as well, and ``restarts`` may count the next one already."""


def seen(pod: Object, container: str) -> Seen:
    """What a Pod object says of one of its containers."""
    status = pod.get("status") or {}
    over = status.get("phase") in ("Succeeded", "Failed")
    deleting = bool(pod["metadata"].get("deletionTimestamp"))
    policy = _policy(pod, container)
    for entry in containers(status):
        if entry["name"] == container:
            return _container(entry, policy, over, deleting)
    state = NEVER if over else WAITING
    return Seen(state, final=over, restarts_possible=policy != "Never", deleting=deleting)


def _container(entry: Object, policy: str, over: bool, deleting: bool) -> Seen:
    state = entry.get("state") or {}
    ended = state.get("terminated")
    last = (entry.get("lastState") or {}).get("terminated")
    restarts = int(entry.get("restartCount") or 0)
    previous = _run(last, max(restarts - 1, 0)) if last else None
    again = policy != "Never"
    if ended is not None:
        stays = not again or (policy == "OnFailure" and ended.get("exitCode") == 0)
        return Seen(ENDED, _run(ended, restarts, entry), previous, over or stays, again, deleting)
    if "running" in state:
        return Seen(RUNNING, _run(state["running"] or {}, restarts, entry), previous, over, again, deleting)
    if last is not None:
        return Seen(ENDED, _run(last, restarts), None, over, again, deleting, between=True)
    return Seen(NEVER if over else WAITING, None, None, over, again, deleting)


def _run(detail: Object, restarts: int, entry: Object | None = None) -> Run:
    identity = detail.get("containerID") or (entry or {}).get("containerID") or ""
    return Run(restarts, str(identity), _time(detail.get("startedAt")), _time(detail.get("finishedAt")))


def _time(stamp: Any) -> float | None:
    try:
        return seconds_of(stamp) if stamp else None
    except (TypeError, ValueError):
        return None


def _policy(pod: Object, container: str) -> str:
    spec = pod["spec"]
    for each in spec.get("initContainers") or ():
        if each["name"] == container:
            # A sidecar is restarted whatever the pod's policy is; other init containers until they succeed.
            own = each.get("restartPolicy")
            policy = spec.get("restartPolicy") or "Always"
            return str(own or ("Never" if policy == "Never" else "OnFailure"))
    return str(spec.get("restartPolicy") or "Always")


def remember_first(run: str, stamp: str) -> None:
    """Remember with which line a run begins, so that a later read can tell that it was rotated away.

    Args:
        run: the container's id; empty where it is not known.
        stamp: of the run's first line.
    """
    if run and run not in _first_lines:
        if len(_first_lines) >= _KNOWN_RUNS:
            _first_lines.pop(next(iter(_first_lines)), None)
        _first_lines[run] = stamp


def first_line(run: str) -> str | None:
    """Stamp of the first line of a run, as it was read before; None where it was not."""
    return _first_lines.get(run)


def chosen_container(pod: Object, name: str | None) -> str:
    """The container that is meant: the named one, or the pod's default or first one.

    Raises:
        InvalidInput: the pod has no container of that name.
    """
    spec = pod["spec"]
    names = [each["name"] for each in (*(spec.get("initContainers") or ()), *spec["containers"])]
    if name is None:
        annotations = pod["metadata"].get("annotations") or {}
        return str(annotations.get("kubectl.kubernetes.io/default-container") or spec["containers"][0]["name"])
    if name not in names:
        raise InvalidInput(
            f"pod {pod['metadata']['name']} has no container {name!r}", hint=f"It has {', '.join(names)}."
        )
    return name
