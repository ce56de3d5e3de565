"""The rows that a reader has found, kept by column so that a long log takes little memory."""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd

POSITION_COLUMNS = ("step", "epoch", "time", "pod", "index", "rank", "attempt")
_TYPES: dict[Hashable, Any] = {
    "step": "Int64",
    "epoch": "Float64",
    "pod": "string",
    "index": "Int64",
    "rank": "Int64",
    "attempt": "Int64",
}
NO_STEP = -(2**62)
"""Marks a row without a step."""


class Place:
    """Where lines come from: the same object for all rows of one source.

    Attributes:
        pod: the pod's name, or None.
        index: of the pod within an Indexed Job, or None.
        rank: of the process, or None.
        attempt: ordinal of the program's run, or None.
    """

    __slots__ = ("attempt", "index", "ordinal", "pod", "rank")

    def __init__(self, ordinal: int, pod: str | None, index: int | None, rank: int | None, attempt: int | None) -> None:
        self.ordinal = ordinal
        self.pod = pod
        self.index = index
        self.rank = rank
        self.attempt = attempt


class Rows:
    """Rows by column. A row is appended and never changed."""

    def __init__(self) -> None:
        self.count = 0
        self._order = array("q")
        self._steps = array("q")
        self._epochs = array("d")
        self._places = array("i")
        self._times: list[str | None] = []
        self._columns: dict[str, tuple[array[int], array[float]]] = {}

    def append(
        self, order: int, place: int, time: str | None, step: int, epoch: float, values: Mapping[str, float]
    ) -> None:
        """Append one row.

        Args:
            order: of the line in the log.
            place: ordinal of the row's source.
            time: the server's time of the line, or None.
            step: or :data:`NO_STEP`.
            epoch: or NaN.
            values: the metrics, at least one.
        """
        row = self.count
        self.count = row + 1
        self._order.append(order)
        self._steps.append(step)
        self._epochs.append(epoch)
        self._places.append(place)
        self._times.append(time)
        for name, value in values.items():
            column = self._columns.get(name)
            if column is None:
                column = (array("q"), array("d"))
                self._columns[name] = column
            column[0].append(row)
            column[1].append(value)

    def copy(self) -> Rows:
        """Return rows that grow without these."""
        other = Rows()
        other.count = self.count
        other._order = self._order[:]
        other._steps = self._steps[:]
        other._epochs = self._epochs[:]
        other._places = self._places[:]
        other._times = self._times[:]
        other._columns = {name: (rows[:], values[:]) for name, (rows, values) in self._columns.items()}
        return other

    def frame(self, places: list[Place], names: list[str]) -> pd.DataFrame:
        """Return the rows as a DataFrame, in the order of their lines."""
        count = self.count
        order = np.argsort(np.frombuffer(self._order, dtype="int64") if count else np.empty(0, "int64"), kind="stable")
        steps = np.array(self._steps, dtype="int64")[order]
        epochs = np.array(self._epochs, dtype="float64")[order]
        place = np.array(self._places, dtype="int64")[order]
        columns: dict[str, Any] = {
            "step": pd.arrays.IntegerArray(steps, steps == NO_STEP),
            "epoch": pd.arrays.FloatingArray(epochs, np.isnan(epochs)),
            "time": _times(self._times, order),
        }
        for name in POSITION_COLUMNS[3:]:
            of_place = pd.array([getattr(each, name) for each in places], dtype=_TYPES[name])
            columns[name] = of_place.take(place) if len(places) else pd.array([], dtype=_TYPES[name])
        for name in names:
            values = np.full(count, np.nan)
            found = self._columns.get(name)
            if found is not None:
                values[np.array(found[0], dtype="int64")] = np.array(found[1], dtype="float64")
            columns[f"{name}_" if name in POSITION_COLUMNS else name] = values[order]
        return pd.DataFrame(columns)


def _times(times: list[str | None], order: Any) -> pd.Series:
    if not any(times):
        return pd.Series(pd.NaT, index=range(len(times)), dtype="datetime64[ns, UTC]")
    series = pd.Series(times, dtype="object").iloc[order].reset_index(drop=True)
    parsed: pd.Series = pd.to_datetime(series, utc=True, format="ISO8601", errors="coerce").astype(
        "datetime64[ns, UTC]"
    )
    return parsed
