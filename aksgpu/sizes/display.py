"""A DataFrame of GPU sizes that is shortened when it is displayed. :mod:`aksgpu.sizes` describes the columns."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import pandas as pd

__all__ = ["SizeTable"]

_NOT_KNOWN = "NA"
_MAX_ROWS = 60
"""Number of rows that the HTML of a table with selected columns shows."""


class SizeTable(pd.DataFrame):
    """A DataFrame that can be sorted and filtered like any other.

    A table with all columns is displayed in a shortened form: related columns are combined. A table with selected
    columns is displayed unchanged.
    """

    @property
    def _constructor(self) -> Any:
        return SizeTable

    def _shortened(self) -> pd.DataFrame | None:
        """Return the table to display; None if columns are missing, and this table is displayed unchanged."""
        try:
            rows = [_displayed_row(row) for row in self.to_dict("records")]
        except KeyError:
            return None
        if not rows:
            return None
        table = pd.DataFrame(rows, index=self.index)
        has_values = ~table.isin(["", _NOT_KNOWN]).all()  # an empty column would take space from the others
        return table.loc[:, has_values]

    def __repr__(self) -> str:
        table = self._shortened()
        return super().__repr__() if table is None else table.to_string()

    def _repr_html_(self) -> str:
        table = self._shortened()
        if table is None:
            return self.to_html(notebook=True, max_rows=_MAX_ROWS)
        return table.to_html(index=False).replace("<td>", "<td style='white-space:nowrap'>")


def _displayed_row(row: Mapping[Any, Any]) -> dict[str, str]:
    model = _text(row["gpu_model"]).removeprefix("NVIDIA ")
    return {
        "size": row["vm_size"],
        "GPUs": f"{_fraction(row['gpus'])} x {model}",
        "GB/GPU": _number(row["gpu_memory_gb"]),
        "vCPUs": _number(row["vcpus"]),
        "RAM GB": _number(row["ram_gb"]),
        "zones": row["zones"] or "none",
        "VMs by quota": _vms_by_quota(row, "family_left", "regional_left"),
        "spot VMs": _vms_by_quota(row, "spot_left"),
        "USD/h": _usd(row["usd_per_hour"]),
        "USD/GPU h": _usd(row["usd_per_gpu_hour"]),
        "spot USD/h": _usd(row["spot_usd_per_hour"]),
        "notes": ", ".join(_notes(row)),
    }


def _notes(row: Mapping[Any, Any]) -> list[str]:
    notes = []
    if row["restriction"]:
        notes.append(row["restriction"])
    if row["retired"] is True:
        notes.append("retired")
    if row["aks"] is False:
        notes.append("not listed by AKS")
    if not _is_known(row["aks"]):
        notes.append("unknown to this package")
    if row["arch"] != "amd64":
        notes.append(row["arch"])
    if row["mig"] is True:
        notes.append("MIG")
    return notes


def _vms_by_quota(row: Mapping[Any, Any], *quotas: str) -> str:
    """Return the number of VMs that the quotas, which count vCPUs, allow."""
    left = [int(row[name]) for name in quotas if _is_known(row[name])]
    if not left or not row["vcpus"]:
        return _NOT_KNOWN
    return str(min(left) // int(row["vcpus"]))


def _is_known(value: object) -> bool:
    return value is not None and not pd.isna(value)  # type: ignore[call-overload]  # a scalar of a DataFrame


def _fraction(gpus: Any) -> str:
    return str(Fraction(gpus).limit_denominator(12)) if _is_known(gpus) else _NOT_KNOWN


def _text(value: object) -> str:
    return str(value) if _is_known(value) else _NOT_KNOWN


def _number(value: Any) -> str:
    return f"{value:g}" if _is_known(value) else _NOT_KNOWN


def _usd(value: Any) -> str:
    return f"{value:.3f}" if _is_known(value) else _NOT_KNOWN
