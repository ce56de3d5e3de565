"""How single cells of kubectl's tables are shown: the functions that ``data/columns.yaml`` names.

Each is given a value (or, as ``whole``, an object) and the time, and gives the cell. STATUS of a pod, above all, is no
field: it is worked out from phase, reasons and container states by the rules of Kubernetes' own printer, since that
word is what people act on (``CrashLoopBackOff``, ``Init:0/1``, ``Completed``).
"""

from __future__ import annotations

from datetime import datetime
from math import inf
from typing import Any

from aksgpu.local.selectors import get_path

Object = dict[str, Any]

_NONE = "<none>"
_UNKNOWN = "<unknown>"
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_STEPS = (
    (120, "s", ""), (600, "m", "s"), (10_800, "m", ""), (28_800, "h", "m"), (172_800, "h", ""), (691_200, "d", "h"),
    (inf, "d", ""),
)  # fmt: skip
"""Below so many seconds, a duration is shown in these one or two units."""
_ACCESS_MODES = {
    "ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP",
}  # fmt: skip


def duration(seconds: float) -> str:
    """A duration as in the AGE column: two units at most, coarser the longer it is."""
    total = int(seconds)
    if total < -1:
        return "<invalid>"
    large, small = next((large, small) for below, large, small in _STEPS if total < below)
    count, rest = divmod(max(total, 0), _SECONDS[large])
    rest //= _SECONDS[small]
    return f"{count}{large}" + (f"{rest}{small}" if small and rest else "")


def age(text: Any, now: datetime) -> str:
    """How long ago a timestamp was."""
    try:
        return duration((now - datetime.fromisoformat(text)).total_seconds())
    except (TypeError, ValueError):
        return _UNKNOWN


def count(value: Any, now: datetime) -> int:
    """How many there are."""
    return len(value or ())


def labels(value: Any, now: datetime) -> str:
    """``a=1,b=2``."""
    return ",".join(f"{key}={value[key]}" for key in sorted(value)) if value else _NONE


def data_count(obj: Object, now: datetime) -> int:
    """Keys of a ConfigMap or Secret."""
    return len(obj.get("data") or ()) + len(obj.get("binaryData") or ())


# Events.


def reference(about: Any, now: datetime) -> str:
    """``pod/name``."""
    kind, name = ((about or {}).get(field, "") for field in ("kind", "name"))
    return f"{kind.lower()}/{name}" if name else str(kind.lower())


def first_seen(event: Object, now: datetime) -> str:
    """When an event was told first."""
    return age(event.get("firstTimestamp") or event.get("eventTime"), now)


def last_seen(event: Object, now: datetime) -> str:
    """When an event was told last."""
    last = get_path(event, "series.lastObservedTime") or event.get("lastTimestamp")
    return age(last, now) if last else first_seen(event, now)


def event_count(event: Object, now: datetime) -> int:
    """How often an event was told."""
    return get_path(event, "series.count") or event.get("count") or 1


def event_source(event: Object, now: datetime) -> str:
    """Who told it, and where."""
    source = event.get("source")
    told = (source.get("component"), source.get("host")) if source else ()
    return ", ".join(filter(None, told or (event.get("reportingComponent"), event.get("reportingInstance"))))


# Jobs.


def job_status(job: Object, now: datetime) -> str:
    """The condition that says most."""
    true = {each["type"] for each in get_path(job, "status.conditions") or () if each.get("status") == "True"}
    deleted = ("Terminating",) if job["metadata"].get("deletionTimestamp") else ()
    shown = ("Complete", "Failed", *deleted, "Suspended", "FailureTarget")
    return next((each for each in shown if each in true or each in deleted), "Running")


def job_completions(job: Object, now: datetime) -> str:
    """``1/3``."""
    spec = job["spec"]
    done = get_path(job, "status.succeeded") or 0
    if (wanted := spec.get("completions")) is not None:
        return f"{done}/{wanted}"
    parallel = spec.get("parallelism") or 0
    return f"{done}/1 of {parallel}" if parallel > 1 else f"{done}/1"


def job_duration(status: Any, now: datetime) -> str:
    """From the start to the end, or to now."""
    started = (status or {}).get("startTime")
    ended = (status or {}).get("completionTime")
    return age(started, datetime.fromisoformat(ended) if ended else now) if started else ""


# Nodes.


def node_status(node: Object, now: datetime) -> str:
    """``Ready``, and whether it is cordoned."""
    conditions = {each.get("type"): each.get("status") for each in get_path(node, "status.conditions") or ()}
    state = {"True": "Ready", None: "Unknown"}.get(conditions.get("Ready"), "NotReady")
    return state + (",SchedulingDisabled" if get_path(node, "spec.unschedulable") else "")


def node_roles(value: Any, now: datetime) -> str:
    """The roles that labels give."""
    prefix = "node-role.kubernetes.io/"
    roles = {key.removeprefix(prefix) for key in value or {} if key.startswith(prefix)}
    roles.add((value or {}).get("kubernetes.io/role", ""))
    return ",".join(sorted(roles - {""})) or _NONE


def internal_ip(addresses: Any, now: datetime) -> str:
    """The first address within the cluster."""
    return _address(addresses, "InternalIP")


def external_ip(addresses: Any, now: datetime) -> str:
    """The first address for the outside."""
    return _address(addresses, "ExternalIP")


def _address(addresses: Any, kind: str) -> str:
    return next((each["address"] for each in addresses or () if each.get("type") == kind), _NONE)


# Claims, quotas, bindings, services.


def claim_status(claim: Object, now: datetime) -> str:
    """The phase, or that it is going."""
    return "Terminating" if claim["metadata"].get("deletionTimestamp") else get_path(claim, "status.phase") or ""


def access_modes(modes: Any, now: datetime) -> str:
    """``RWO,ROX``."""
    return ",".join(_ACCESS_MODES.get(mode, mode) for mode in modes or ())


def quota_requests(quota: Object, now: datetime) -> str:
    """What is used of each quota that is not about limits."""
    return _quota(quota, limits=False)


def quota_limits(quota: Object, now: datetime) -> str:
    """What is used of each quota about limits."""
    return _quota(quota, limits=True)


def _quota(quota: Object, *, limits: bool) -> str:
    hard = get_path(quota, "status.hard") or get_path(quota, "spec.hard") or {}
    used = get_path(quota, "status.used") or {}
    shown = (each for each in sorted(hard) if each.startswith("limits") is limits)
    return ", ".join(f"{each}: {used.get(each, '0')}/{hard[each]}" for each in shown)


def role(value: Any, now: datetime) -> str:
    """``Role/name``."""
    return f"{(value or {}).get('kind', '')}/{(value or {}).get('name', '')}"


def ports(value: Any, now: datetime) -> str:
    """``80/TCP,443:30443/TCP``."""
    numbers = (
        (f"{each['port']}:{each['nodePort']}" if each.get("nodePort") else each["port"], each) for each in value or ()
    )
    return ",".join(f"{number}/{each.get('protocol', 'TCP')}" for number, each in numbers) or _NONE


# Pods.


def pod_ready(pod: Object, now: datetime) -> str:
    """Ready containers of all, sidecars included."""
    spec, status, sidecars = _spec_status_sidecars(pod)
    ready = sum(_is_running_and_ready(each) for each in status.get("containerStatuses") or ())
    ready += sum(
        each["name"] in sidecars and bool(each.get("started") and each.get("ready"))
        for each in status.get("initContainerStatuses") or ()
    )
    return f"{ready}/{len(spec.get('containers') or ()) + len(sidecars)}"


def pod_restarts(pod: Object, now: datetime) -> str:
    """Restarts of the containers that matter by now, and how long ago the last one was."""
    spec, status, sidecars = _spec_status_sidecars(pod)
    inits = status.get("initContainerStatuses") or []
    if _init_status(spec, status, sidecars) is None:
        inits = [each for each in inits if each["name"] in sidecars] + (status.get("containerStatuses") or [])
    restarts = sum(each.get("restartCount") or 0 for each in inits)
    ends = (get_path(each, "lastState.terminated.finishedAt") for each in inits)
    last = max(filter(None, ends), default="")
    return f"{restarts} ({age(last, now)} ago)" if restarts and last else str(restarts)


def pod_status(pod: Object, now: datetime) -> str:
    """The word for how the pod is."""
    spec, status, sidecars = _spec_status_sidecars(pod)
    phase = status.get("phase") or ""
    if pod["metadata"].get("deletionTimestamp") and phase not in ("Succeeded", "Failed"):
        return "Terminating"
    if initializing := _init_status(spec, status, sidecars):
        return initializing
    gated = any(each.get("reason") == "SchedulingGated" for each in status.get("conditions") or ())
    reason = "SchedulingGated" if gated else status.get("reason") or phase
    containers = status.get("containerStatuses") or []
    for container in reversed(containers):
        if waiting := get_path(container, "state.waiting.reason"):
            reason = waiting
        elif (ended := get_path(container, "state.terminated")) is not None:
            reason = _termination_reason(ended)
    if reason == "Completed" and any(map(_is_running_and_ready, containers)):
        return "Running" if _condition_is_true(status, "Ready") else "NotReady"
    return reason


def _spec_status_sidecars(pod: Object) -> tuple[Object, Object, set[str]]:
    """Spec, status, and the names of the sidecars: init containers that go on beside the others."""
    spec = pod.get("spec") or {}
    sidecars = {each["name"] for each in spec.get("initContainers") or () if each.get("restartPolicy") == "Always"}
    return spec, pod.get("status") or {}, sidecars


def _init_status(spec: Object, status: Object, sidecars: set[str]) -> str | None:
    """What the first unfinished init container says, or None when all are through."""
    inits = status.get("initContainerStatuses")
    if not inits or _condition_is_true(status, "Initialized"):
        return None
    for index, container in enumerate(inits):
        ended = get_path(container, "state.terminated")
        waiting = get_path(container, "state.waiting.reason")
        if ended is not None:
            if ended.get("exitCode", 0) == 0:
                continue
            return f"Init:{_termination_reason(ended)}"
        if container["name"] in sidecars and container.get("started"):
            continue
        if waiting and waiting != "PodInitializing":
            return f"Init:{waiting}"
        return f"Init:{index}/{len(spec.get('initContainers') or ())}"
    return None


def _is_running_and_ready(container: Object) -> bool:
    return bool(container.get("ready")) and get_path(container, "state.running") is not None


def _condition_is_true(status: Object, condition: str) -> bool:
    return any(
        each.get("type") == condition and each.get("status") == "True" for each in status.get("conditions") or ()
    )


def _termination_reason(terminated: Object) -> str:
    if terminated.get("signal") and not terminated.get("reason"):
        return f"Signal:{terminated['signal']}"
    return str(terminated.get("reason") or f"ExitCode:{terminated.get('exitCode', 0)}")
