"""The GPU samples of a Job's pods: from the sampler in the pod, or from ``nvidia-smi`` while this process watches.

The pods of an Executor sample themselves, so their samples do not depend on who watches. In any other pod, this process
runs ``nvidia-smi`` from time to time: while something waits for the Job or shows it (:func:`watch`), and when the
samples are asked for.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aksgpu.errors import Forbidden, KubernetesError, NotFound, Unauthorized
from aksgpu.jobs import nvidia_smi_samples
from aksgpu.jobs.executor_manifest import MAIN, SIDECAR
from aksgpu.jobs.gpu_sample_table import gpu_table
from aksgpu.jobs.nvidia_smi_samples import NoSample
from aksgpu.kube import pod_facts
from aksgpu.kube.client import HasKube, Object
from aksgpu.logs.job_logs import first_attempts
from aksgpu.logs.log_request import LogIncomplete, LogRequest, read_text
from aksgpu.payload.gpu_sampler import FINE_SECONDS, INTERVAL_SECONDS, Samples, from_lines
from aksgpu.payload.job_annotations import EXECUTOR
from aksgpu.waiting import deadline

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read_gpu", "watch"]

_LATER_SECONDS = 20.0
"""Seconds between two runs of ``nvidia-smi`` after the first ten minutes."""
_WATCHED_SECONDS = 30.0
"""Seconds after the last call of :func:`watch` for which a Job counts as watched."""
_ASKING = 15.0
"""Seconds that asking a pod's sampler may take."""
_LOG_PATIENCE = 20.0
"""Seconds for which reading the sidecar's log is repeated."""
_MOST_PODS = 2000
"""Pods whose samples this process remembers."""
_NOT_STARTED = "the pod has not started"
_GPU = "gpu"
"""The runner's command that prints the samples."""


class _PodSamples:
    """What this process knows about one pod's GPUs.

    Attributes:
        rows: rows that no longer change.
        open_rows: rows of the minute that has not ended.
        problem: why samples are missing; empty if none are missing.
        complete: whether nothing more will come.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.rows: list[dict[str, Any]] = []
        self.open_rows: list[dict[str, Any]] = []
        self.problem = ""
        self.complete = False
        self._samples = Samples()
        self._next = 0.0

    # The sampler in the pod

    def ask_runner(self, aks: HasKube, pod: Object) -> None:
        """Read the rows that the pod's own sampler has written since the last time."""
        metadata = pod["metadata"]
        main = next(container for container in pod["spec"]["containers"] if container["name"] == MAIN)
        since = max((row["time"] for row in self.rows), default=0.0)
        command = [*main["command"][:-1], _GPU, repr(since)]
        try:
            with aks.kube.exec(metadata["name"], command, metadata["namespace"], container=MAIN) as program:
                done = program.communicate(timeout=_ASKING)
        except TimeoutError:
            self.problem = f"the pod did not answer within {_ASKING:g} s"
        except NotFound:
            return  # the pod has just ended
        except (Forbidden, Unauthorized) as refused:
            self.problem = (
                f"you may not run programs in pods: {refused.message}. The samples can be read when the pod has ended"
            )
        except KubernetesError as failed:
            self.problem = f"the pod's sampler could not be read: {failed.message}"
        else:
            self.problem = ""
            self._take(done.stdout.decode("utf-8", "replace"))

    def read_sidecar(self, aks: HasKube, pod: Object) -> None:
        """Read the rows that the sidecar has written to its log at the end."""
        metadata = pod["metadata"]
        request = LogRequest(aks.kube, metadata["name"], metadata["namespace"], SIDECAR, None, False)
        try:
            with warnings.catch_warnings():
                # The sidecar writes at its end, so its log begins long after it.
                warnings.simplefilter("ignore", LogIncomplete)
                text = read_text(request, _LOG_PATIENCE)
        except KubernetesError as failed:
            self.problem = f"the samples could not be read: {failed.message}"
            return
        before = self.rows
        self.rows = []
        self.open_rows = []
        self.problem = ""
        self._take(text)
        self.rows += self.open_rows
        self.open_rows = []
        if len(self.rows) < len(before):
            self.rows = before
        self.complete = True
        if not self.rows and not self.problem:
            self.problem = "the pod ended before its first sample"

    def _take(self, text: str) -> None:
        found = from_lines(text.splitlines())
        self.open_rows = [row for row in found if row.get("open")]
        for row in found:
            if "problem" in row:
                self.problem = str(row["problem"])
            elif not row.get("open"):
                self.rows.append(row)

    # nvidia-smi

    def run_nvidia_smi(self, aks: HasKube, pod: Object) -> None:
        """Take a sample if the next one is due."""
        now = time.monotonic()
        if self.complete or now < self._next:
            return
        self._next = now + INTERVAL_SECONDS
        try:
            rows = nvidia_smi_samples.sample(aks, pod)
        except NoSample as failed:
            if str(failed) != "the pod has ended":
                self.problem = str(failed)
            self.complete = failed.final
            return
        self.problem = ""
        self._samples.add(rows)
        self.rows = self._samples.rows
        self.open_rows = self._samples.open_rows()
        if self.rows and rows[0]["time"] - self.rows[0]["time"] > FINE_SECONDS:
            self._next = now + _LATER_SECONDS

    def all_rows(self) -> list[dict[str, Any]]:
        """Return the rows so far."""
        return [*self.rows, *self.open_rows]


_known: OrderedDict[tuple[str, int], _PodSamples] = OrderedDict()
"""By the pods' uids, and the number of restarts."""
_known_lock = threading.Lock()


def _samples_of(pod: Object) -> _PodSamples:
    """Return the samples of a pod since its last restart."""
    key = (str(pod["metadata"]["uid"]), pod_facts.restarts(pod))
    with _known_lock:
        found = _known.setdefault(key, _PodSamples())
        _known.move_to_end(key)
        while len(_known) > _MOST_PODS:
            _known.popitem(last=False)
        return found


def _before_restarts(pod: Object) -> list[tuple[int, _PodSamples]]:
    """Return the samples of a pod before its restarts, with the number of restarts before them."""
    uid = str(pod["metadata"]["uid"])
    with _known_lock:
        return [(number, _known[uid, number]) for number in range(pod_facts.restarts(pod)) if (uid, number) in _known]


def read_gpu(aks: HasKube, job: Object, pods: Sequence[Object]) -> pd.DataFrame:
    """Return the samples of a Job's pods that can be had now; see :meth:`aksgpu.jobs.Job.gpu`.

    Args:
        aks: the cluster.
        job: the Job object.
        pods: its pods, oldest first.
    """
    rows: list[dict[str, Any]] = []
    sources: dict[str, str] = {}
    for pod, index, attempt in first_attempts(job, list(pods)):
        name = pod["metadata"]["name"]
        if not pod_facts.gpus(pod["spec"]):
            sources[name] = "none: the pod requests no GPU"
            continue
        samples = _samples_of(pod)
        with samples.lock:
            _update(samples, aks, pod)
            found = samples.all_rows()
            sources[name] = _source(samples, pod)
        runs = [(attempt + number, earlier.all_rows()) for number, earlier in _before_restarts(pod)]
        runs.append((attempt + pod_facts.restarts(pod), found))
        for number, of_run in runs:
            rows += [{**row, "pod": name, "index": index, "attempt": number} for row in of_run]
    return gpu_table(rows, sources)


def _update(samples: _PodSamples, aks: HasKube, pod: Object) -> None:
    """Read what is new."""
    if samples.complete:
        return
    own = _samples_itself(pod)
    if pod_facts.ended(pod):
        if own:
            samples.read_sidecar(aks, pod)
        elif not samples.rows and samples.problem in ("", _NOT_STARTED):
            samples.problem = "nothing in this process watched the pod while it ran"
    elif not _runs(pod):
        if not samples.rows and not samples.problem:
            samples.problem = _NOT_STARTED
    elif own:
        samples.ask_runner(aks, pod)
    else:
        with deadline(_ASKING):
            samples.run_nvidia_smi(aks, pod)


def _source(samples: _PodSamples, pod: Object) -> str:
    """Return where a pod's samples are from, or why there are none."""
    if not samples.rows and not samples.open_rows:
        return f"none: {samples.problem or 'the first sample has not been taken'}"
    what = "NVML in the pod" if _samples_itself(pod) else "nvidia-smi, while this process watched the Job"
    return f"{what}; {samples.problem}" if samples.problem else what


def _samples_itself(pod: Object) -> bool:
    """Return whether a runner with a sampler is in the pod."""
    return EXECUTOR in (pod["metadata"].get("labels") or {})


def _runs(pod: Object) -> bool:
    """Return whether the container with the GPU runs."""
    return pod_facts.container_runs(pod, nvidia_smi_samples.container_of(pod))


# Watching


class _Watch:
    """A thread that samples the pods of one Job while the Job is watched."""

    def __init__(self, aks: HasKube) -> None:
        self.aks = aks
        self.pods: list[Object] = []
        self.until = 0.0
        self.wake = threading.Event()

    def run(self, uid: str) -> None:
        while True:
            with _watches_lock:
                if time.monotonic() > self.until:
                    del _watches[uid]
                    return
                pods = self.pods
            for pod in pods:
                samples = _samples_of(pod)
                with samples.lock, deadline(_ASKING):
                    samples.run_nvidia_smi(self.aks, pod)
            self.wake.wait(INTERVAL_SECONDS)
            self.wake.clear()


_watches: dict[str, _Watch] = {}
"""By the Jobs' uids."""
_watches_lock = threading.Lock()


def watch(aks: HasKube, pods: Sequence[Object]) -> None:
    """Let a thread sample the GPUs of a Job's pods for the next half minute. Nothing is waited for.

    Args:
        aks: the cluster.
        pods: the Job's pods, as they are now. Those that sample themselves are left out.
    """
    wanted = [pod for pod in pods if pod_facts.gpus(pod["spec"]) and not _samples_itself(pod) and _runs(pod)]
    owners = {str(owner["uid"]) for pod in wanted for owner in pod["metadata"].get("ownerReferences") or ()}
    if not wanted or not owners:
        return
    uid = min(owners)
    with _watches_lock:
        found = _watches.get(uid)
        is_new = found is None
        if found is None:
            found = _Watch(aks)
            _watches[uid] = found
        has_more = len(wanted) > len(found.pods)
        found.pods = wanted
        found.until = time.monotonic() + _WATCHED_SECONDS
        if is_new:
            threading.Thread(target=found.run, args=(uid,), name="aksgpu-gpu-watch", daemon=True).start()
        elif has_more:
            found.wake.set()
