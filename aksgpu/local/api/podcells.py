"""What kubectl's pod table says of a pod: READY, STATUS and RESTARTS.

STATUS is no field of a pod: it is worked out from phase, reasons and container states, by the rules of Kubernetes'
own printer, since that word is what people act on (``CrashLoopBackOff``, ``Init:0/1``, ``Completed``).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from aksgpu.local.api.humanize import moment, since

Object = dict[str, Any]

_SUCCEEDED = {
    "type": "Completed",
    "status": "True",
    "reason": "Succeeded",
    "message": "The pod has completed successfully.",
}
_FAILED = {"type": "Completed", "status": "True", "reason": "Failed", "message": "The pod failed."}


def pod_conditions(pod: Object) -> list[Object]:
    """A row's conditions, by which clients may hide finished pods."""
    phase = (pod.get("status") or {}).get("phase")
    return [_SUCCEEDED] if phase == "Succeeded" else [_FAILED] if phase == "Failed" else []


def pod_cells(pod: Object, now: datetime) -> list[Any]:
    """The cells of a pod's row."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    inits, mains = status.get("initContainerStatuses") or [], status.get("containerStatuses") or []
    sidecars = {c["name"] for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"}
    initializing = _initializing(inits, sidecars, len(spec.get("initContainers") or ()))
    started = initializing is None or _condition(status, "Initialized")
    counted = [*(c for c in inits if c["name"] in sidecars), *mains] if started else inits
    ready = sum(c["name"] in sidecars and bool(c.get("started") and c.get("ready")) for c in inits)
    ready += sum(bool(c.get("ready") and (c.get("state") or {}).get("running") is not None) for c in mains)
    total = len(spec.get("containers") or ()) + len(sidecars)
    gates = [gate.get("conditionType") for gate in spec.get("readinessGates") or ()]
    return [
        pod["metadata"].get("name", ""),
        f"{ready}/{total}",
        _status(pod, status, mains if started else [], None if started else initializing),
        _restarts(counted, now),
        since(pod["metadata"].get("creationTimestamp"), now),
        status.get("podIP") or "<none>",
        spec.get("nodeName") or "<none>",
        status.get("nominatedNodeName") or "<none>",
        f"{sum(_condition(status, gate) for gate in gates)}/{len(gates)}" if gates else "<none>",
    ]


def _condition(status: Object, type_: str | None) -> bool:
    return any(c.get("type") == type_ and c.get("status") == "True" for c in status.get("conditions") or ())


def _initializing(inits: list[Object], sidecars: set[str], total: int) -> str | None:
    """What the first unfinished init container says, or None when all are through."""
    for index, container in enumerate(inits):
        state = container.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting") or {}
        if ended is not None and ended.get("exitCode", 0) == 0:
            continue
        if container["name"] in sidecars and container.get("started"):
            continue
        if ended is not None:
            return f"Init:{_ending(ended)}"
        if waiting.get("reason") and waiting["reason"] != "PodInitializing":
            return f"Init:{waiting['reason']}"
        return f"Init:{index}/{total}"
    return None


def _ending(terminated: Object) -> str:
    if reason := terminated.get("reason"):
        return str(reason)
    signal = terminated.get("signal")
    return f"Signal:{signal}" if signal else f"ExitCode:{terminated.get('exitCode', 0)}"


def _status(pod: Object, status: Object, mains: list[Object], initializing: str | None) -> str:
    phase = status.get("phase") or ""
    reason = status.get("reason") or phase
    if any(
        c.get("type") == "PodScheduled" and c.get("reason") == "SchedulingGated" for c in status.get("conditions") or ()
    ):
        reason = "SchedulingGated"
    reason, running = initializing or reason, False
    for container in reversed(mains):
        state = container.get("state") or {}
        if (state.get("waiting") or {}).get("reason"):
            reason = state["waiting"]["reason"]
        elif state.get("terminated") is not None:
            reason = _ending(state["terminated"])
        elif container.get("ready") and state.get("running") is not None:
            running = True
    if reason == "Completed" and running:
        reason = "Running" if _condition(status, "Ready") else "NotReady"
    if pod["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            return "Unknown"
        if phase not in ("Succeeded", "Failed"):
            return "Terminating"
    return reason


def _restarts(containers: Iterable[Object], now: datetime) -> str:
    count, last = 0, ""
    for container in containers:
        count += container.get("restartCount") or 0
        ended = ((container.get("lastState") or {}).get("terminated") or {}).get("finishedAt")
        if ended and (not last or moment(ended) > moment(last)):
            last = ended
    return f"{count} ({since(last, now)} ago)" if count and last else str(count)
