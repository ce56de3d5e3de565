"""Throttling: a wait pauses for as long as Azure asks, up to its deadline, and keeps track of the operation."""

from __future__ import annotations

from typing import Any

import pytest
from support.interrupts import interrupt_when

from aksgpu.azure import Azure, resources
from aksgpu.azure.saved_operation import SavedOperation
from aksgpu.azure.throttling import limit
from aksgpu.errors import AzureError, OperationInProgress, Throttled, WaitTimeout

from .conftest import Answer, Script
from .test_operations import BUSY, CLUSTER, DONE, ID, NOT_FOUND, OPERATION, RUNNING, create, group, shown

assert group  # a fixture

THROTTLED = Answer(429, {"error": {"code": "Throttled", "message": "Slow down."}}, {"retry-after-ms": "30"})
FOR_LONG = Answer(429, {"error": {"code": "Throttled", "message": "Slow down."}}, {"Retry-After": "600"})


@pytest.fixture
def begun(script: Script) -> Script:
    script.on("GET", CLUSTER, NOT_FOUND, Answer(200, shown("Succeeded")))
    script.on("PUT", CLUSTER, Answer(201, shown("Creating"), OPERATION))
    return script


def test_polling_continues_after_more_refusals_than_the_sdk_retries(scripted: Azure, begun: Script) -> None:
    begun.on("GET", "/operations/1", RUNNING, *[THROTTLED] * 6, DONE)
    assert create(scripted).name == "aks"
    assert begun.count("GET", "/operations/1") == 8


def test_time_runs_out_while_throttled_and_the_operation_is_still_known(
    scripted: Azure, begun: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    begun.on("GET", "/operations/1", FOR_LONG)
    with pytest.raises(WaitTimeout, match="Azure asks to wait 600 s"):
        create(scripted, timeout=3, progress=True)
    assert "Creating, Azure asks to wait 600 s" in capsys.readouterr().err
    assert SavedOperation(scripted.home, ID).path.exists()


@pytest.mark.parametrize("status", [403, 400])
def test_a_refused_poll_leaves_the_operation_known(scripted: Azure, begun: Script, status: int) -> None:
    begun.on("GET", "/operations/1", Answer(status, {"error": {"code": "Refused", "message": "no"}}))
    with pytest.raises(AzureError):
        create(scripted)
    assert SavedOperation(scripted.home, ID).path.exists()
    begun.on("GET", CLUSTER, Answer(200, shown("Creating")), Answer(200, shown("Succeeded")))
    begun.on("GET", "/operations/1", DONE)
    assert create(scripted).name == "aks"
    assert not SavedOperation(scripted.home, ID).path.exists()


def test_a_throttled_start_is_retried_after_the_requested_time(
    scripted: Azure, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    script.on("GET", CLUSTER, NOT_FOUND)
    script.on("PUT", CLUSTER, *[THROTTLED] * 6, Answer(200, shown("Succeeded")))
    assert create(scripted, progress=True).name == "aks"
    assert script.count("PUT", CLUSTER) == 7
    assert "Azure asks to wait 0.03 s" in capsys.readouterr().err


def test_a_throttled_start_does_not_wait_beyond_its_timeout(scripted: Azure, script: Script) -> None:
    script.on("GET", CLUSTER, NOT_FOUND)
    script.on("PUT", CLUSTER, FOR_LONG)
    with pytest.raises(Throttled) as caught:
        create(scripted, timeout=60)
    assert caught.value.retry_after == 600
    assert script.count("PUT", CLUSTER) == 1


def test_reads_wait_for_the_requested_time_with_growing_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[tuple[str, float]] = []
    monkeypatch.setattr("random.uniform", lambda least, most: most)
    monkeypatch.setattr("aksgpu.azure.throttling.pause", lambda _, state, length: pauses.append((state, length)))
    answers: list[Any] = [*[shown("Updating")] * 7, Throttled("slow", retry_after=40.0), shown("Succeeded")]

    def read() -> dict[str, Any]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    with limit(60, progress=False):
        found = resources.settle(read, "waiting")
    assert found is not None and resources.state_of(found) == "Succeeded"
    lengths = [length for _, length in pauses]
    assert lengths[:7] == sorted(lengths[:7])
    assert (lengths[0], lengths[6]) == (1.0, 10.0)
    assert pauses[7] == ("Updating, Azure asks to wait 40 s", 40.0)


def test_another_operation_that_outlasts_the_timeout(scripted: Azure, script: Script) -> None:
    script.on("GET", CLUSTER, NOT_FOUND, Answer(200, shown("Updating")))
    script.on("PUT", CLUSTER, Answer(409, BUSY))
    with pytest.raises(OperationInProgress, match=r"cluster\.abort\(") as caught:
        create(scripted, timeout=3)
    assert caught.value.operation == "Updating"
    assert not isinstance(caught.value, WaitTimeout)


def test_an_interrupted_wait_for_a_deletion_says_how_to_continue(scripted: Azure, script: Script) -> None:
    script.on("GET", CLUSTER, Answer(200, shown("Deleting")))
    waits = interrupt_when(lambda: script.count("GET", CLUSTER) > 2)
    with waits, pytest.raises(KeyboardInterrupt) as caught:
        create(scripted)
    assert "cluster.create(...) with the same arguments waits for it" in str(caught.value)


def test_a_throttled_group_deletion_is_retried_after_the_requested_time(scripted: Azure, script: Script) -> None:
    script.on("DELETE", "/resourcegroups/rg$", *[THROTTLED] * 2, Answer(200))
    resources.delete_group(scripted, "rg")
    assert script.count("DELETE", "/resourcegroups/rg$") == 3
