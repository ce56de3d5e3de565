"""DataFrames with the same columns and dtypes for any number of rows, and HTML tables of names and values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["facts_html", "frame"]


def frame(rows: Iterable[Mapping[str, Any]], dtypes: Mapping[str, str]) -> pd.DataFrame:
    """Return a DataFrame.

    Args:
        rows: one mapping for each row. A missing value, or None, becomes NA.
        dtypes: column -> nullable pandas dtype such as ``Int64``, in the order of the columns.
    """
    import pandas as pd  # imported here because it takes half a second

    rows = list(rows)
    columns = {
        name: pd.Series([row.get(name) for row in rows], dtype=dtype, name=name) for name, dtype in dtypes.items()
    }
    return pd.DataFrame(columns)


def facts_html(caption: str, facts: Mapping[str, str]) -> str:
    """Return a table of names and values as HTML. Empty values are omitted."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(value)}</td></tr>"
        for name, value in facts.items()
        if value
    )
    return f"<table><caption>{escape(caption)}</caption>{rows}</table>"
