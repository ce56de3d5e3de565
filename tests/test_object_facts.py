"""What the conditions of Jobs and the statuses of containers say."""

from __future__ import annotations

from typing import Any

import pytest

from aksgpu.kube import job_facts, pod_facts


def condition(kind: str, status: str) -> dict[str, Any]:
    return {"type": kind, "status": status}


@pytest.mark.parametrize(
    ("conditions", "ended"),
    [
        (None, None),
        ([condition("FailureTarget", "True")], None),
        ([condition("Complete", "False"), condition("Failed", "Unknown")], None),
        ([condition("SuccessCriteriaMet", "True"), condition("Complete", "True")], "Complete"),
        ([condition("FailureTarget", "True"), condition("Failed", "True")], "Failed"),
    ],
)
def test_a_job_has_ended_with_a_true_condition(conditions: list[dict[str, Any]] | None, ended: str | None) -> None:
    found = job_facts.end_condition({"status": {"conditions": conditions}})
    assert (found["type"] if found else None) == ended


@pytest.mark.parametrize(
    ("status", "state", "runs"),
    [
        ({}, {}, False),
        ({"containerStatuses": None}, {}, False),
        ({"containerStatuses": [{"name": "other", "state": {"running": {}}}]}, {}, False),
        ({"initContainerStatuses": [{"name": "main", "state": {"running": {}}}]}, {}, False),
        ({"containerStatuses": [{"name": "main"}]}, {}, False),
        ({"containerStatuses": [{"name": "main", "state": {"running": {}}}]}, {"running": {}}, True),
        ({"containerStatuses": [{"name": "main", "state": {"waiting": {}}}]}, {"waiting": {}}, False),
    ],
)
def test_the_state_of_a_container_by_name(status: dict[str, Any], state: dict[str, Any], runs: bool) -> None:
    assert pod_facts.container_state({"status": status}, "main") == state
    assert pod_facts.container_runs({"status": status}, "main") == runs


@pytest.mark.parametrize(
    ("failure", "signalled"),
    [
        ({"exitCode": 143, "reason": "Error"}, True),
        ({"exitCode": 137, "reason": "Error"}, True),
        ({"exitCode": 137, "reason": "OOMKilled"}, False),
        ({"exitCode": 1, "reason": "Error"}, False),
        ({}, False),
    ],
)
def test_a_memory_limit_is_not_a_signal_from_outside(failure: dict[str, Any], signalled: bool) -> None:
    assert pod_facts.was_signalled(failure) == signalled


def test_a_container_has_run_since_it_failed() -> None:
    failed = {"exitCode": 1, "finishedAt": "2026-11-28T10:00:00Z"}
    later = {"exitCode": 0, "finishedAt": "2026-11-28T10:01:00Z"}
    states: list[tuple[dict[str, Any], bool]] = [
        ({"running": {}}, True),
        ({"terminated": later}, True),
        ({"waiting": {"reason": "CrashLoopBackOff"}}, False),
    ]
    for state, has_run in states:
        entries = [
            {"name": "other", "state": {"running": {}}},
            {"name": "main", "state": state, "lastState": {"terminated": failed}},
        ]
        pod = {"metadata": {}, "status": {"containerStatuses": entries}}
        failure = pod_facts.last_failure(pod)
        assert failure is not None
        assert failure["container"] == "main"
        assert pod_facts.has_run_since(pod, failure) == has_run
