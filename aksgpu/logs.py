"""Follow a pod's log: nothing lost, nothing twice, whatever the connection does.

The end of a log stream means nothing: load balancers drop idle streams, servers cut long ones, and either looks like
the end of the program. Here "finished" comes from the pod's status only. Every line is asked for with its time
(nanoseconds); after a break the stream resumes at the last second seen, which is as exact as servers are, and what was
already given is dropped by (time, text, ordinal). A container's restarts are followed, and a Job's later pods.

What the lines mean is :mod:`aksgpu.metrics`' matter.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from aksgpu._kube.backoff import Backoff
from aksgpu._kube.logwindow import LogLine, Window
from aksgpu._kube.pods import containers
from aksgpu.errors import InvalidInput, KubernetesError, NotFound, StreamLost, Unreachable
from aksgpu.kube import Kube, Object

__all__ = ["LogLine", "follow", "follow_job", "read"]

_log = logging.getLogger(__name__)

READ_TIMEOUT = 45.0
"""Seconds of silence before the connection is renewed: below the four minutes after which AKS drops it unheard."""
PATIENCE = 900.0
"""Seconds without any answer from the API server before following gives up."""
POLL = 0.5
"""Seconds between two looks at a pod that has no log yet."""


class _Run(NamedTuple):
    """Where a container stands: which of its runs is the newest, and whether that one has ended."""

    restarts: int
    state: str
    """``waiting``, ``running``, ``terminated`` or ``gone``."""
    final: bool
    """No further run will come."""


def read(
    kube: Kube,
    pod: str,
    namespace: str | None = None,
    container: str | None = None,
    *,
    tail: int | None = None,
    previous: bool = False,
) -> str:
    """What a container has logged until now.

    Args:
        kube: the cluster's API.
        pod: name.
        namespace: of the pod.
        container: None for the pod's only or default one.
        tail: only so many of the last lines.
        previous: of the run before the last restart.

    Returns:
        The text; empty where the container has not started.
    """
    pause = Backoff()
    for attempt in range(4):
        try:
            name = container or _container(kube.get("Pod", pod, namespace), None)
            with kube.log(pod, namespace, container=name, tail_lines=tail, previous=previous) as stream:
                return stream.read().decode("utf-8", "replace")
        except Unreachable:
            if attempt == 3:
                raise
            pause.sleep()
        except KubernetesError as refused:
            if not _not_yet(refused):
                raise
            return ""
    raise AssertionError("unreachable")


def follow(
    kube: Kube,
    pod: str,
    namespace: str | None = None,
    container: str | None = None,
    *,
    read_timeout: float = READ_TIMEOUT,
) -> Iterator[LogLine]:
    """Every line of a container, from its first until it has ended for good, its restarts included.

    Args:
        kube: the cluster's API.
        pod: name. A pod that has not started is waited for.
        namespace: of the pod.
        container: None for the pod's only or default one.
        read_timeout: seconds of silence after which the connection is renewed.

    Yields:
        :class:`LogLine`: the server's time of the line (RFC 3339, nanoseconds) and its text without the newline.

    Raises:
        NotFound: there was no such pod to begin with. A pod that disappears later just ends the iteration.
        Unreachable: the API server gave no answer for a quarter of an hour, or has refused connections for 15 seconds.
    """
    return _Follower(kube, kube.get("Pod", pod, namespace), container, read_timeout).lines()


def follow_job(
    kube: Kube,
    job: str,
    namespace: str | None = None,
    container: str | None = None,
    *,
    read_timeout: float = READ_TIMEOUT,
) -> Iterator[tuple[str, LogLine]]:
    """Every line of a Job's pods, until the Job has ended: one pod after the other, in the order of their creation.

    Args:
        kube: the cluster's API.
        job: name.
        namespace: of the Job.
        container: as for :func:`follow`.
        read_timeout: as for :func:`follow`.

    Yields:
        The pod's name and the line.

    Raises:
        NotFound: there was no such Job to begin with.
        Unreachable: the API server gave no answer for a quarter of an hour, or has refused connections for 15 seconds.
    """
    return _job_lines(kube, kube.get("Job", job, namespace), container, read_timeout)


def _job_lines(kube: Kube, owner: Object, container: str | None, read_timeout: float) -> Iterator[tuple[str, LogLine]]:
    seen: set[str] = set()
    pause = Backoff(time.monotonic() + PATIENCE)
    while True:
        # Asked before the pods are listed: when it has ended by then, the list holds all the pods there will be.
        try:
            ended = _job_ended(kube, owner)
            pods = [pod for pod in job_pods(kube, owner) if pod["metadata"]["uid"] not in seen]
        except Unreachable as failed:
            _give_up_or_sleep(pause, failed)
            continue
        pause = Backoff(time.monotonic() + PATIENCE)
        # One that waits for a GPU must not hold up one that runs. Listed anew after each, for what came meanwhile.
        chosen = next((pod for pod in pods if ended or pod["spec"].get("nodeName")), None)
        if chosen is not None:
            seen.add(chosen["metadata"]["uid"])
            for line in _Follower(kube, chosen, container, read_timeout).lines():
                yield chosen["metadata"]["name"], line
            pause = Backoff(time.monotonic() + PATIENCE)
        elif ended:
            return
        else:
            time.sleep(POLL)


def job_pods(kube: Kube, job: Object) -> list[Object]:
    """A Job's pods, oldest first."""
    labels = job["spec"]["selector"]["matchLabels"]
    selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    pods = kube.list("Pod", job["metadata"]["namespace"], label_selector=selector)
    return sorted(pods, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))


def _job_ended(kube: Kube, job: Object) -> bool:
    now = kube.find("Job", job["metadata"]["name"], job["metadata"]["namespace"])
    if now is None or now["metadata"]["uid"] != job["metadata"]["uid"]:
        return True
    conditions = now.get("status", {}).get("conditions") or ()
    return any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions)


class _Follower:
    """Follows one container of one pod. Yields whole lines only."""

    def __init__(self, kube: Kube, pod: Object, container: str | None, read_timeout: float) -> None:
        metadata = pod["metadata"]
        self._kube, self._container, self._read_timeout = kube, _container(pod, container), read_timeout
        self._name, self._namespace, self._uid = metadata["name"], metadata["namespace"], metadata["uid"]
        self._window = Window()
        self._restarts = 0  # the run that the window is about
        self._drained = False  # whether all of that run was given
        self._be_patient()

    def lines(self) -> Iterator[LogLine]:
        """See :func:`follow`."""
        while True:
            run = self._retried(self._look)
            if run.state == "gone":
                return
            if run.restarts > self._restarts:
                yield from self._catch_up(run.restarts)
            if run.state == "waiting" and not run.final:
                time.sleep(POLL)
            elif run.state == "running":
                yield from self._stream()
            else:
                yield from self._rest(previous=False)
                if run.final:
                    return
                time.sleep(POLL)  # ended, and about to be started again

    # Looking

    def _look(self) -> _Run:
        pod = self._kube.find("Pod", self._name, self._namespace)
        if pod is None or pod["metadata"]["uid"] != self._uid:
            return _Run(self._restarts, "gone", True)
        return _run(pod, self._container)

    def _retried(self, attempt: Callable[[], _Run]) -> _Run:
        self._be_patient()  # from now on, however long ago the last answer came: a stream may have lasted for hours
        while True:
            try:
                run = attempt()
            except Unreachable as failed:
                _give_up_or_sleep(self._pause, failed)
            else:
                return run

    def _be_patient(self) -> None:
        self._pause = Backoff(time.monotonic() + PATIENCE)

    # Reading

    def _stream(self) -> Iterator[LogLine]:
        """What the newest run logs, until the stream ends for whatever reason."""
        began, quiet = time.monotonic(), True
        try:
            with self._open(follow=True) as stream:
                # The container may have been restarted before the stream was opened: then it is another run's.
                if self._look().restarts != self._restarts:
                    return
                for line in self._window.fresh(stream.lines()):
                    quiet = False
                    yield self._window.add(line)
        except NotFound:
            return  # the pod is gone, or its log: the next look tells
        except Unreachable as broken:
            _log.debug("following %s again after: %s", self._name, broken.message)
        except KubernetesError as refused:
            if not _not_yet(refused):
                raise
        # A stream that ended at once and brought nothing: ask more slowly, but never give up for that.
        if quiet and time.monotonic() - began < 1.0:
            time.sleep(POLL)

    def _rest(self, *, previous: bool) -> Iterator[LogLine]:
        """What is left of a run that has ended: asked for until an answer brings nothing new."""
        unfinished: LogLine | None = None
        self._be_patient()
        while not self._drained:
            try:
                with self._open(previous=previous) as stream:
                    lines = list(self._window.fresh(stream.lines()))
                if self._look().restarts != self._restarts + previous:
                    return  # restarted meanwhile: these lines may be the next run's
            except Unreachable as failed:
                _give_up_or_sleep(self._pause, failed)
                continue
            except KubernetesError as refused:
                if not (previous or _not_yet(refused) or isinstance(refused, NotFound)):
                    raise
                return
            yield from map(self._window.add, lines)
            self._be_patient()
            # A last line without a newline is believed when it comes twice: an answer can be cut off as well.
            self._drained = not lines and self._window.unfinished == unfinished
            unfinished = self._window.unfinished
        if unfinished is not None:
            yield self._window.add(unfinished)

    def _catch_up(self, restarts: int) -> Iterator[LogLine]:
        """From the run that was followed to the newest, by way of what the server still has."""
        if restarts > self._restarts + 1:
            _log.warning("pod %s was restarted %d times unseen", self._name, restarts - self._restarts - 1)
            self._begin(restarts - 1)
        yield from self._rest(previous=True)
        self._begin(restarts)

    def _begin(self, restarts: int) -> None:
        self._window, self._restarts, self._drained = Window(), restarts, False

    def _open(self, *, follow: bool = False, previous: bool = False) -> Any:
        return self._kube.log(
            self._name,
            self._namespace,
            container=self._container,
            follow=follow,
            previous=previous,
            since_time=self._window.since,
            timestamps=True,
            read_timeout=self._read_timeout,
        )


def _give_up_or_sleep(pause: Backoff, failed: Unreachable) -> None:
    if pause.hopeless(failed):
        raise StreamLost(
            f"following broke off: {failed.message}",
            hint=f"Nothing is lost: the log can be followed again. {failed.hint}",
            refused=failed.refused,
            _beneath=failed.original,
        ) from None
    pause.sleep()


def _not_yet(refused: KubernetesError) -> bool:
    """Whether the server says that there is no log now, rather than that the question is wrong."""
    return refused.code >= 500 or refused.code == 429 or (refused.code == 400 and "waiting to start" in refused.message)


def _container(pod: Object, name: str | None) -> str:
    spec = pod["spec"]
    names = [c["name"] for c in (*(spec.get("initContainers") or ()), *spec["containers"])]
    if name is None:
        annotations = pod["metadata"].get("annotations") or {}
        return str(annotations.get("kubectl.kubernetes.io/default-container") or spec["containers"][0]["name"])
    if name not in names:
        raise InvalidInput(
            f"pod {pod['metadata']['name']} has no container {name!r}", hint=f"It has {', '.join(names)}."
        )
    return name


def _run(pod: Object, container: str) -> _Run:
    status = pod.get("status") or {}
    over = status.get("phase") in ("Succeeded", "Failed")
    for entry in containers(status):
        if entry["name"] == container:
            return _container_run(entry, pod["spec"].get("restartPolicy", "Always"), over)
    return _Run(0, "gone" if over else "waiting", over)


def _container_run(entry: Mapping[str, Any], policy: str, over: bool) -> _Run:
    state = next(iter(entry.get("state") or {}), "waiting")
    restarts = int(entry.get("restartCount") or 0)
    if state == "terminated":
        stays = policy == "Never" or (policy == "OnFailure" and entry["state"]["terminated"].get("exitCode") == 0)
        return _Run(restarts, state, over or stays)
    if state == "waiting" and (entry.get("lastState") or {}).get("terminated"):
        return _Run(restarts, "terminated", over)  # between two runs: the log is still that of the ended one
    if state == "waiting" and over:
        return _Run(restarts, "gone", True)
    return _Run(restarts, state, over)
