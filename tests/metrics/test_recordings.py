"""Logs recorded from real frameworks, compared with the values in the frameworks' own callbacks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aksgpu import metrics

sys.path.insert(0, str(Path(__file__).parent.parent / "recordings"))
import scores
import write_page

RECORDINGS = scores.recordings()


def at(frame: pd.DataFrame, value: dict[str, Any]) -> pd.Series:
    """Return the values of a metric at the position that the framework names."""
    rows = frame[frame[value["metric"]].notna()]
    for name in ("step", "epoch"):
        if name in value:
            rows = rows[rows[name] == value[name]]
    return rows[value["metric"]]


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.name)
def test_every_value_of_the_framework_is_found_at_its_position(recording: scores.Recording) -> None:
    frame = metrics.parse(recording.log)
    for value in recording.values:
        found = at(frame, value)
        close = (found - value["value"]).abs() <= recording.tolerance * 1.02 + 1e-12
        assert close.any(), value
        if "epoch" in value or "step" in value:
            assert close.all(), (value, found.tolist())


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.name)
def test_no_value_is_reported_that_the_framework_never_had(recording: scores.Recording) -> None:
    assert scores.score(recording, scores.with_aksgpu(recording)) == "right"


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.name)
def test_a_wrong_value_is_noticed(recording: scores.Recording) -> None:
    found = scores.with_aksgpu(recording)
    name = scores.spelled(recording.values[0]["metric"])
    assert scores.score(recording, [*found, (frozenset({name}), 1e9)]) == "wrong"
    assert scores.score(recording, []) == "nothing"


def test_at_least_eight_frameworks_were_recorded() -> None:
    assert len({next(iter(recording.versions)) for recording in RECORDINGS}) >= 8


def test_the_page_matches_its_generator() -> None:
    assert write_page.PAGE.read_text() == write_page.page(), "run python tests/recordings/write_page.py"
