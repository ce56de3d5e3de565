"""One call for a whole log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from aksgpu.metrics.lines import Log, pieces
from aksgpu.metrics.reader import MetricsReader


def parse(text: Log, *, patterns: Mapping[str, str] | Sequence[Mapping[str, str]] | None = None) -> pd.DataFrame:
    r"""Return the metrics in a log of any training program.

    The formats of common frameworks are read as they are printed; see ``docs/metrics.md``. A line is read once, by the
    most specific format that claims it. A progress bar gives one row, its last state.

    Args:
        text: a whole log; or its lines with or without newlines, such as an open file or ``job.follow()``.
        patterns: more forms, asked before the built-in ones: a mapping from a metric's name to a regular expression
            with one group, or SageMaker's list of ``{"Name": ..., "Regex": ...}``.

    Returns:
        One row a line that has metrics, in the order of the lines. First the position:

        - ``step`` (Int64): as printed; else the step that the line before names, else a running number from 0 where
          there is no epoch either; NA where the line belongs to a whole epoch. ``attrs["step_kind"]`` says what was
          counted: ``step``, ``batch``, ``samples``, ``bar`` or ``count``;
        - ``epoch`` (Float64): as printed, so it begins with 0 or 1 as the program does;
        - ``time`` (datetime64[ns, UTC]): the server's time of the line, where the log has it;
        - ``pod`` (string), ``index`` (Int64), ``rank`` (Int64), ``attempt`` (Int64): where they are known.

        Then a float64 column for each metric, under its printed name, NaN where the line does not have it. A value with
        a percent sign is a share of 1; other percentages stay as printed and are listed in ``attrs["percent"]``.

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
