"""Record how a Job's pods failed, and which failed image pulls were reported already."""

from __future__ import annotations

from aksgpu.diagnose.diagnosis import Diagnosis
from aksgpu.diagnose.pod_diagnosis import explain_failure
from aksgpu.errors import KubernetesError
from aksgpu.kube import pod_facts
from aksgpu.kube.client import HasKube, Object

__all__ = ["FailureRecord", "PullRecord", "held_gpus"]

_reported_pulls: set[str] = set()
"""Uids of pods for which this process has raised JobFailed because of their image."""
_BETWEEN_ATTEMPTS = ("ImagePullBackOff", "RegistryUnavailable")
"""States between two attempts to pull an image. In the other states, Kubernetes makes no further attempt."""


class FailureRecord:
    """Diagnoses the pods of a Job while they exist.

    A Job fails some seconds after its pod. If its pods restart in place (``OnFailure``), Kubernetes deletes the pod at
    that moment, and its log with it. Each failure is therefore diagnosed when it is first observed.

    Attributes:
        last: the diagnosis of the newest failure; None if there was none.
    """

    def __init__(self, aks: HasKube) -> None:
        self._aks = aks
        self._diagnosed: set[tuple[str, int, bool]] = set()
        self.last: Diagnosis | None = None

    def observe(self, pods: list[Object]) -> None:
        """Diagnose the failures that are new. API errors are ignored: the next call tries again."""
        for pod in pods:
            key = (pod["metadata"]["uid"], pod_facts.restarts(pod), pod_facts.disruption(pod) is not None)
            if key in self._diagnosed:
                continue
            try:
                diagnosis = explain_failure(self._aks, pod)
            except KubernetesError:
                continue
            if diagnosis is None:
                continue
            self.last = diagnosis
            # If something, such as the log, could not be read, the next call tries again.
            if not diagnosis.unknown:
                self._diagnosed.add(key)


class PullRecord:
    """Distinguishes an image pull that failed now from one that was reported before.

    The kubelet waits up to five minutes between two attempts, and the pod's status shows the last failure during that
    time. Once a failure has been reported, only a further attempt counts: the image may have been pushed since.
    """

    def __init__(self) -> None:
        self._states: dict[str, str] = {}
        self._tried_again: set[str] = set()

    def observe(self, pods: list[Object]) -> None:
        """Record attempts: a pod that waited between two attempts fails with ErrImagePull again."""
        for pod in pods:
            uid = pod["metadata"]["uid"]
            state = pod_facts.state(pod).word
            if state == "ErrImagePull" and self._states.get(uid, state) != state:
                self._tried_again.add(uid)
            self._states[uid] = state

    def has_new_failure(self, pods: list[Object]) -> bool:
        """Whether a pod's image could not be pulled in an attempt that was not reported yet."""
        for pod in pods:
            uid = pod["metadata"]["uid"]
            state = pod_facts.state(pod).word
            # After ErrImagePull, the kubelet tries again at once.
            if state not in pod_facts.UNPULLABLE or state == "ErrImagePull":
                continue
            if uid not in _reported_pulls or uid in self._tried_again or state not in _BETWEEN_ATTEMPTS:
                return True
        return False

    def mark_reported(self, pods: list[Object]) -> None:
        """Record that the failed pulls of these pods are reported."""
        for pod in pods:
            if pod_facts.state(pod).word in pod_facts.UNPULLABLE:
                _reported_pulls.add(pod["metadata"]["uid"])


def held_gpus(pods: list[Object]) -> str:
    """Return the GPUs of the pods that have a node and have not ended, such as ``1 nvidia.com/gpu``; may be empty."""
    held: dict[str, int] = {}
    for pod in pods:
        if not pod["spec"].get("nodeName") or pod_facts.ended(pod):
            continue
        for resource, count in pod_facts.gpus(pod["spec"]).items():
            held[resource] = held.get(resource, 0) + count
    return ", ".join(f"{count} {resource}" for resource, count in sorted(held.items()))
