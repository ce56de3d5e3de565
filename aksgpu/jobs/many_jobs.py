"""Wait for several Jobs: their results in order, or the Jobs in the order of their end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

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
_NAMED = 3
"""Failed Jobs that the progress names, the newest ones."""


class _End(NamedTuple):
    """How a Job ended."""

    time: str
    """As the API server writes it."""
    has_failed: bool


class MapResults(Iterator[Any]):
    """The results of ``Executor.map``, in the order of the items. Each step waits for the next one.

    Attributes:
        jobs: the Jobs, in the same order.
    """

    def __init__(self, jobs: list[Job], timeout: Timeout = None) -> None:
        self.jobs = jobs
        self._timer = Timer(timeout)
        self._next = 0

    def __repr__(self) -> str:
        return f"MapResults({self._next} of {len(self.jobs)} results read)"

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

    A Job that was deleted counts as ended; its ``result`` raises NotFound. The progress names Jobs that have failed.

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
    failed: list[str] = []

    def poll() -> tuple[list[tuple[Job, _End]] | None, str]:
        return _ended(waiting) or None, _progress(total - len(waiting), total, failed)

    while waiting:
        ended = wait_until(
            poll,
            f"{total} jobs",
            timeout=timer,
            interval=_INTERVAL,
            progress=progress,
            on_interrupt="The Jobs continue.",
        )
        failed += [job.name for job, end in ended if end.has_failed]
        for job, _ in ended:
            waiting.remove(job)
            yield job


def _progress(ended: int, total: int, failed: list[str]) -> str:
    """Return how many Jobs have ended, and which have failed."""
    text = f"{ended} of {total} have ended"
    if not failed:
        return text
    more = f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
    return f"{text}, {len(failed)} failed: {', '.join(reversed(failed[-_NAMED:]))}{more}"


def _ended(waiting: list[Job]) -> list[tuple[Job, _End]]:
    """Return the Jobs that have ended, the earliest first."""
    found: list[tuple[Job, _End]] = []
    places = {(id(job.cluster), job.namespace): job.cluster for job in waiting}
    for (cluster_id, namespace), cluster in places.items():
        here = [job for job in waiting if (id(job.cluster), job.namespace) == (cluster_id, namespace)]
        # There may be many Jobs, so only their ends are kept.
        ends = dict(cluster.kube.list("Job", namespace, pick=lambda job: (job["metadata"]["name"], _end(job))))
        for job in here:
            end = ends.get(job.name, _End(_GONE, has_failed=False))
            if end is not None:
                found.append((job, end))
    return sorted(found, key=lambda pair: pair[1].time)


def _end(job: Object) -> _End | None:
    """Return how a Job ended; None if it has not ended."""
    if job_outcome.was_cancelled(job):
        return _End(_GONE, has_failed=False)
    status = JobStatus.from_objects(job, None)
    if not status.ended:
        return None
    conditions = (job.get("status") or {}).get("conditions") or ()
    time = max((str(condition.get("lastTransitionTime") or "") for condition in conditions), default="")
    return _End(time, status.phase == "Failed")
