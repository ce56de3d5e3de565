"""Tables: DataFrames with the same columns and dtypes whether they have rows or not, and facts as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["facts_html", "frame"]


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


def facts_html(caption: str, facts: Mapping[str, str]) -> str:
    """Facts by name, as notebooks show them; those that are empty are left out."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(value)}</td></tr>"
        for name, value in facts.items()
        if value
    )
    return f"<table><caption>{escape(caption)}</caption>{rows}</table>"
