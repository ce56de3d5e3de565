"""The helper pod: a small pod of the default image that has a claim mounted. It is made for a call and then deleted.

It belongs to a Job. If this process is killed, the helper's program ends after a while without a client, and Kubernetes
deletes the finished Job with its pod.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self, TypeVar

from aksgpu.common.default_image import default_image
from aksgpu.common.kubernetes_objects import Object
from aksgpu.diagnose import pod_diagnosis
from aksgpu.errors import KubernetesError, NotFound, StorageError, Unreachable, WaitTimeout
from aksgpu.kube import pod_facts, retry_policy
from aksgpu.kube.client import HasKube
from aksgpu.kube.label_names import DO_NOT_EVICT
from aksgpu.storage import helper_program
from aksgpu.storage.claims import CREATED_BY, claim_of, require
from aksgpu.storage.helper_channel import Channel, ConnectionCut
from aksgpu.storage.helper_placement import place
from aksgpu.waiting import Timer, deadline, pause, wait_until

__all__ = ["IDLE_SECONDS", "PATIENCE_SECONDS", "HelperPod", "transfer"]

T = TypeVar("T")

IDLE_SECONDS = 60
"""Seconds without a client after which the helper's program ends."""
PATIENCE_SECONDS = 300.0
"""Seconds without progress after which a transfer fails."""
_START_SECONDS = 900.0
"""Seconds that the helper pod gets to start. A new node takes minutes."""
_LONGEST_RUN = 2 * 86400
"""Seconds after which Kubernetes ends the helper pod in any case."""
_DELETION_SECONDS = 60.0
"""Seconds that the deletion of the helper pod may take."""
_INTERVAL = 0.1
"""Seconds between two checks of the helper pod."""
_RETRY_SECONDS = 1.0
"""Seconds before a broken connection is opened again."""
_BAD_REQUEST = 400
"""Status of ``exec`` in a pod that has ended, and of requests that no repetition helps."""
_EXPLAINING = 5.0
"""Seconds that finding the reason for an error may take."""
_CONTAINER = "helper"
_CLAIM_PATH = "/aksgpu/claim"
_RUN_PATH = "/aksgpu/run"
_TOKEN_BYTES = 4
_LONGEST_PREFIX = 30
"""Characters of the claim's name in the Job's name."""
_RUN = "import os; exec(os.environ['AKSGPU_HELPER'])"
_START = (
    'for python in python3 python; do if command -v "$python" >/dev/null 2>&1; then exec "$python" -c "$@"; fi; done; '
    'echo "the image has no Python" >&2; exit 127'
)
_RESOURCES = {
    "requests": {"cpu": "100m", "memory": "128Mi"},
    "limits": {"memory": "1Gi"},
}


def _command(task: str) -> list[str]:
    return ["sh", "-c", _START, "sh", _RUN, task]


class HelperPod:
    """A helper pod, which exists inside a ``with`` block.

    Args:
        aks: the cluster.
        claim: name of the claim.
        namespace: its namespace; None uses the context's namespace.
        timer: the rest of the caller's timeout.
        read_only: whether the claim is mounted read-only.
        progress: False shows no progress.
    """

    def __init__(
        self,
        aks: HasKube,
        claim: str,
        *,
        namespace: str | None,
        timer: Timer,
        read_only: bool,
        progress: bool | None,
    ) -> None:
        self._aks = aks
        self._claim = require(aks, claim, namespace)
        self._namespace = str(self._claim["metadata"]["namespace"])
        self._shared = claim_of(self._claim, []).shared
        self._timer = timer
        self._read_only = read_only
        self._progress = progress
        self._job = ""

    @property
    def claim(self) -> str:
        """Name of the claim."""
        return str(self._claim["metadata"]["name"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._delete()

    def connect(self) -> Channel:
        """Start the helper's program in the pod, and return the connection to it. The pod is made if there is none.

        Raises:
            ConnectionCut: the program could not be reached.
            StorageError: the pod cannot run.
            WaitTimeout: the pod did not start in time.
        """
        pod = self._running_pod()
        try:
            command = _command("serve")
            with deadline(min(self._timer.left, retry_policy.DEFAULT_TIMEOUT)):
                stream = self._aks.kube.exec(pod, command, self._namespace, container=_CONTAINER, stdin=True)
            return Channel(stream, self.claim, self._timer)
        except (NotFound, Unreachable) as gone:
            raise ConnectionCut(gone.message, hint=gone.hint) from gone
        except KubernetesError as error:
            is_refused = error.http_status is not None and error.http_status < 500
            if is_refused and not (error.http_status == _BAD_REQUEST and self._has_ended(pod)):
                raise
            raise ConnectionCut(error.message, hint=error.hint) from error

    def _running_pod(self) -> str:
        """Return the name of the helper pod once it runs."""
        timer = Timer(min(self._timer.left, _START_SECONDS))
        last: Object | None = None

        def poll() -> tuple[str | None, str]:
            nonlocal last
            if not self._job:
                self._create()
            selector = f"batch.kubernetes.io/job-name={self._job}"
            pods = self._aks.kube.list("Pod", self._namespace, label_selector=selector)
            alive = [pod for pod in pods if not pod_facts.ended(pod) and not pod["metadata"].get("deletionTimestamp")]
            last = alive[-1] if alive else None
            if pods and not alive:
                # The pod was evicted, or has waited too long for this client.
                self._delete()
                return None, "the helper pod has ended and is started again"
            if not pods and self._is_gone():
                self._job = ""
                return None, "the helper pod has ended and is started again"
            if last is None:
                return None, "the helper pod is created"
            state = pod_facts.state(last)
            if state.word in pod_facts.STUCK:
                raise self._broken(last)
            is_running = last["status"].get("phase") == "Running" and state.word == "Running"
            return (str(last["metadata"]["name"]) if is_running else None), f"helper pod: {state.word} {state.message}"

        try:
            return wait_until(poll, f"claim {self.claim}", timeout=timer, interval=_INTERVAL, progress=self._progress)
        except WaitTimeout as late:
            if last is None:
                raise
            diagnosis = self._diagnosis(last)
            raise WaitTimeout(
                f"{late.message}\n{diagnosis[0]}", state=late.state, timeout=late.timeout, hint=diagnosis[1]
            ) from late

    def _has_ended(self, name: str) -> bool:
        """Return whether a pod has ended or was deleted."""
        pod = self._aks.kube.find("Pod", name, self._namespace)
        return pod is None or pod_facts.ended(pod)

    def _is_gone(self) -> bool:
        """Return whether the Job was deleted. Kubernetes does so as soon as the helper's program has ended."""
        return self._aks.kube.find("Job", self._job, namespace=self._namespace) is None

    def _broken(self, pod: Object) -> StorageError:
        verdict, fix = self._diagnosis(pod)
        return StorageError(f"the helper pod of claim {self.claim} cannot run. {verdict}", hint=fix)

    def _diagnosis(self, pod: Object) -> tuple[str, str]:
        try:
            with deadline(_EXPLAINING):
                found = pod_diagnosis.explain_pod(self._aks, pod)
            return found.verdict, found.fix
        except KubernetesError as failed:
            return f"The reason could not be found out: {failed.message}", ""

    def _create(self) -> None:
        name = f"storage-{self.claim[:_LONGEST_PREFIX].replace('.', '-').strip('-')}-{secrets.token_hex(_TOKEN_BYTES)}"
        manifest = self._manifest(name)
        place(self._aks, manifest["spec"]["template"]["spec"], self._claim, shared=self._shared)
        self._job = name
        self._aks.kube.create(manifest)

    def _manifest(self, name: str) -> Object:
        labels = {CREATED_BY: "helper"}
        variables = {
            "AKSGPU_HELPER": Path(helper_program.__file__).read_text(encoding="utf-8"),
            "AKSGPU_CLAIM": _CLAIM_PATH,
            "AKSGPU_RUN": _RUN_PATH,
            "AKSGPU_IDLE": str(IDLE_SECONDS),
        }
        container = {
            "name": _CONTAINER,
            "image": default_image(),
            "command": _command("idle"),
            "env": [{"name": key, "value": value} for key, value in variables.items()],
            "resources": _RESOURCES,
            "volumeMounts": [
                {"name": "claim", "mountPath": _CLAIM_PATH, "readOnly": self._read_only},
                {"name": "run", "mountPath": _RUN_PATH},
            ],
        }
        pod = {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 2,
            "activeDeadlineSeconds": _LONGEST_RUN,
            "automountServiceAccountToken": False,
            "containers": [container],
            "volumes": [
                {"name": "claim", "persistentVolumeClaim": {"claimName": self.claim}},
                {"name": "run", "emptyDir": {}},
            ],
        }
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name, "namespace": self._namespace, "labels": labels},
            "spec": {
                "backoffLimit": 0,
                "ttlSecondsAfterFinished": 0,
                "template": {"metadata": {"labels": labels, "annotations": dict(DO_NOT_EVICT)}, "spec": pod},
            },
        }

    def _delete(self) -> None:
        """Delete the Job, and wait until its pod is gone: a disk can be used elsewhere only then."""
        name = self._job
        if not name:
            return
        self._job = ""
        kube = self._aks.kube

        def poll() -> tuple[bool | None, str]:
            with contextlib.suppress(NotFound):
                found = kube.get("Job", name, self._namespace)
                if not found["metadata"].get("deletionTimestamp"):
                    kube.delete("Job", name, self._namespace, propagation_policy="Foreground")
                return None, "the helper pod is deleted"
            return True, ""

        # A helper that cannot be deleted now ends by itself.
        with contextlib.suppress(KubernetesError, WaitTimeout):
            wait_until(poll, f"claim {self.claim}", timeout=_DELETION_SECONDS, interval=_INTERVAL, progress=False)


def transfer(helper: HelperPod, work: Callable[[Channel], T], moved: Callable[[], int], timer: Timer) -> T:
    """Do something through a helper pod, and do it again after the connection was cut.

    Args:
        helper: the helper pod.
        work: does it, and resumes it when it is called again.
        moved: returns how much has been moved so far. As long as it grows, the connection is reopened.
        timer: the rest of the caller's timeout.

    Raises:
        Unreachable: there was no progress for some minutes.
        WaitTimeout: time ran out.
    """
    before = -1
    progressed = time.monotonic()
    while True:
        try:
            with helper.connect() as channel:
                return work(channel)
        except ConnectionCut as cut:
            if moved() > before:
                before = moved()
                progressed = time.monotonic()
            if timer.left <= 0:
                raise WaitTimeout(
                    f"claim {helper.claim}: not done after {timer.limit:g} s, because {cut.message}",
                    state=cut.message,
                    timeout=timer.limit,
                    hint="Call it again: it continues where it stopped.",
                ) from cut
            if time.monotonic() - progressed > PATIENCE_SECONDS:
                raise
            pause(_RETRY_SECONDS)
