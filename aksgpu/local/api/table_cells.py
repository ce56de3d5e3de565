"""The cells of kubectl's tables: the functions that ``data/columns.yaml`` names.

Each function gets a value (or, for ``whole``, an object) and the current time, and returns the cell. A pod's STATUS is
not a field: as in Kubernetes' own printer, it is computed from phase, reasons and container states.
"""

from __future__ import annotations

from datetime import datetime
from math import inf
from typing import Any

from aksgpu.local.objects import Object
from aksgpu.local.selectors import get_path

_NONE = "<none>"
_UNKNOWN = "<unknown>"
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_STEPS = (
    (120, "s", ""),
    (600, "m", "s"),
    (10_800, "m", ""),
    (28_800, "h", "m"),
    (172_800, "h", ""),
    (691_200, "d", "h"),
    (inf, "d", ""),
)
"""Upper limit in seconds, unit, and second unit or an empty string: how a duration below the limit is shown."""
_ACCESS_MODES = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}


def duration(seconds: float) -> str:
    """Return a duration as in the AGE column: in at most two units. Longer durations are less precise."""
    total = int(seconds)
    if total < -1:
        return "<invalid>"
    large, small = next((large, small) for below, large, small in _STEPS if total < below)
    count, rest = divmod(max(total, 0), _SECONDS[large])
    rest //= _SECONDS[small]
    return f"{count}{large}" + (f"{rest}{small}" if small and rest else "")


def age(text: Any, now: datetime) -> str:
    """Return how long ago a timestamp was."""
    try:
        return duration((now - datetime.fromisoformat(text)).total_seconds())
    except (TypeError, ValueError):
        return _UNKNOWN


def count(value: Any, now: datetime) -> int:
    """Return the number of items."""
    return len(value or ())


def labels(value: Any, now: datetime) -> str:
    """Return labels as ``a=1,b=2``."""
    return ",".join(f"{key}={value[key]}" for key in sorted(value)) if value else _NONE


def data_count(obj: Object, now: datetime) -> int:
    """Return the number of keys of a ConfigMap or Secret."""
    return len(obj.get("data") or ()) + len(obj.get("binaryData") or ())


# Events.


def reference(about: Any, now: datetime) -> str:
    """Return a reference to an object as ``pod/name``."""
    kind = (about or {}).get("kind", "").lower()
    name = (about or {}).get("name", "")
    return f"{kind}/{name}" if name else str(kind)


def first_seen(event: Object, now: datetime) -> str:
    """Return how long ago an event occurred first."""
    return age(event.get("firstTimestamp") or event.get("eventTime"), now)


def last_seen(event: Object, now: datetime) -> str:
    """Return how long ago an event occurred last."""
    last = get_path(event, "series.lastObservedTime") or event.get("lastTimestamp")
    return age(last, now) if last else first_seen(event, now)


def event_count(event: Object, now: datetime) -> int:
    """Return the number of times that an event occurred."""
    return get_path(event, "series.count") or event.get("count") or 1


def event_source(event: Object, now: datetime) -> str:
    """Return the component that reported an event, and its host."""
    source = event.get("source")
    if source:
        parts = (source.get("component"), source.get("host"))
    else:
        parts = (event.get("reportingComponent"), event.get("reportingInstance"))
    return ", ".join(filter(None, parts))


# Jobs.


def job_status(job: Object, now: datetime) -> str:
    """Return the status of a Job: its most important condition, or ``Running``."""
    states = {each["type"] for each in get_path(job, "status.conditions") or () if each.get("status") == "True"}
    if job["metadata"].get("deletionTimestamp"):
        states.add("Terminating")
    for state in ("Complete", "Failed", "Terminating", "Suspended", "FailureTarget"):
        if state in states:
            return state
    return "Running"


def job_completions(job: Object, now: datetime) -> str:
    """Return the completions of a Job, such as ``1/3``."""
    spec = job["spec"]
    succeeded = get_path(job, "status.succeeded") or 0
    if spec.get("completions") is not None:
        return f"{succeeded}/{spec['completions']}"
    parallelism = spec.get("parallelism") or 0
    return f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"


def job_duration(status: Any, now: datetime) -> str:
    """Return the time from a Job's start to its end or to now."""
    start = (status or {}).get("startTime")
    end = (status or {}).get("completionTime")
    if not start:
        return ""
    return age(start, datetime.fromisoformat(end) if end else now)


# Nodes.


def node_status(node: Object, now: datetime) -> str:
    """Return whether a node is ready, and whether it is cordoned."""
    conditions = {each.get("type"): each.get("status") for each in get_path(node, "status.conditions") or ()}
    state = {"True": "Ready", None: "Unknown"}.get(conditions.get("Ready"), "NotReady")
    return state + (",SchedulingDisabled" if get_path(node, "spec.unschedulable") else "")


def node_roles(value: Any, now: datetime) -> str:
    """Return a node's roles, from its labels."""
    prefix = "node-role.kubernetes.io/"
    roles = {key.removeprefix(prefix) for key in value or {} if key.startswith(prefix)}
    roles.add((value or {}).get("kubernetes.io/role", ""))
    return ",".join(sorted(roles - {""})) or _NONE


def internal_ip(addresses: Any, now: datetime) -> str:
    """Return a node's first internal address."""
    return _address(addresses, "InternalIP")


def external_ip(addresses: Any, now: datetime) -> str:
    """Return a node's first external address."""
    return _address(addresses, "ExternalIP")


def _address(addresses: Any, kind: str) -> str:
    return next((each["address"] for each in addresses or () if each.get("type") == kind), _NONE)


# Claims, quotas, bindings, services, endpoints.


def claim_status(claim: Object, now: datetime) -> str:
    """Return the phase of a claim, or ``Terminating``."""
    if claim["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return get_path(claim, "status.phase") or ""


def access_modes(modes: Any, now: datetime) -> str:
    """Return access modes as ``RWO,ROX``."""
    return ",".join(_ACCESS_MODES.get(mode, mode) for mode in modes or ())


def class_name(storage_class: Object, now: datetime) -> str:
    """Return the name of a StorageClass, followed by ``(default)`` if it is the default one."""
    name = str(storage_class["metadata"]["name"])
    annotations = storage_class["metadata"].get("annotations") or {}
    is_default = annotations.get("storageclass.kubernetes.io/is-default-class") == "true"
    return f"{name} (default)" if is_default else name


def quota_requests(quota: Object, now: datetime) -> str:
    """Return the usage of a quota's resources, except limits."""
    return _quota(quota, limits=False)


def quota_limits(quota: Object, now: datetime) -> str:
    """Return the usage of a quota's limits."""
    return _quota(quota, limits=True)


def _quota(quota: Object, *, limits: bool) -> str:
    hard = get_path(quota, "status.hard") or get_path(quota, "spec.hard") or {}
    used = get_path(quota, "status.used") or {}
    names = [name for name in sorted(hard) if name.startswith("limits") is limits]
    return ", ".join(f"{name}: {used.get(name, '0')}/{hard[name]}" for name in names)


def role(value: Any, now: datetime) -> str:
    """Return a role reference as ``Role/name``."""
    return f"{(value or {}).get('kind', '')}/{(value or {}).get('name', '')}"


def ports(value: Any, now: datetime) -> str:
    """Return a Service's ports as ``80/TCP,443:30443/TCP``."""
    parts: list[str] = []
    for port in value or ():
        number = f"{port['port']}:{port['nodePort']}" if port.get("nodePort") else str(port["port"])
        parts.append(f"{number}/{port.get('protocol', 'TCP')}")
    return ",".join(parts) or _NONE


def endpoints(obj: Object, now: datetime) -> str:
    """Return the first three addresses of Endpoints, with their ports."""
    found: list[str] = []
    for subset in obj.get("subsets") or ():
        numbers = [f":{port['port']}" for port in subset.get("ports") or ()] or [""]
        found += [address["ip"] + number for number in numbers for address in subset.get("addresses") or ()]
    return _first_three(found)


def slice_endpoints(value: Any, now: datetime) -> str:
    """Return the first three addresses of an EndpointSlice."""
    return _first_three([address for each in value or () for address in each["addresses"]]).replace(_NONE, "<unset>")


def slice_ports(value: Any, now: datetime) -> str:
    """Return the ports of an EndpointSlice."""
    return _first_three([str(port["port"]) for port in value or ()]).replace(_NONE, "<unset>")


def _first_three(texts: list[str]) -> str:
    more = f" + {len(texts) - 3} more..." if len(texts) > 3 else ""
    return (",".join(texts[:3]) + more) or _NONE


# Pods.


def pod_ready(pod: Object, now: datetime) -> str:
    """Return the number of ready containers and of all containers, including sidecars."""
    spec, status, sidecars = _spec_status_sidecars(pod)
    ready = sum(_is_running_and_ready(each) for each in status.get("containerStatuses") or ())
    ready += sum(
        each["name"] in sidecars and bool(each.get("started") and each.get("ready"))
        for each in status.get("initContainerStatuses") or ()
    )
    return f"{ready}/{len(spec.get('containers') or ()) + len(sidecars)}"


def pod_restarts(pod: Object, now: datetime) -> str:
    """Return the number of restarts, and how long ago the last one was."""
    spec, status, sidecars = _spec_status_sidecars(pod)
    inits = status.get("initContainerStatuses") or []
    if _init_status(spec, status, sidecars) is None:
        inits = [each for each in inits if each["name"] in sidecars] + (status.get("containerStatuses") or [])
    restarts = sum(each.get("restartCount") or 0 for each in inits)
    ends = (get_path(each, "lastState.terminated.finishedAt") for each in inits)
    last = max(filter(None, ends), default="")
    return f"{restarts} ({age(last, now)} ago)" if restarts and last else str(restarts)


def pod_status(pod: Object, now: datetime) -> str:
    """Return the status of a pod, such as ``Running``, ``CrashLoopBackOff`` or ``Init:0/1``."""
    spec, status, sidecars = _spec_status_sidecars(pod)
    phase = status.get("phase") or ""
    if pod["metadata"].get("deletionTimestamp") and phase not in ("Succeeded", "Failed"):
        return "Terminating"
    init_status = _init_status(spec, status, sidecars)
    if init_status:
        return init_status
    is_gated = any(each.get("reason") == "SchedulingGated" for each in status.get("conditions") or ())
    reason = "SchedulingGated" if is_gated else status.get("reason") or phase
    containers = status.get("containerStatuses") or []
    for container in reversed(containers):
        waiting = get_path(container, "state.waiting.reason")
        terminated = get_path(container, "state.terminated")
        if waiting:
            reason = waiting
        elif terminated is not None:
            reason = _termination_reason(terminated)
    if reason == "Completed" and any(map(_is_running_and_ready, containers)):
        return "Running" if _condition_is_true(status, "Ready") else "NotReady"
    return reason


def _spec_status_sidecars(pod: Object) -> tuple[Object, Object, set[str]]:
    """Return a pod's spec and status, and the names of its sidecars."""
    spec = pod.get("spec") or {}
    sidecars = {each["name"] for each in spec.get("initContainers") or () if each.get("restartPolicy") == "Always"}
    return spec, pod.get("status") or {}, sidecars


def _init_status(spec: Object, status: Object, sidecars: set[str]) -> str | None:
    """Return the status of the first init container that has not finished, or None if all have."""
    inits = status.get("initContainerStatuses")
    if not inits or _condition_is_true(status, "Initialized"):
        return None
    for index, container in enumerate(inits):
        terminated = get_path(container, "state.terminated")
        waiting = get_path(container, "state.waiting.reason")
        if terminated is not None:
            if terminated.get("exitCode", 0) == 0:
                continue
            return f"Init:{_termination_reason(terminated)}"
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
