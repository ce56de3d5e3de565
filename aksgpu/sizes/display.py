"""The table of GPU sizes: a DataFrame whose picture fits a screen. Its columns are described in :mod:`aksgpu.sizes`."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pandas as pd

_NA = "NA"


class SizeTable(pd.DataFrame):
    """Sorted and filtered like any DataFrame; all its columns are there.

    Shown whole it is shortened for the eye: related columns become one. A choice of columns is shown as it is.
    """

    @property
    def _constructor(self) -> Any:
        return SizeTable

    def _shortened(self) -> pd.DataFrame | None:
        """What is shown; None when columns are missing, and the table is shown as it is."""
        try:
            rows = [_shown(row) for row in self.to_dict("records")]
        except KeyError:
            return None
        if not rows:
            return None
        short = pd.DataFrame(rows, index=self.index)
        telling = ~short.isin(["", _NA]).all()  # a column that says nothing of any size takes room from the others
        return short.loc[:, telling]

    def __repr__(self) -> str:
        short = self._shortened()
        return super().__repr__() if short is None else short.to_string()

    def _repr_html_(self) -> str:
        short = self._shortened()
        if short is None:
            return self.to_html(notebook=True, max_rows=60)
        return short.to_html(index=False).replace("<td>", "<td style='white-space:nowrap'>")


def _shown(row: dict[Any, Any]) -> dict[str, str]:
    return {
        "size": row["size"],
        "GPUs": f"{_share(row['gpus'])} x {_text(row['gpu']).removeprefix('NVIDIA ')}",
        "GB/GPU": _number(row["gpu_memory_gb"]),
        "vCPUs": _number(row["vcpus"]),
        "RAM GB": _number(row["ram_gb"]),
        "zones": row["zones"] or "none",
        "VMs by quota": _fitting(row, "family_left", "regional_left"),
        "spot VMs": _fitting(row, "spot_left"),
        "USD/h": _usd(row["usd_per_hour"]),
        "USD/GPU h": _usd(row["usd_per_gpu_hour"]),
        "spot USD/h": _usd(row["spot_usd_per_hour"]),
        "notes": ", ".join(_notes(row)),
    }


def _notes(row: dict[Any, Any]) -> list[str]:
    marks = {
        row["restriction"]: bool(row["restriction"]),
        "retired": row["retired"] is True,
        "not listed by AKS": row["aks"] is False,
        "unknown to this package": not _known(row["aks"]),
        row["arch"]: row["arch"] != "amd64",
        "MIG": row["mig"] is True,
    }
    return [note for note, holds in marks.items() if holds]


def _fitting(row: dict[Any, Any], *quotas: str) -> str:
    """How many VMs the quotas leave room for: what the reader wants to know of vCPUs."""
    left = [int(row[name]) for name in quotas if _known(row[name])]
    return str(min(left) // int(row["vcpus"])) if left and row["vcpus"] else _NA


def _known(value: object) -> bool:
    return value is not None and value is not pd.NA and value == value


def _share(gpus: Any) -> str:
    return str(Fraction(gpus).limit_denominator(12)) if _known(gpus) else _NA


def _text(value: object) -> str:
    return str(value) if _known(value) else _NA


def _number(value: Any) -> str:
    return f"{value:g}" if _known(value) else _NA


def _usd(value: Any) -> str:
    return f"{value:.3f}" if _known(value) else _NA
