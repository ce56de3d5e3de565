"""The rows that a reader has found, stored by column so that a long log takes little memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["NO_STEP", "POSITION_COLUMNS", "Place", "Rows"]

_POSITION_TYPES = {
    "step": "Int64",
    "epoch": "Float64",
    "time": "datetime64[ns, UTC]",
    "pod": "string",
    "index": "Int64",
    "rank": "Int64",
    "attempt": "Int64",
}
"""The columns before the metrics, with their dtypes. The last ones are attributes of a :class:`Place`."""
POSITION_COLUMNS = tuple(_POSITION_TYPES)
_PLACE_COLUMNS = ("pod", "index", "rank", "attempt")
_PACKED_AT = 4096
"""Number of new rows of a block that are moved into its arrays together."""
NO_STEP = -(2**62)
"""Marks a row without a step."""


class Place:
    """The source of lines. All rows of one source have the same object.

    Attributes:
        ordinal: number of the source, from 0.
        pod: the pod's name, or None.
        index: completion index of the pod in an Indexed Job, or None.
        rank: rank of the process, or None.
        attempt: number of the program's run, or None.
    """

    __slots__ = ("attempt", "index", "ordinal", "pod", "rank")

    def __init__(self, ordinal: int, pod: str | None, index: int | None, rank: int | None, attempt: int | None) -> None:
        self.ordinal = ordinal
        self.pod = pod
        self.index = index
        self.rank = rank
        self.attempt = attempt


class _Block:
    """Rows that have the same metrics.

    New rows are tuples, which are fast to append. They are moved into arrays, which take less memory, many at a time.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.new: list[tuple[Any, ...]] = []
        self.orders = array("q")
        self.places = array("q")
        self.steps = array("q")
        self.epochs = array("d")
        self.times: list[str | None] = []
        self.values = [array("d") for _ in names]

    def pack(self) -> None:
        """Move the new rows into the arrays."""
        if not self.new:
            return
        orders, places, times, steps, epochs, *values = zip(*self.new, strict=True)
        self.orders.extend(orders)
        self.places.extend(places)
        self.times.extend(times)
        self.steps.extend(steps)
        self.epochs.extend(epochs)
        for column, numbers in zip(self.values, values, strict=True):
            column.extend(numbers)
        self.new = []

    def copy(self) -> _Block:
        """Return an independent copy."""
        other = _Block(self.names)
        other.new = self.new[:]
        other.orders = self.orders[:]
        other.places = self.places[:]
        other.steps = self.steps[:]
        other.epochs = self.epochs[:]
        other.times = self.times[:]
        other.values = [column[:] for column in self.values]
        return other


class Rows:
    """Rows, stored in blocks with the same metrics. Rows are appended and never changed."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, ...], _Block] = {}

    def append(
        self,
        order: int,
        place: int,
        time: str | None,
        step: int,
        epoch: float,
        names: tuple[str, ...],
        values: Iterable[float],
    ) -> None:
        """Append one row.

        Args:
            order: number of the line in the log.
            place: ordinal of the row's source.
            time: the server's time of the line, or None.
            step: the step, or :data:`NO_STEP`.
            epoch: the epoch, or NaN.
            names: names of the metrics, at least one.
            values: values of the metrics.
        """
        block = self._blocks.get(names)
        if block is None:
            block = _Block(names)
            self._blocks[names] = block
        block.new.append((order, place, time, step, epoch, *values))
        if len(block.new) >= _PACKED_AT:
            block.pack()

    def copy(self) -> Rows:
        """Return an independent copy."""
        other = Rows()
        other._blocks = {names: block.copy() for names, block in self._blocks.items()}
        return other

    def frame(self, places: list[Place], names: list[str]) -> pd.DataFrame:
        """Return the rows as a DataFrame, in the order of their lines."""
        blocks = list(self._blocks.values())
        for block in blocks:
            block.pack()
        orders = _joined([block.orders for block in blocks], "int64")
        order = np.argsort(orders, kind="stable")
        steps = _joined([block.steps for block in blocks], "int64")[order]
        epochs = _joined([block.epochs for block in blocks], "float64")[order]
        place = _joined([block.places for block in blocks], "int64")[order]
        times = [time for block in blocks for time in block.times]
        columns: dict[str, Any] = {
            "step": pd.arrays.IntegerArray(steps, steps == NO_STEP),
            "epoch": pd.arrays.FloatingArray(epochs, np.isnan(epochs)),
            "time": _times(times, order),
        }
        for name in _PLACE_COLUMNS:
            dtype: Any = _POSITION_TYPES[name]
            of_place = pd.array([getattr(each, name) for each in places], dtype=dtype)
            columns[name] = of_place.take(place) if len(places) else pd.array([], dtype=dtype)
        numbers = {name: np.full(len(orders), np.nan) for name in names}
        start = 0
        for block in blocks:
            end = start + len(block.orders)
            for name, values in zip(block.names, block.values, strict=True):
                numbers[name][start:end] = values
            start = end
        for name in names:
            columns[f"{name}_" if name in POSITION_COLUMNS else name] = numbers[name][order]
        return pd.DataFrame(columns)


def _joined(arrays: list[array[Any]], dtype: str) -> Any:
    parts = [np.array(each, dtype=dtype) for each in arrays]
    return np.concatenate(parts) if parts else np.empty(0, dtype)


_FIRST_YEAR = 1678
_LAST_YEAR = 2261


def _times(times: list[str | None], order: Any) -> pd.Series:
    if not any(times):
        return pd.Series(pd.NaT, index=range(len(times)), dtype=_POSITION_TYPES["time"])
    series = pd.Series(times, dtype="object").iloc[order].reset_index(drop=True)
    parsed = pd.to_datetime(series, utc=True, format="ISO8601", errors="coerce")
    # Timestamps in nanoseconds range from 1677 to 2262. A time outside this range is not a server's.
    outside = (parsed.dt.year < _FIRST_YEAR) | (parsed.dt.year > _LAST_YEAR)
    exact: pd.Series = parsed.mask(outside).astype(_POSITION_TYPES["time"])
    return exact
