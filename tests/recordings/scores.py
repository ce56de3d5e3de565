"""Compare what a reader finds in a recorded log with the framework's own values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from aksgpu import metrics
from aksgpu.metrics.table import POSITION_COLUMNS

LOGS = Path(__file__).parent.parent / "data" / "recorded-logs"
KATIB = re.compile(r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)")
"""Default filter of Katib's metrics collector."""
ALIASES = {
    "learn": "loss",
    "test": "val_loss",
    "precision_b": "precision",
    "recall_b": "recall",
    "map50_b": "map50",
    "map50_95_b": "map",
}
"""General names that other readers give to CatBoost's and Ultralytics' values. These names also count."""

Found = tuple[frozenset[str], float]
"""The normalised names of a value, and the value."""


@dataclass(frozen=True)
class Recording:
    """A recorded log and its true values.

    Attributes:
        name: the name of the script that recorded it.
        family: the framework's name on the page of scores.
        versions: the versions of the packages.
        tolerance: half a unit of the last digit that the framework prints.
        values: the framework's own values.
    """

    name: str
    family: str
    versions: dict[str, str]
    tolerance: float
    values: list[dict[str, Any]]

    @property
    def log(self) -> bytes:
        """What the program printed."""
        return (LOGS / f"{self.name}.log").read_bytes()


def recordings() -> list[Recording]:
    """Return all recordings, by family."""
    found = []
    for path in LOGS.glob("*.json"):
        truth = json.loads(path.read_text())
        found.append(Recording(path.stem, **truth))
    return sorted(found, key=lambda each: each.family.lower())


def spelled(name: str) -> str:
    """Return the normalised name, which is used for comparisons."""
    plain = re.sub(r"[^a-z0-9]+", "_", metrics.canonical(name).lower()).strip("_")
    return re.sub(r"^val_\d+_", "val_", plain)


def with_aksgpu(recording: Recording) -> list[Found]:
    """Return what aksgpu finds."""
    frame = metrics.parse(recording.log)
    names = [name for name in frame.columns if name not in POSITION_COLUMNS]
    found = []
    for row in frame[names].to_dict("records"):
        for name, value in row.items():
            if not pd.isna(value):
                found.append((frozenset({spelled(str(name))}), float(value)))
    return found


def with_katib(recording: Recording) -> list[Found]:
    """Return what Katib's default filter finds."""
    found = []
    for match in KATIB.finditer(recording.log.decode()):
        if re.search(r"\d", match[2]):
            found.append((frozenset({spelled(match[1])}), float(match[2])))
    return found


def with_epochix(recording: Recording) -> list[Found]:
    """Return what epochix found when the logs were recorded."""
    stored = json.loads((LOGS / "epochix" / "found.json").read_text())["found"]
    return [
        (frozenset({spelled(printed), spelled(general)}), float(value))
        for printed, general, value in stored[recording.name]
    ]


def score(recording: Recording, found: Iterable[Found]) -> str:
    """Return ``right``, ``partial``, ``wrong`` or ``nothing``.

    ``wrong`` is a value under the name of one of the framework's metrics that the framework never had. Other names do
    not count. A percentage is equal to its fraction, and both the printed and the more specific name count.
    """
    open_values = [(_names(value, recording.family), value["value"]) for value in recording.values]
    known = list(open_values)
    wrong = 0
    right = 0
    for names, number in found:
        fitting = [each for each in open_values if each[0] & names and _close(number, each[1], recording.tolerance)]
        if fitting:
            open_values.remove(fitting[0])
            right += 1
        elif any(each[0] & names for each in known):
            repeated = any(each[0] & names and _close(number, each[1], recording.tolerance) for each in known)
            wrong += not repeated
    if wrong:
        return "wrong"
    if not open_values:
        return "right"
    return "partial" if right else "nothing"


def _names(value: dict[str, Any], family: str) -> frozenset[str]:
    names = {spelled(value[key]) for key in ("metric", "printed") if key in value}
    names |= {ALIASES[name] for name in names if name in ALIASES}
    if family == "fastai" and value["metric"] == "accuracy":
        names.add("val_accuracy")  # fastai measures it on the validation data
    return frozenset(names)


def _close(found: float, true: float, tolerance: float) -> bool:
    allowed = tolerance * 1.02 + 1e-12
    return abs(found - true) <= allowed or abs(found / 100 - true) <= allowed
