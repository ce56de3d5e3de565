"""The state of a Job that a view shows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from aksgpu.curves import Curve

__all__ = ["Observation"]


@dataclass(frozen=True)
class Observation:
    """The known state of a Job. A view replaces it at each poll.

    Attributes:
        name: name of the Job.
        namespace: namespace of the Job.
        phase: as in :class:`aksgpu.jobs.JobStatus`, or ``Unknown`` before the first response, or ``Deleted``.
        detail: reason and message of the phase; may be empty.
        ended: whether the Job is complete or has failed.
        observed_at: time of the last response about the Job's state; None before the first one.
        problem: why the state cannot be read at present; empty if it can.
        curves: the metrics, as :func:`aksgpu.plots.curve` draws them.
        max_steps: number of steps that the program trains; 0 if its arguments do not have it.
        lines: last lines of the log, without control characters.
        log_problem: why the log could not be read; empty if it could.
        gpu: use of the GPUs now, such as ``GPU 87 %, 12.1 of 16.0 GB``; empty if it is not known.
        warnings: sentences about money that is wasted.
        started: start time of the Job, if known.
        finished: end time of the Job, if known.
        verdict: what keeps the Job from running, or why it failed; empty if it runs, or if that is not known yet.
        fix: what to do about it; may be empty.
    """

    name: str
    namespace: str
    phase: str = "Unknown"
    detail: str = "the cluster has not responded yet"
    ended: bool = False
    observed_at: datetime | None = None
    problem: str = ""
    curves: tuple[Curve, ...] = ()
    max_steps: int = 0
    lines: tuple[str, ...] = ()
    log_problem: str = ""
    gpu: str = ""
    warnings: tuple[str, ...] = ()
    started: datetime | None = None
    finished: datetime | None = None
    verdict: str = ""
    fix: str = ""
