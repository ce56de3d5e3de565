"""Stop the program of an Executor's Job, and keep its log and outcome."""

from __future__ import annotations

from aksgpu.common import times
from aksgpu.errors import KubernetesError, NotFound
from aksgpu.jobs.executor_manifest import MAIN
from aksgpu.kube import pod_facts
from aksgpu.kube.client import HasKube, Object
from aksgpu.payload.job_annotations import CANCELLED

__all__ = ["stop"]

_CANCEL = "cancel"
"""The runner's command that stops the program."""
_CONTAINER_GONE = (400, 500)
"""Statuses for a container that does not run any more."""
_ASKING = 30.0
"""Seconds that this command may take."""
_ENDING = 60.0
"""Seconds in which a pod should end after its program. A sidecar container that does not end keeps it running."""


def stop(aks: HasKube, job: Object, pods: list[Object], asked: set[str]) -> str:
    """Do the next step to stop a Job that has not ended, and return what is waited for.

    Args:
        aks: the cluster.
        job: the Job object.
        pods: its pods, oldest first.
        asked: uids of pods whose program was asked to end. This function adds to it.
    """
    alive = [pod for pod in pods if not pod_facts.ended(pod)]
    if any(map(_is_ending, alive)):
        # Kubernetes deletes the pods of a suspended Job that have not ended, and their logs with them.
        return "the program has ended, and its pod ends"
    running = [pod for pod in alive if pod_facts.container_runs(pod, MAIN)]
    if not running:
        return _suspend(aks, job)
    for pod in running:
        if pod["metadata"]["uid"] not in asked and _ask(aks, pod):
            asked.add(pod["metadata"]["uid"])
    return "the program was asked to end (SIGTERM)"


def _is_ending(pod: Object) -> bool:
    """Return whether the program of a pod has ended, so that the pod should end soon."""
    terminated = pod_facts.container_state(pod, MAIN).get("terminated")
    if terminated is None:
        return False
    finished = terminated.get("finishedAt")
    return finished is None or times.age(finished) < _ENDING


def _ask(aks: HasKube, pod: Object) -> bool:
    """Ask the runner of a pod to stop the program. Return whether it was reached; the container may just have ended."""
    metadata = pod["metadata"]
    main = next(container for container in pod["spec"]["containers"] if container["name"] == MAIN)
    command = [*main["command"][:-1], _CANCEL]
    try:
        with aks.kube.exec(metadata["name"], command, metadata["namespace"], container=MAIN) as program:
            result = program.communicate(timeout=_ASKING)
    except (NotFound, TimeoutError):
        return False
    except KubernetesError as error:
        if error.http_status in _CONTAINER_GONE:
            return False
        raise
    return result.returncode == 0


def _suspend(aks: HasKube, job: Object) -> str:
    """Suspend a Job whose program does not run, so that it never starts."""
    metadata = job["metadata"]
    patch = {"metadata": {"annotations": {CANCELLED: "true"}}, "spec": {"suspend": True}}
    aks.kube.patch("Job", metadata["name"], patch, metadata["namespace"])
    return "its pods are removed before the program starts"
