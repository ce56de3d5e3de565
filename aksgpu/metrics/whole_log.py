"""Parse a whole log with one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from aksgpu.metrics.lines import Log, pieces
from aksgpu.metrics.reader import MetricsReader

__all__ = ["parse"]


def parse(text: Log, *, patterns: Mapping[str, str] | Sequence[Mapping[str, str]] | None = None) -> pd.DataFrame:
    r"""Return the metrics in a log of any training program.

    The formats of common frameworks are read as they are printed; see ``docs/metrics.md``. A line is read once, by the
    most specific format that claims it. A progress bar gives one row, its last state.

    Args:
        text: a whole log; or its lines with or without newlines, such as an open file or ``job.follow()``.
        patterns: additional formats, tried before the built-in ones: a mapping from a metric's name to a regular
            expression with one group, or SageMaker's list of ``{"Name": ..., "Regex": ...}``.

    Returns:
        One row for each line with metrics, in the order of the lines. The first columns are the position:

        - ``step`` (Int64): the step in the line, or otherwise the newest step before it. If there is none, it is a
          count from 0 for lines without an epoch, and NA for lines about a whole epoch. ``attrs["step_kind"]`` says
          what is counted: ``step``, ``batch``, ``samples``, ``bar`` or ``count``;
        - ``epoch`` (Float64): as printed, so it starts at 0 or 1 as in the program;
        - ``time`` (datetime64[ns, UTC]): the server's time of the line, if the log has it;
        - ``pod`` (string), ``index`` (Int64), ``rank`` (Int64), ``attempt`` (Int64): if they are known.

        Then there is a float64 column for each metric, with its printed name; NaN if the line does not have it. A value
        with a percent sign becomes a fraction of 1. Other percentages are unchanged and listed in ``attrs["percent"]``.

        ``attrs`` has ``formats`` (lines read by each format), ``unread`` (lines with numbers that no format claimed:
        how many, and the first few), ``canonical`` (each column's general name), ``node_messages`` (lines that the
        node's kubelet wrote into the log) and ``facts`` (what :func:`facts` returns).

    Raises:
        InvalidInput: ``text`` is neither text nor lines of text, or a pattern is not a regular expression with one
            group.

    Example:
        >>> metrics.parse("Accuracy at step 10: 0.7457\n")[["step", "accuracy"]]
           step  accuracy
        0    10    0.7457
    """
    reader = MetricsReader(patterns)
    for piece in pieces(text):
        reader.feed(piece)
    return reader.frame()
