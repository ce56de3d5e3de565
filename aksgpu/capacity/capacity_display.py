"""A DataFrame of GPUs that is shortened when it is displayed. :mod:`aksgpu.capacity` describes the columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from aksgpu.common.frames import frame

__all__ = ["GpuTable"]

_NOT_KNOWN = "?"
_LONGEST = 36
"""Characters of the users of a node's GPUs that are displayed."""
_SUMMED = ("capacity", "allocatable", "used", "free")
_TOTAL_COLUMNS = {"resource": "string", "nodes": "Int64", **dict.fromkeys(_SUMMED, "Int64")}


class GpuTable(pd.DataFrame):
    """A DataFrame that can be sorted and filtered like any other.

    A table with all columns is displayed in a shortened form that fits a page, with a row of totals for each resource.
    """

    @property
    def _constructor(self) -> Any:
        return GpuTable

    def totals(self) -> pd.DataFrame:
        """Return the sums of the table.

        Returns:
            One row for each resource: resource (string), and those of nodes, capacity, allocatable, used and free
            (Int64) that the table has. A sum is NA if a part of it is.
        """
        rows = []
        for resource, part in pd.DataFrame(self).groupby("resource", sort=True):
            row: dict[str, Any] = {"resource": resource}
            if "nodes" in part or "node" in part:
                row["nodes"] = part["nodes"].sum() if "nodes" in part else part["node"].nunique()
            for name in _SUMMED:
                total = part[name].sum(skipna=False) if name in part else pd.NA
                row[name] = None if pd.isna(total) else int(total)
            rows.append(row)
        dtypes = {
            name: dtype for name, dtype in _TOTAL_COLUMNS.items() if name in self or name in ("nodes", "resource")
        }
        return frame(rows, dtypes)

    def _shortened(self) -> pd.DataFrame | None:
        """Return the table to display; None if columns are missing, and this table is displayed unchanged."""
        if self.empty or not {"node", "pool", "resource", "capacity", "free", "used_by"} <= set(self):
            return None
        try:
            rows = [_displayed_row(row) for row in self.to_dict("records")]
        except KeyError:
            return None
        if len(rows) > 1:
            rows += [_total_row(row) for row in self.totals().to_dict("records")]
        table = pd.DataFrame(rows)
        return table.loc[:, ~table.isin([""]).all()]

    def __repr__(self) -> str:
        table = self._shortened()
        return super().__repr__() if table is None else table.to_string(index=False)

    def _repr_html_(self) -> str:
        table = self._shortened()
        if table is None:
            return self.to_html(notebook=True)
        return table.to_html(index=False).replace("<td>", "<td style='white-space:nowrap'>")


def _displayed_row(row: Mapping[Any, Any]) -> dict[str, str]:
    model = _text(row["gpu_model"]).removeprefix("NVIDIA ")
    return {
        "node": _text(row["node"]),
        "pool": _text(row["pool"]),
        "GPUs": _devices(row, model),
        "used": f"{_number(row['used'])} of {_number(row['allocatable'])}",
        "free": _number(row["free"]),
        "state": _state(row),
        "used by": _shortened_names(_text(row["used_by"])),
    }


def _devices(row: Mapping[Any, Any], model: str) -> str:
    """Return the number and model of the GPUs, with the resource if it is not that of whole GPUs."""
    resource = str(row["resource"])
    name = model or "GPU"
    if resource not in ("nvidia.com/gpu", "amd.com/gpu"):
        name = f"{name} ({resource.removeprefix('nvidia.com/')})"
    if row["simulated"] is True:
        name = f"{name} (simulated)"
    return f"{_number(row['capacity'])} x {name}"


def _state(row: Mapping[Any, Any]) -> str:
    states = []
    if row["ready"] is not True:
        states.append("not ready")
    elif row["schedulable"] is not True:
        states.append("not schedulable")
    health = _text(row["health"])
    if health and health != "healthy":
        states.append(f"GPU {health}")
    return ", ".join(states) or "ready"


def _total_row(row: Mapping[Any, Any]) -> dict[str, str]:
    return {
        "node": f"total {row['resource']}",
        "pool": "",
        "GPUs": f"{_number(row['capacity'])} on {_number(row['nodes'])} nodes",
        "used": f"{_number(row['used'])} of {_number(row['allocatable'])}",
        "free": _number(row["free"]),
        "state": "",
        "used by": "",
    }


def _shortened_names(names: str) -> str:
    """Return as many names as fit, and the number of the others."""
    if len(names) <= _LONGEST:
        return names
    kept: list[str] = []
    every = names.split(", ")
    for name in every:
        if kept and len(", ".join([*kept, name])) > _LONGEST - len(" + 999"):
            break
        kept.append(name)
    others = len(every) - len(kept)
    text = ", ".join(kept)
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST - 1]}…"
    return f"{text} + {others}" if others else text


def _text(value: object) -> str:
    return "" if value is None or pd.isna(value) else str(value)  # type: ignore[call-overload]  # a scalar of a frame


def _number(value: Any) -> str:
    return _NOT_KNOWN if value is None or pd.isna(value) else str(int(value))
