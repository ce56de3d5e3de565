"""Wait for several Jobs: their results in order, or the Jobs in the order of their end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from aksgpu.common.arguments import shown
from aksgpu.errors import InvalidInput
from aksgpu.jobs import job_outcome
from aksgpu.jobs.job import Job
from aksgpu.jobs.job_status import JobStatus
from aksgpu.kube.client import Object
from aksgpu.waiting import Timeout, Timer, wait_until

__all__ = ["MapResults", "as_completed"]

_INTERVAL = 0.5
"""Seconds between two lists of Jobs."""
_GONE = ""
"""In place of a time: the Job was deleted, or cancelled before its start."""


class MapResults(Iterator[Any]):
    """The results of ``Executor.map``, in the order of the items. Each step waits for the next one.

    Attributes:
        jobs: the Jobs, in the same order.
    """

    def __init__(self, jobs: list[Job], timeout: Timeout = None) -> None:
        self.jobs = jobs
        self._timer = Timer(timeout)
        self._next = 0

    def __next__(self) -> Any:
        if self._next >= len(self.jobs):
            raise StopIteration
        job = self.jobs[self._next]
        try:
            value = job.result(self._timer.left)
        except StopIteration as error:
            # It would end the iteration, as if there were no further values.
            raise RuntimeError(f"the function of job {job.name} raised StopIteration") from error
        self._next += 1
        return value


def as_completed(jobs: Iterable[Job], *, timeout: Timeout = None, progress: bool | None = None) -> Iterator[Job]:
    """Yield Jobs in the order in which they end, as ``concurrent.futures.as_completed`` does.

    A Job that was deleted counts as ended; its ``result`` raises NotFound.

    Args:
        jobs: the Jobs.
        timeout: how long the whole iteration may wait: seconds, or text such as ``"2h"``; None means no limit.
        progress: False shows no progress; None uses the environment variable ``AKSGPU_PROGRESS``.

    Yields:
        Each Job, once.

    Raises:
        InvalidInput: an argument is not valid.
        WaitTimeout: time ran out. The Jobs continue.

    Example:
        >>> for job in jobs.as_completed(started):  # doctest: +SKIP
        ...     print(job.name, job.result())
    """
    waiting = _checked(jobs)
    timer = Timer(timeout)
    return _in_order_of_end(waiting, timer, progress)


def _checked(jobs: Iterable[Job]) -> list[Job]:
    found: list[Any] = list(jobs) if isinstance(jobs, Iterable) else [jobs]
    for each in found:
        if not isinstance(each, Job):
            raise InvalidInput(
                f"`jobs` must be a list of Jobs, got {shown(each)}",
                hint="Such as jobs.as_completed([gpu.submit(train, rate) for rate in (1e-3, 1e-2)]).",
            )
    return list(dict.fromkeys(found))


def _in_order_of_end(waiting: list[Job], timer: Timer, progress: bool | None) -> Iterator[Job]:
    total = len(waiting)

    def poll() -> tuple[list[Job] | None, str]:
        ended = _ended(waiting)
        return ended or None, f"{total - len(waiting)} of {total} have ended"

    while waiting:
        ended = wait_until(
            poll,
            f"{total} jobs",
            timeout=timer,
            interval=_INTERVAL,
            progress=progress,
            on_interrupt="The Jobs continue.",
        )
        for job in ended:
            waiting.remove(job)
            yield job


def _ended(waiting: list[Job]) -> list[Job]:
    """Return the Jobs that have ended, the earliest first."""
    found: list[tuple[str, Job]] = []
    places = {(id(job.cluster), job.namespace): job.cluster for job in waiting}
    for (cluster_id, namespace), cluster in places.items():
        here = [job for job in waiting if (id(job.cluster), job.namespace) == (cluster_id, namespace)]
        # Only the times are kept of what may be many Jobs.
        times = dict(cluster.kube.list("Job", namespace, pick=lambda job: (job["metadata"]["name"], _end_time(job))))
        for job in here:
            time = times.get(job.name, _GONE)
            if time is not None:
                found.append((time, job))
    return [job for _, job in sorted(found, key=lambda pair: pair[0])]


def _end_time(job: Object) -> str | None:
    """Return when a Job ended, as the API server writes it; None if it has not ended."""
    if job_outcome.was_cancelled(job):
        return _GONE
    if not JobStatus.from_objects(job, None).ended:
        return None
    conditions = (job.get("status") or {}).get("conditions") or ()
    return max((str(condition.get("lastTransitionTime") or "") for condition in conditions), default="")
