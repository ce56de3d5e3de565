"""Logs of pods and Jobs, read and followed without losing or repeating a line.

A log that cannot be read raises an error; it never looks like an empty one.
"""

from __future__ import annotations

from aksgpu.logs.deduplication import LogGap, LogLine
from aksgpu.logs.job_logs import AttemptLog, AttemptLogs, follow, follow_job, read, read_attempts, read_job
from aksgpu.logs.log_request import LogIncomplete

__all__ = [
    "AttemptLog",
    "AttemptLogs",
    "LogGap",
    "LogIncomplete",
    "LogLine",
    "follow",
    "follow_job",
    "read",
    "read_attempts",
    "read_job",
]


def __dir__() -> list[str]:
    return __all__
