"""DataFrames with the same columns and dtypes whether they have rows or not. Nothing but that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def frame(rows: Iterable[Mapping[str, Any]], dtypes: Mapping[str, str]) -> pd.DataFrame:
    """A DataFrame of the rows.

    Args:
        rows: one mapping a row; a column that a row lacks, or None, is NA.
        dtypes: column -> pandas dtype (nullable ones, such as ``Int64``), in the order of the columns.
    """
    import pandas as pd

    rows = list(rows)
    columns = {
        name: pd.Series([row.get(name) for row in rows], dtype=dtype, name=name) for name, dtype in dtypes.items()
    }
    return pd.DataFrame(columns)
