"""DataFrames of metrics and samples as files that hold every value exactly: NaN, infinity, NA, times and texts."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["from_bytes", "to_bytes"]

_HEADER = "header"
"""Name of the array that holds the columns and attributes as JSON."""


def to_bytes(table: pd.DataFrame) -> bytes:
    """Return a DataFrame as a compressed NumPy archive (``.npz``).

    Args:
        table: its columns may be of the dtypes that aksgpu's tables have: nullable integers, floats, booleans and
            strings, float64, int64, and times with a time zone. ``attrs`` must be JSON.

    Raises:
        TypeError: a column is of another dtype.
    """
    columns = []
    arrays: dict[str, Any] = {}
    for number, name in enumerate(table.columns):
        column = table[name]
        arrays[f"v{number}"], missing = _values(column)
        if missing is not None and missing.any():
            arrays[f"m{number}"] = missing
        columns.append({"name": name, "dtype": str(column.dtype)})
    header = {"columns": columns, "attrs": table.attrs}
    arrays[_HEADER] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def from_bytes(data: bytes) -> pd.DataFrame:
    """Return the DataFrame that :func:`to_bytes` has written.

    Raises:
        ValueError: the data are not such an archive, or are damaged.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            header = json.loads(archive[_HEADER].tobytes())
            columns = {}
            for number, each in enumerate(header["columns"]):
                missing = archive.get(f"m{number}")
                columns[each["name"]] = _column(archive[f"v{number}"], missing, each["dtype"])
    except ValueError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy each have errors of their own for damaged data
        raise ValueError(f"the file is damaged: {error}") from error
    table = pd.DataFrame(columns)
    table.attrs.update(header["attrs"])
    return table


def _values(column: pd.Series) -> tuple[Any, Any]:
    """Return a column's values as an array without objects, and which of them are NA."""
    dtype = column.dtype
    missing = column.isna().to_numpy()
    if isinstance(dtype, pd.DatetimeTZDtype):
        return column.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy("datetime64[ns]").view("int64"), None
    if pd.api.types.is_string_dtype(dtype):
        return column.fillna("").to_numpy(dtype=np.str_), missing
    if pd.api.types.is_bool_dtype(dtype):
        return column.fillna(False).to_numpy(dtype=np.bool_), missing
    if pd.api.types.is_integer_dtype(dtype):
        return column.fillna(0).to_numpy(dtype=np.int64), missing
    if pd.api.types.is_float_dtype(dtype):
        if pd.api.types.is_extension_array_dtype(dtype):
            return column.to_numpy(dtype=np.float64, na_value=np.nan), missing
        return column.to_numpy(dtype=np.float64), None
    raise TypeError(f"column {column.name!r} must be of numbers, texts or times, got {dtype}")


def _column(values: Any, missing: Any, dtype: str) -> pd.Series:
    if dtype.startswith("datetime64"):
        times: pd.Series = pd.Series(values.view("datetime64[ns]")).dt.tz_localize("UTC")
        return times
    if dtype in ("float64", "int64", "bool"):
        return pd.Series(values, dtype=dtype)
    column: pd.Series = pd.Series(values.astype(object) if values.dtype.kind == "U" else values, dtype=dtype)
    if missing is not None:
        column[missing] = pd.NA
    return column
