"""Restarts in place on the laptop AKS, with no fault: every follower gets every run once and in order."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from aksgpu import jobs, logs
from aksgpu.cluster import Cluster
from aksgpu.errors import Expired, Forbidden, Invalid, KubernetesError, NotFound, Unauthorized, Unreachable
from aksgpu.logs.patience import DENIED, REFUSED, SILENT, Limits, Patience, retryable

pytest_plugins = ["aksgpu.local.testing", "support.laptop_cluster"]

FOLLOWERS = 6
LINES = 40
PROGRAM = """
run=$(cat {state} 2>/dev/null || echo 0)
echo $((run + 1)) > {state}
i=0; while [ $i -lt {lines} ]; do echo "run $run line $i"; i=$((i + 1)); done
sleep 0.{pause}
[ $run -ge 2 ]
"""


@pytest.mark.parametrize("pause", ["0", "5", "9"])
def test_every_follower_gets_every_run_once_and_in_order(aks: Cluster, tmp_path: Path, pause: str) -> None:
    program = PROGRAM.format(state=tmp_path / "runs", lines=LINES, pause=pause)
    container = {"name": "main", "image": "docker.io/library/busybox:1", "command": ["sh", "-c", program]}
    spec = {"restartPolicy": "OnFailure", "containers": [container]}
    name = f"restarts-{pause}"
    job = jobs.apply(
        aks,
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name},
            "spec": {"backoffLimit": 6, "template": {"spec": spec}},
        },
    )
    given: list[list[str]] = [[] for _ in range(FOLLOWERS)]

    def follow(number: int) -> None:
        for line in job.follow():
            given[number].append(line)

    threads = [threading.Thread(target=follow, args=(number,)) for number in range(FOLLOWERS)]
    try:
        for thread in threads:
            thread.start()
            time.sleep(0.15)  # each begins at another moment of the Job's life
        for thread in threads:
            thread.join()
    finally:
        job.delete()
    runs = [[f"run {run} line {line}" for line in range(LINES)] for run in range(3)]
    for lines in given:
        program = [line for line in lines if not line.startswith("[aksgpu:")]
        markers = [line for line in lines if line.startswith("[aksgpu:")]
        whole = [*runs[0], *runs[1], *runs[2]]
        # The node keeps one previous run: a follower that is late says which run it may lack, and lacks no other line.
        assert program == whole or (markers and program in (whole[LINES:], runs[0] + runs[2])), (markers, program)
        assert len(markers) <= 2, markers


def test_which_failures_are_worth_another_try() -> None:
    def failure(kind: type[KubernetesError], code: int, message: str = "x") -> KubernetesError:
        return kind(message, status={"code": code})

    assert retryable(Unreachable("x")) == SILENT
    assert retryable(Unreachable("x", refused=True)) == REFUSED
    for code in (429, 500, 501, 502, 503, 504):
        assert retryable(failure(KubernetesError, code)) == SILENT
    assert retryable(failure(Expired, 410)) == SILENT
    assert retryable(failure(Unauthorized, 401)) == DENIED
    missing_role = 'RBAC: clusterrole.rbac.authorization.k8s.io "x" not found'
    assert retryable(failure(Forbidden, 403, missing_role)) == DENIED
    assert retryable(failure(Forbidden, 403)) == ""
    assert retryable(failure(Forbidden, 403), answered=True) == DENIED
    for kind, code in ((NotFound, 404), (Invalid, 422), (KubernetesError, 400)):
        assert retryable(failure(kind, code)) == ""


def test_a_computer_that_was_suspended_has_not_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    patience = Patience(Limits(silent=100, refused=100, denied=100))
    now = 5000.0
    assert not patience.spent(SILENT)
    now = 5030.0
    assert not patience.spent(SILENT)
    now = 5050.0
    assert patience.spent(SILENT)
    patience.renew()
    assert not patience.spent(SILENT)


def test_the_public_names() -> None:
    assert {"follow", "follow_job", "read", "read_job", "LogLine", "LogGap", "LogIncomplete"} <= set(logs.__all__)
