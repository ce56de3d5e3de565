"""Short logs of training programs, and every value in them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.metric_rows import rows

from aksgpu import metrics

LOGS = Path(__file__).parent.parent / "data" / "logs"
EXPECTED: dict[str, dict[str, Any]] = json.loads((LOGS / "expected.json").read_text())


def without_nan(expected: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if not (isinstance(value, float) and math.isnan(value))}
        for row in expected
    ]


def test_each_log_has_the_expected_values() -> None:
    assert sorted(EXPECTED) == sorted(path.name for path in LOGS.glob("*.txt"))


@pytest.mark.parametrize("name", EXPECTED)
def test_a_log_gives_the_expected_rows_and_attributes(name: str) -> None:
    expected = EXPECTED[name]
    frame = metrics.parse((LOGS / name).read_bytes())
    assert rows(frame) == without_nan(expected["rows"])
    assert frame.attrs["step_kind"] == expected["step_kind"]
    assert frame.attrs["percent"] == expected["percent"]
    assert frame.attrs["unread"]["lines"] == expected["unread"]


@pytest.mark.parametrize("name", EXPECTED)
def test_windows_line_ends_change_nothing(name: str) -> None:
    log = (LOGS / name).read_bytes()
    frame = metrics.parse(log.replace(b"\n", b"\r\n"))
    pd.testing.assert_frame_equal(frame, metrics.parse(log))


@pytest.mark.parametrize("name", EXPECTED)
def test_the_servers_timestamp_of_each_line_is_kept(name: str) -> None:
    log = (LOGS / name).read_bytes()
    lines = log.split(b"\n")
    stamped = b"\n".join(b"2026-11-24T06:%02d:00.123456789Z %s" % (number, line) for number, line in enumerate(lines))
    frame = metrics.parse(stamped)
    assert frame["time"].notna().all()
    plain = metrics.parse(log)
    pd.testing.assert_frame_equal(frame.drop(columns="time"), plain.drop(columns="time"))


def test_messages_of_the_node_are_separate() -> None:
    frame = metrics.parse((LOGS / "fsnotify-tail.txt").read_bytes())
    assert frame.attrs["node_messages"] == ["failed to create fsnotify watcher: too many open files"]


def test_a_nan_is_a_value() -> None:
    frame = metrics.parse((LOGS / "nanogpt.txt").read_bytes())
    row = frame[frame["step"] == 3010].iloc[0]
    assert math.isnan(row["loss"])
    assert row["time_ms"] == 1019.95
