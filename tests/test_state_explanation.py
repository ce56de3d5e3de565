"""When a wait or a live view asks why a Job waits."""

from __future__ import annotations

import pytest

from aksgpu import errors
from aksgpu.diagnose import Diagnosis
from aksgpu.jobs import JobStatus, state_explanation
from aksgpu.jobs.state_explanation import StateExplanation
from aksgpu.waiting import time_left

PENDING = JobStatus("Pending", "Unschedulable", "2 Insufficient cpu")


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(state_explanation, "time", made)
    return made


def test_a_state_is_explained_after_some_seconds_and_again_later(clock: Clock) -> None:
    asked: list[float] = []

    def why() -> Diagnosis:
        asked.append(clock.now)
        if len(asked) == 2:
            raise errors.Unreachable("no response")
        return Diagnosis(f"verdict {len(asked)}")

    explanation = StateExplanation(why)
    descriptions = []
    for clock.now in (100.0, 102.9, 103.0, 117.9, 118.0, 133.0):
        descriptions.append(explanation.describe(PENDING))
    assert asked == [103.0, 118.0, 133.0]
    # The second explanation failed.
    assert descriptions == [str(PENDING), str(PENDING), "verdict 1", "verdict 1", "verdict 1", "verdict 3"]


def test_a_job_that_runs_is_not_explained_and_a_failure_at_once(clock: Clock) -> None:
    asked: list[float] = []

    def why() -> Diagnosis:
        asked.append(clock.now)
        return Diagnosis("verdict")

    explanation = StateExplanation(why)
    for clock.now in (100.0, 200.0):
        for phase in ("Running", "Complete", "Deleting"):
            assert explanation.describe(JobStatus(phase)) == phase
    assert not asked
    assert explanation.describe(JobStatus("Failed")) == "verdict"
    assert asked == [200.0]


def test_the_verdict_about_another_reason_is_dropped(clock: Clock) -> None:
    explanation = StateExplanation(lambda: Diagnosis("the GPU is taken"))
    explanation.describe(PENDING)
    clock.now += 5
    assert explanation.describe(PENDING) == "the GPU is taken"
    pulls = JobStatus("Pending", "ContainerCreating")
    assert explanation.describe(pulls) == str(pulls)


def test_an_explanation_has_a_deadline() -> None:
    left: list[float | None] = []

    def why() -> Diagnosis:
        left.append(time_left())
        raise errors.Unreachable("no response")

    assert StateExplanation(why).read("Failed") is None
    assert left[0] is not None
    assert 0 < left[0] <= 5
