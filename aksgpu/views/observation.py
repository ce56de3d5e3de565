"""What a view knows about a Job at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from aksgpu.curves import Curve


@dataclass(frozen=True)
class Observation:
    """What is known about a Job. A view replaces it at each poll.

    Attributes:
        name: name of the Job.
        namespace: namespace of the Job.
        phase: as in :class:`aksgpu.jobs.JobStatus`, or ``Unknown`` before the first answer, or ``Deleted``.
        words: reason and message of the phase; may be empty.
        ended: whether the Job is complete or has failed.
        seen: time of the last answer about the Job's state; None before the first one.
        problem: why the state cannot be read now; empty when it can.
        curves: the metrics, as :func:`aksgpu.plots.curve` draws them.
        max_steps: number of steps that the program trains; 0 when its arguments do not say.
        lines: last lines of the log, without control characters.
        log_problem: why the log could not be read; empty when it could.
        gpu: use of the GPUs now, such as ``GPU 87 %, 12.1 of 16.0 GB``; empty if it is not known.
        warnings: sentences about money that is wasted.
        started: start time of the Job, if known.
        finished: end time of the Job, if known.
    """

    name: str
    namespace: str
    phase: str = "Unknown"
    words: str = "the cluster has not answered yet"
    ended: bool = False
    seen: datetime | None = None
    problem: str = ""
    curves: tuple[Curve, ...] = ()
    max_steps: int = 0
    lines: tuple[str, ...] = ()
    log_problem: str = ""
    gpu: str = ""
    warnings: tuple[str, ...] = ()
    started: datetime | None = None
    finished: datetime | None = None
