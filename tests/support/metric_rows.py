"""The rows of a frame of metrics, as tests compare them."""

from __future__ import annotations

from typing import Any

import pandas as pd

from aksgpu.metrics.table import POSITION_COLUMNS

SHOWN = ("step", "epoch", "pod", "index", "rank", "attempt")


def rows(frame: pd.DataFrame, positions: tuple[str, ...] = SHOWN) -> list[dict[str, Any]]:
    """Return what each row has: its position in the given columns, and its metrics."""
    hidden = [name for name in POSITION_COLUMNS if name not in positions]
    return [
        {name: value for name, value in record.items() if not pd.isna(value)}
        for record in frame.drop(columns=hidden).to_dict("records")
    ]
