"""Which of a Job's pods failed first, and what became of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from aksgpu.common import times
from aksgpu.diagnose import gpu_failures
from aksgpu.diagnose.cluster_reader import ClusterReader
from aksgpu.diagnose.diagnosis import Diagnosis
from aksgpu.diagnose.failure_text import Weight
from aksgpu.diagnose.pod_diagnosis import diagnose_pod
from aksgpu.kube import pod_facts
from aksgpu.kube.client import Object

__all__ = ["earliest", "explain_failed", "explain_running"]

_COMPARED = 7
"""Other pods whose logs are read."""
_COMPARED_LINES = 200
"""Lines of each of their logs."""
_LATE = datetime.max.replace(tzinfo=UTC)
_EARLY = datetime.min.replace(tzinfo=UTC)


def explain_failed(reader: ClusterReader, failed: list[Object], alive: list[Object]) -> Diagnosis:
    """Explain a Job by its pod that failed first, among those that ran at the same time as the newest.

    Args:
        reader: reads the cluster.
        failed: the Job's pods that failed, oldest first.
        alive: its pods that have not ended.
    """
    together = _at_the_same_time(failed)
    first = earliest(together)
    diagnosis = diagnose_pod(reader, first)
    others = [pod for pod in together if pod is not first]
    if not others and not alive:
        return diagnosis
    verdict = f"Pod {first['metadata']['name']} failed first. {diagnosis.verdict}"
    ended = _what_became_of(reader, others, diagnosis)
    if ended:
        verdict = f"{verdict} {ended}"
    waiting = [pod for pod in alive if pod is not first]
    if waiting:
        noun = "pod has" if len(waiting) == 1 else "pods have"
        verdict = f"{verdict} {len(waiting)} other {noun} not ended."
    rows = (*diagnosis.rows, *((f"pod {pod['metadata']['name']}", _ending(pod)) for pod in others))
    return replace(diagnosis, verdict=verdict, rows=rows)


def explain_running(reader: ClusterReader, alive: list[Object]) -> Diagnosis:
    """Explain a Job whose pods all run, by the first pod with a problem."""
    for pod in alive[:_COMPARED]:
        diagnosis = diagnose_pod(reader, pod)
        if diagnosis.fix:
            return replace(diagnosis, verdict=f"Pod {pod['metadata']['name']}: {diagnosis.verdict}")
    verdict = f"{len(alive)} pods are running: nothing is wrong."
    if reader.unknown:
        verdict = f"{len(alive)} pods are running: nothing is known to be wrong, but not all of it could be read."
    return replace(diagnosis, verdict=verdict)


def earliest(pods: list[Object]) -> Object:
    """Return the pod that failed first. Of those in the same second, one that is being deleted comes last."""
    return min(pods, key=lambda pod: (_ended_at(pod) or _LATE, "deletionTimestamp" in pod["metadata"]))


def _at_the_same_time(pods: list[Object]) -> list[Object]:
    """Return the newest pod and those that ran at the same time, directly or through others.

    Attempts of a Job that runs one pod at a time do not overlap, so only the newest is returned.
    """
    chosen = [pods[-1]]
    rest = pods[:-1]
    while True:
        more = [pod for pod in rest if any(_overlap(pod, other) for other in chosen)]
        if not more:
            return sorted(chosen, key=lambda pod: _started_at(pod) or _EARLY)
        chosen += more
        rest = [pod for pod in rest if pod not in more]


def _overlap(one: Object, other: Object) -> bool:
    """Whether two pods ran at the same time. Times have whole seconds: a successor starts when the other has ended."""
    starts = (_started_at(one) or _EARLY, _started_at(other) or _EARLY)
    ends = (_ended_at(one) or _LATE, _ended_at(other) or _LATE)
    return max(starts) < min(ends)


def _started_at(pod: Object) -> datetime | None:
    return times.parse((pod.get("status") or {}).get("startTime") or pod["metadata"].get("creationTimestamp"))


def _ended_at(pod: Object) -> datetime | None:
    """Return when the container of a pod failed; None if that is not known."""
    failure = pod_facts.last_failure(pod)
    if failure is not None:
        return times.parse(failure.get("finishedAt"))
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == "DisruptionTarget":
            return times.parse(condition.get("lastTransitionTime"))
    return None


def _ending(pod: Object) -> str:
    """Return how a pod ended, as evidence."""
    failure: Mapping[str, Any] = pod_facts.last_failure(pod) or {}
    word, message = pod_facts.state(pod)
    code = f"exit code {failure['exitCode']}" if failure else message
    when = _ended_at(pod)
    at = f" at {when:%H:%M:%S} UTC" if when else ""
    return f"{word}: {code}{at}" if code else f"{word}{at}"


def _what_became_of(reader: ClusterReader, others: list[Object], first: Diagnosis) -> str:
    """Return what the logs of the other pods say: whether they failed because the first one did. Empty without pods."""
    counts: Counter[str] = Counter()
    for pod in others[:_COMPARED]:
        counts[_relation(reader, pod, first)] += 1
    if len(others) > _COMPARED:
        counts["were not looked at"] += len(others) - _COMPARED
    if not counts:
        return ""
    parts = [f"{count} {what}" for what, count in counts.items()]
    noun = "other pod" if len(others) == 1 else "other pods"
    return f"Of {len(others)} {noun}: {', '.join(parts)}."


def _relation(reader: ClusterReader, pod: Object, first: Diagnosis) -> str:
    """Return how the failure of a pod relates to that of the first one, as the end of a sentence."""
    failure = pod_facts.last_failure(pod)
    if pod_facts.disruption(pod) is not None:
        return "ended because the cluster ended it"
    if failure is None:
        return "failed without running"
    previous = pod_facts.has_run_since(pod, failure)
    text = reader.log(pod, failure["container"], previous=previous, lines=_COMPARED_LINES)
    known = gpu_failures.from_log(text or "")
    if known is not None and known.name == first.cause:
        return "failed in the same way"
    if known is not None and known.weight is Weight.SYMPTOM:
        return "died of it (lost the connection to it)"
    if known is not None:
        return f"failed for another reason ({known.verdict})"
    if pod_facts.was_signalled(failure):
        return "died of it (ended from outside)"
    return "failed later"
