"""Remember how a Job's pods failed, and which failed image pulls were reported already."""

from __future__ import annotations

from aksgpu.diagnose.diagnosis import Diagnosis
from aksgpu.diagnose.explain import explain_failure
from aksgpu.errors import KubernetesError
from aksgpu.kube import pod_facts as _pods
from aksgpu.kube.client import HasKube, Object

_reported_pulls: set[str] = set()
"""Uids of pods for which this process has raised JobFailed because of their image."""
_PAUSING = ("ImagePullBackOff", "RegistryUnavailable")
"""States between two attempts to pull an image. In the others, nothing is tried again."""


class FailureRecord:
    """Diagnoses the pods of a Job while they are there.

    A Job fails some seconds after its pod. If its pods restart in place (``OnFailure``), Kubernetes deletes the pod at
    that moment, and the log with it. So each failure is diagnosed when it is first seen.

    Attributes:
        last: the diagnosis of the failure that was seen last; None if there was none.
    """

    def __init__(self, cluster: HasKube) -> None:
        self._cluster = cluster
        self._done: set[tuple[str, int, bool]] = set()
        self.last: Diagnosis | None = None

    def observe(self, pods: list[Object]) -> None:
        """Diagnose the failures that are new. Never raises: a later look may succeed."""
        for pod in pods:
            key = (pod["metadata"]["uid"], _pods.restarts(pod), _pods.disruption(pod) is not None)
            if key in self._done:
                continue
            try:
                found = explain_failure(self._cluster, pod)
            except KubernetesError:
                continue
            if found is None:
                continue
            self.last = found
            if not found.unknown:
                # Otherwise the log, for example, could not be read: it is tried again at the next look.
                self._done.add(key)


class PullRecord:
    """Tells an image pull that failed now from one that was reported before.

    The kubelet pauses for up to five minutes between two attempts, and the pod's status shows the last failure all the
    while. Once it has been reported, only a further attempt counts: the image may have been pushed since.
    """

    def __init__(self) -> None:
        self._words: dict[str, str] = {}
        self._tried_again: set[str] = set()

    def observe(self, pods: list[Object]) -> None:
        """Notice attempts: a pod that waited between two attempts fails with ErrImagePull again."""
        for pod in pods:
            uid = pod["metadata"]["uid"]
            word = _pods.state(pod).word
            if word == "ErrImagePull" and self._words.get(uid, word) != word:
                self._tried_again.add(uid)
            self._words[uid] = word

    def is_news(self, pods: list[Object]) -> bool:
        """Whether a pod's image could not be pulled, in an attempt that was not reported yet."""
        for pod in pods:
            uid = pod["metadata"]["uid"]
            word = _pods.state(pod).word
            if word not in _pods.UNPULLABLE or word == "ErrImagePull":
                continue
            if uid not in _reported_pulls or uid in self._tried_again or word not in _PAUSING:
                return True
        return False

    def report(self, pods: list[Object]) -> None:
        """Remember that these pods' failed pulls are reported."""
        _reported_pulls.update(pod["metadata"]["uid"] for pod in pods if _pods.state(pod).word in _pods.UNPULLABLE)


def held_gpus(pods: list[Object]) -> str:
    """Say which GPUs pods hold that have a node and have not ended, such as ``1 nvidia.com/gpu``; may be empty."""
    held: dict[str, int] = {}
    for pod in pods:
        if pod["spec"].get("nodeName") and not _pods.ended(pod):
            for resource, count in _pods.gpus(pod["spec"]).items():
                held[resource] = held.get(resource, 0) + count
    return ", ".join(f"{count} {resource}" for resource, count in sorted(held.items()))
