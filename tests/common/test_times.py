"""Timestamps of the Kubernetes API."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from aksgpu.common import times


@pytest.mark.parametrize("stamp", [None, "", "soon", 5, {}, "2026-11-28T12:00:00", "2026-13-01T00:00:00Z"])
def test_a_stamp_that_names_no_moment(stamp: object) -> None:
    assert times.parse(stamp) is None


def test_a_stamp_with_a_time_zone() -> None:
    expected = datetime(2026, 11, 28, 12, tzinfo=UTC)
    assert times.parse("2026-11-28T12:00:00Z") == expected
    assert times.parse("2026-11-28T13:00:00.000000+01:00") == expected
