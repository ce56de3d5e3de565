"""Log lines of any training program, as a DataFrame of its metrics.

    df = metrics.parse(job.logs())

Formats of common frameworks are read as they are printed: see :mod:`aksgpu.metrics.formats`.
"""

from __future__ import annotations

from aksgpu.metrics.gpu_facts import facts
from aksgpu.metrics.reader import MetricsReader
from aksgpu.metrics.values import canonical
from aksgpu.metrics.whole_log import parse

__all__ = ["MetricsReader", "canonical", "facts", "parse"]


def __dir__() -> list[str]:
    return __all__
