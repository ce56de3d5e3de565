"""The pods of a Job: how one is made from the template, and what a failed one means. Pure functions."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from aksgpu.local.control import times
from aksgpu.local.control.runtime import finished
from aksgpu.local.objects import Object

TRACKING = "batch.kubernetes.io/job-tracking"
"""The finalizer that keeps a pod until its Job has counted it."""
INDEX = "batch.kubernetes.io/job-completion-index"
INDEX_FAILURES = "batch.kubernetes.io/job-index-failure-count"

BACKOFF = 10.0
BACKOFF_LIMIT = 600.0
"""Seconds before the first and before every later replacement of a failed pod, at most."""


def index_of(pod: Object) -> int | None:
    """The completion index of a pod of an Indexed Job."""
    text = (pod["metadata"].get("annotations") or {}).get(INDEX, "")
    return int(text) if text.isdigit() else None


def index_failures(pod: Object) -> int:
    """How many pods of this index had failed before this one."""
    return int((pod["metadata"].get("annotations") or {}).get(INDEX_FAILURES, "0"))


def new_pod(job: Object, index: int | None = None, failures: int | None = None) -> Object:
    """The next pod of a Job.

    Args:
        job: the Job.
        index: the completion index, for an Indexed Job.
        failures: how many pods of this index failed before, for a Job with ``backoffLimitPerIndex``.
    """
    meta, template = job["metadata"], job["spec"]["template"]
    given = template.get("metadata") or {}
    labels, annotations = dict(given.get("labels") or {}), dict(given.get("annotations") or {})
    spec = copy.deepcopy(template["spec"])
    base = f"{meta['name']}-"
    if index is not None:
        labels[INDEX] = annotations[INDEX] = str(index)
        base = f"{base[:55]}{index}-"
        spec.setdefault("hostname", f"{meta['name']}-{index}"[:63])
        for container in [*(spec.get("initContainers") or ()), *spec["containers"]]:
            _add_index_variable(container)
    if failures is not None:
        annotations[INDEX_FAILURES] = str(failures)
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": base,
            "namespace": meta["namespace"],
            **({"labels": labels} if labels else {}),
            **({"annotations": annotations} if annotations else {}),
            "finalizers": [*(given.get("finalizers") or ()), TRACKING],
            "ownerReferences": [owner],
        },
        "spec": spec,
    }


def _add_index_variable(container: dict[str, Any]) -> None:
    variables = container.setdefault("env", [])
    if all(variable["name"] != "JOB_COMPLETION_INDEX" for variable in variables):
        field = {"apiVersion": "v1", "fieldPath": f"metadata.labels['{INDEX}']"}
        variables.append({"name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef": field}})


def containers(pod: Object) -> Iterator[Mapping[str, Any]]:
    """The statuses of all containers of a pod, init containers first."""
    status = pod.get("status") or {}
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def restarts(pod: Object) -> int:
    """How often containers of the pod were started again."""
    return sum(int(container.get("restartCount") or 0) for container in containers(pod))


def _exit(container: Mapping[str, Any]) -> Mapping[str, Any]:
    return (container.get("state") or {}).get("terminated") or {}


def ended_at(pod: Object) -> float:
    """When the pod ended, in seconds since the epoch."""
    ends = [times.seconds(_exit(container).get("finishedAt")) for container in containers(pod)]
    meta = pod["metadata"]
    return max(ends, default=0.0) or times.seconds(meta.get("deletionTimestamp") or meta.get("creationTimestamp"))


def backoff_left(pods: Iterable[Object], now: float, scale: float) -> float:
    """Seconds until a failed pod may be replaced: 10 after the first failure, then doubled, 600 at most.

    Counted are the failures since the last success. Times in Kubernetes have whole seconds.
    """
    ends = sorted((ended_at(pod), (pod.get("status") or {}).get("phase")) for pod in pods if finished(pod))
    failures: list[float] = []
    for when, phase in ends:
        failures = [] if phase == "Succeeded" else [*failures[-20:], when]
    if not failures:
        return 0.0
    return failures[-1] + scale * min(BACKOFF * 2.0 ** (len(failures) - 1), BACKOFF_LIMIT) - now


class Ruling(NamedTuple):
    """What a pod failure policy says to a failed pod."""

    action: str
    """``FailJob``, ``FailIndex``, ``Ignore`` or ``Count``."""
    message: str = ""


def ruling(job: Object, pod: Object) -> Ruling:
    """The first rule of the Job's pod failure policy that matches a failed pod; ``Count`` when none does."""
    rules = (job["spec"].get("podFailurePolicy") or {}).get("rules") or ()
    for number, rule in enumerate(rules):
        if why := _matches(rule, pod):
            return Ruling(rule["action"], f"{why} matching {rule['action']} rule at index {number}")
    return Ruling("Count")


def _matches(rule: Mapping[str, Any], pod: Object) -> str:
    name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    if codes := rule.get("onExitCodes"):
        for container in containers(pod):
            code = _exit(container).get("exitCode", 0)
            named = codes.get("containerName") in (None, container["name"])
            if code and named and (code in codes["values"]) == (codes["operator"] == "In"):
                return f"Container {container['name']} for pod {name} failed with exit code {code}"
    for wanted in rule.get("onPodConditions") or ():
        for have in (pod.get("status") or {}).get("conditions") or ():
            if have["type"] == wanted["type"] and have["status"] == wanted.get("status", "True"):
                return f"Pod {name} has condition {have['type']}"
    return ""
