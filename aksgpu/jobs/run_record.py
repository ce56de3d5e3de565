"""What the history keeps of a run: facts about the Job, its nodes and its cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from aksgpu.errors import AksGpuError
from aksgpu.jobs.executor_manifest import is_own_variable
from aksgpu.jobs.job_outcome import is_executor_job
from aksgpu.jobs.job_status import JobStatus
from aksgpu.jobs.secret_texts import SECRET_NAME, hide_in_text, hide_secrets
from aksgpu.kube import job_facts, node_facts, pod_facts
from aksgpu.kube.client import HasKube, Object
from aksgpu.kube.label_names import SCALE_SET_PRIORITY
from aksgpu.payload.job_annotations import FUNCTION, PACKAGES, PARAMETERS
from aksgpu.sizes import skus_and_quota
from aksgpu.waiting import deadline

__all__ = ["read_facts"]

_READING_NODES = 10.0
"""Seconds that reading the nodes and their prices may take."""
_ENDINGS = {"Completing": "Complete", "Failing": "Failed"}
"""Phase of a Job whose pods have ended, before the Job controller has recorded it."""
_ANNOTATIONS = {
    FUNCTION: "function",
    PARAMETERS: "parameters",
    PACKAGES: "packages",
}
"""Annotations of Jobs that run a function or a script, and the names of the facts."""


def read_facts(aks: HasKube, job: Object, pods: Sequence[Object]) -> dict[str, Any]:
    """Return the facts about a run. What cannot be found out is None.

    Args:
        aks: the cluster. The nodes of the pods and their prices are read, for at most ten seconds.
        job: the Job object.
        pods: its Pod objects, oldest first.

    Returns:
        JSON values:

        - ``job``, ``namespace``, ``uid``, ``cluster``: names.
        - ``created``, ``started``, ``ended``: RFC 3339 in UTC. ``started`` is when the first container started, and
          ``ended`` when the last one ended.
        - ``seconds``: from ``started`` to ``ended``; until now for a Job that has not ended. It is exact to one second,
          because Kubernetes records whole seconds: a run of 0.9 s has 0 or 1.
        - ``phase``, ``reason``, ``message``: as in :class:`aksgpu.jobs.JobStatus`.
        - ``image``, ``command``, ``args``: of the first container. Values of options and variables that are named like
          a secret are replaced by ``***``. ``command`` and ``args`` of an Executor's Job are empty: they are those of
          its runner.
        - ``env``: its variables; of an Executor's Job, those of ``Executor(env=)``. Values from Secrets, and of
          variables named like a secret, are not saved.
        - ``annotations``: ``function``, ``parameters`` and ``packages`` of a Job that runs a function or a script.
        - ``gpus``: GPUs of one pod. ``pods``: number of pods.
        - ``nodes``: names; ``vm_size``, ``gpu_model``, ``spot``: of the first node.
        - ``usd``: the nodes' prices for the time of the pods, by their share of the nodes' GPUs. The time is that of
          ``spans``, exact to one second.
        - ``usd_per_hour``: what one pod, the newest, costs in an hour: the node's price, by the share of its GPUs.
        - ``spans``: when each pod ran: ``pod``, ``started``, ``ended`` (None while it runs), and ``usd_per_hour``.
          None if a price is not known.
    """
    container = job["spec"]["template"]["spec"]["containers"][0]
    times = [time for time in map(_container_times, pods) if time is not None]
    started = min((start for start, _ in times), default=None)
    status = JobStatus.from_objects(job, list(pods))
    ended = _ended_at(job, status, times)
    facts: dict[str, Any] = {
        "job": job["metadata"]["name"],
        "namespace": job["metadata"]["namespace"],
        "uid": job["metadata"]["uid"],
        "cluster": str(getattr(aks, "name", "")),
        "created": job["metadata"]["creationTimestamp"],
        "started": _text(started),
        "ended": _text(ended),
        "seconds": None if started is None else _seconds(started, ended),
        "phase": _ENDINGS.get(status.reason, status.phase),
        "reason": status.reason,
        "message": status.message,
        "image": container["image"],
        **_program(job, container),
        "annotations": _annotations(job),
        "gpus": sum(pod_facts.gpus(job["spec"]["template"]["spec"]).values()),
        "pods": len(pods),
    }
    facts.update(_node_facts(aks, pods))
    return facts


def _program(job: Object, container: Object) -> dict[str, Any]:
    """Return the facts about the program. The annotations of an Executor's Job name its function or script."""
    env = _environment(container)
    if is_executor_job(job):
        users = {name: value for name, value in env.items() if not is_own_variable(name, value)}
        return {"command": [], "args": [], "env": users}
    return {**_command_line(container), "env": env}


def _command_line(container: Object) -> dict[str, list[str]]:
    """Return ``command`` and ``args``. The value of a command's last option may be the first of the arguments."""
    command = [str(word) for word in container.get("command") or ()]
    arguments = [str(word) for word in container.get("args") or ()]
    shown = hide_secrets([*command, *arguments])
    return {"command": shown[: len(command)], "args": shown[len(command) :]}


def _environment(container: Object) -> dict[str, str]:
    found = {}
    for each in container.get("env") or ():
        if "value" in each and not SECRET_NAME.search(each["name"]):
            found[each["name"]] = hide_in_text(str(each["value"]))
    return found


def _annotations(job: Object) -> dict[str, str]:
    annotations = job["metadata"].get("annotations") or {}
    return {fact: str(annotations[name]) for name, fact in _ANNOTATIONS.items() if name in annotations}


def _node_facts(aks: HasKube, pods: Sequence[Object]) -> dict[str, Any]:
    """Return the facts about the pods' nodes, and what the pods cost. None where they cannot be read."""
    names = sorted({pod["spec"]["nodeName"] for pod in pods if pod["spec"].get("nodeName")})
    facts: dict[str, Any] = {"nodes": names, "vm_size": None, "gpu_model": None, "spot": None}
    facts.update(_costs(pods, {}))
    try:
        with deadline(_READING_NODES):
            nodes = {name: node_facts.read(aks.kube.get("Node", name)) for name in names}
            prices = _prices_per_hour(aks, nodes)
    except AksGpuError:
        return facts  # the node is gone, or the user may not read nodes
    for node in nodes.values():
        facts["vm_size"] = node.vm_size or None
        facts["gpu_model"] = node.gpu_model or None
        facts["spot"] = _is_spot(node)
        break
    facts.update(_costs(pods, _prices_of_pods(pods, nodes, prices)))
    return facts


def _is_spot(node: node_facts.Node) -> bool:
    return node.labels.get(SCALE_SET_PRIORITY) == "spot"


def _prices_per_hour(aks: HasKube, nodes: Mapping[str, node_facts.Node]) -> dict[str, float]:
    """Return the price of each node in US dollars per hour, as far as it is known."""
    azure = getattr(aks, "azure", None)
    if azure is None:
        return {}
    location = str(getattr(aks, "location", "")).lower()
    known = skus_and_quota.prices(azure, location, [node.vm_size for node in nodes.values()])
    prices = {}
    for name, node in nodes.items():
        price = known.get(node.vm_size, skus_and_quota.Price())
        per_hour = price.spot if _is_spot(node) else price.on_demand
        if per_hour is not None:
            prices[name] = per_hour
    return prices


def _prices_of_pods(
    pods: Sequence[Object], nodes: Mapping[str, node_facts.Node], prices: Mapping[str, float]
) -> dict[str, float]:
    """Return what each pod costs in US dollars per hour, as far as it is known: its share of its node's GPUs."""
    found = {}
    for pod in pods:
        node = pod["spec"].get("nodeName")
        if node not in prices:
            continue
        gpus = sum(pod_facts.gpus(pod["spec"]).values())
        on_node = sum(nodes[node].capacity.values())
        if gpus and on_node:
            found[pod["metadata"]["name"]] = prices[node] * min(gpus / on_node, 1)
    return found


def _costs(pods: Sequence[Object], per_hour: Mapping[str, float]) -> dict[str, Any]:
    """Return the facts about the cost. ``usd`` is None if a part of it is not known."""
    total: float | None = 0.0 if pods else None
    spans = []
    for pod in pods:
        times = _container_times(pod)
        if times is None or not pod["spec"].get("nodeName"):
            continue
        started, ended = times
        price = per_hour.get(pod["metadata"]["name"])
        span = {"pod": pod["metadata"]["name"], "started": _text(started), "ended": _text(ended)}
        spans.append({**span, "usd_per_hour": price})
        hours = _seconds(started, ended) / 3600
        total = None if price is None or total is None else total + price * hours
    price_now = spans[-1]["usd_per_hour"] if spans else None
    return {"usd": total, "usd_per_hour": price_now, "spans": None if total is None else spans}


def _container_times(pod: Object) -> tuple[datetime, datetime | None] | None:
    """Return when a pod's containers started and ended; None for the end if they run, None if none started."""
    starts = []
    ends: list[datetime | None] = []
    for entry in (pod.get("status") or {}).get("containerStatuses") or ():
        state = entry.get("state") or {}
        last = (entry.get("lastState") or {}).get("terminated") or {}
        running = state.get("running") or {}
        ended = state.get("terminated") or {}
        starts += [_time(each["startedAt"]) for each in (last, running, ended) if each.get("startedAt")]
        if running:
            ends.append(None)
        elif ended.get("finishedAt"):
            ends.append(_time(ended["finishedAt"]))
    if not starts:
        return None
    known = [end for end in ends if end is not None]
    return min(starts), max(known) if known and None not in ends else None


def _ended_at(job: Object, status: JobStatus, times: Sequence[tuple[datetime, datetime | None]]) -> datetime | None:
    """Return when a Job's last container ended, or else when the Job did; None if the Job has not ended.

    A Job whose pods have ended has ended, also before the Job controller has recorded it.
    """
    if not status.ended and status.reason not in _ENDINGS:
        return None
    ends = [end for _, end in times if end is not None]
    if ends:
        return max(ends)
    condition = job_facts.end_condition(job)
    return None if condition is None else _time(condition["lastTransitionTime"])


def _seconds(started: datetime, ended: datetime | None) -> float:
    """Return the whole seconds from a start to an end, or until now if the end is None.

    The times of Kubernetes are whole seconds, so the present one is cut too.
    """
    end = ended or datetime.now(UTC).replace(microsecond=0)
    return max((end - started).total_seconds(), 0.0)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _text(time: datetime | None) -> str | None:
    return None if time is None else time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
