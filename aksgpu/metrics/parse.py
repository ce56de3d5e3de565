"""One call for a whole log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from aksgpu.metrics.reader import MetricsReader


def parse(
    text: str | bytes | Iterable[str] | Iterable[bytes],
    *,
    patterns: Mapping[str, str] | Sequence[Mapping[str, str]] | None = None,
) -> pd.DataFrame:
    """Return the metrics in a log."""
    reader = MetricsReader(patterns)
    if isinstance(text, str | bytes):
        reader.feed(text)
    else:
        reader.feed_lines(text)
    return reader.frame()
