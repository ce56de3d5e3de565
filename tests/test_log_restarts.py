"""Restarts in place on the laptop AKS without faults: every follower gets every run once and in order."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from aksgpu import jobs, logs
from aksgpu.cluster import Cluster
from aksgpu.errors import Expired, Forbidden, Invalid, KubernetesError, NotFound, Unauthorized, Unreachable
from aksgpu.kube import retry_policy
from aksgpu.logs.retrying import Failure, Limits, RetryTimer, kind_of_failure

pytest_plugins = ["aksgpu.local.testing", "support.laptop_cluster"]

LINES = 40
"""Number of lines that each run prints."""
RUNS = 3
PROGRAM = """
run=$(cat {state}/runs 2>/dev/null || echo 0)
echo $((run + 1)) > {state}/runs
i=0; while [ $i -lt {lines} ]; do echo "run $run line $i"; i=$((i + 1)); done
{wait}
[ $run -ge {last} ]
"""
GATE = "while [ ! -e {state}/end-$run ]; do sleep 0.05; done"
"""Ends a run when the test says so."""
FIRST_GATE = "[ $run -gt 0 ] || " + GATE
"""The same for the first run only."""


class FollowedJob:
    """A Job whose container is restarted in place until its third run succeeds, and followers of its log."""

    def __init__(self, aks: Cluster, name: str, state: Path, wait: str) -> None:
        wait = wait.format(state=state)
        program = PROGRAM.format(state=state, lines=LINES, last=RUNS - 1, wait=wait)
        container = {"name": "main", "image": "docker.io/library/busybox:1", "command": ["sh", "-c", program]}
        spec = {"restartPolicy": "OnFailure", "containers": [container]}
        self.state = state
        self.job = jobs.apply(
            aks,
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {"name": name},
                "spec": {"backoffLimit": 6, "template": {"spec": spec}},
            },
        )
        self.lines: list[list[str]] = []
        self._threads: list[threading.Thread] = []

    def follow(self, followers: int = 1) -> None:
        """Start several followers."""
        for _ in range(followers):
            lines: list[str] = []
            self.lines.append(lines)
            thread = threading.Thread(target=self._follow, args=(lines,))
            self._threads.append(thread)
            thread.start()

    def _follow(self, lines: list[str]) -> None:
        for line in self.job.follow():
            lines.append(line)

    def await_line(self, line: str) -> None:
        """Wait until every follower has a line."""
        deadline = time.monotonic() + 60
        while not all(line in lines for lines in self.lines):
            assert time.monotonic() < deadline, (line, [lines[-2:] for lines in self.lines])
            time.sleep(0.02)

    def end(self, run: int) -> None:
        """End a run."""
        (self.state / f"end-{run}").touch()

    def join(self) -> None:
        """Wait until all followers have ended."""
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive()


def lines_of(*runs: int) -> list[str]:
    return [f"run {run} line {line}" for run in runs for line in range(LINES)]


def test_every_follower_gets_every_run_once_and_in_order(aks: Cluster, tmp_path: Path) -> None:
    followed = FollowedJob(aks, "restarts", tmp_path, GATE)
    try:
        followed.follow(2)
        followed.await_line(f"run 0 line {LINES - 1}")
        followed.follow(2)
        followed.await_line(f"run 0 line {LINES - 1}")
        followed.end(0)
        followed.await_line(f"run 1 line {LINES - 1}")
        followed.follow(2)  # run 0 is the previous run now
        followed.await_line(f"run 1 line {LINES - 1}")
        followed.end(1)
        followed.await_line(f"run 2 line {LINES - 1}")
        followed.follow(2)  # run 0 is lost: the node keeps one previous run
        followed.await_line(f"run 2 line {LINES - 1}")
        followed.end(2)
        followed.join()
    finally:
        followed.job.delete()
    for lines in followed.lines[:6]:
        assert lines == lines_of(0, 1, 2)
    for marker, *lines in followed.lines[6:]:
        assert marker.startswith("[aksgpu: 1 run of container main could not be read (run 0)")
        assert lines == lines_of(1, 2)


@pytest.mark.parametrize("seconds", ["0.5", "0.9"])
def test_runs_that_end_by_themselves(aks: Cluster, tmp_path: Path, seconds: str) -> None:
    followed = FollowedJob(aks, f"restarts-{seconds}", tmp_path, f"{FIRST_GATE}\nsleep {seconds}")
    try:
        followed.follow(6)
        # The node keeps one previous run, so the first one must be read before the second one ends.
        followed.await_line(f"run 0 line {LINES - 1}")
        followed.end(0)
        followed.join()
    finally:
        followed.job.delete()
    for lines in followed.lines:
        markers = [line for line in lines if line.startswith("[aksgpu:")]
        assert [line for line in lines if line not in markers] == lines_of(0, 1, 2)
        # On a busy machine two runs may end between two requests. Then the end of the first cannot be confirmed.
        assert len(markers) <= 1
        assert all("may be missing" in marker for marker in markers)


def test_runs_that_end_between_two_requests(aks: Cluster, tmp_path: Path) -> None:
    followed = FollowedJob(aks, "restarts-0", tmp_path, "")
    try:
        followed.follow(6)
        followed.join()
    finally:
        followed.job.delete()
    for lines in followed.lines:
        markers = [line for line in lines if line.startswith("[aksgpu:")]
        program = [line for line in lines if not line.startswith("[aksgpu:")]
        # While a container waits for its restart, the node does not serve the run before the one that has ended.
        if markers:
            assert len(markers) == 1, markers
            assert "run 0" in markers[0]
            assert program in (lines_of(0, 1, 2), lines_of(1, 2))
        else:
            assert program == lines_of(0, 1, 2)


def test_which_failures_are_retried() -> None:
    def failure(kind: type[KubernetesError], status: int, message: str = "x") -> KubernetesError:
        return kind(message, status={"code": status})

    assert kind_of_failure(Unreachable("x")) is Failure.SILENT
    assert kind_of_failure(Unreachable("x", refused=True)) is Failure.REFUSED
    assert kind_of_failure(Unreachable("x", permanent=True)) is None
    for status in retry_policy.TRANSIENT_STATUSES:
        assert kind_of_failure(failure(KubernetesError, status)) is Failure.SILENT
    assert kind_of_failure(failure(Expired, 410)) is Failure.SILENT
    assert kind_of_failure(failure(Unauthorized, 401)) is Failure.DENIED
    missing_role = 'RBAC: clusterrole.rbac.authorization.k8s.io "x" not found'
    assert kind_of_failure(failure(Forbidden, 403, missing_role)) is Failure.DENIED
    assert kind_of_failure(failure(Forbidden, 403)) is None
    assert kind_of_failure(failure(Forbidden, 403), succeeded_before=True) is Failure.DENIED
    for kind, status in ((NotFound, 404), (Invalid, 422), (KubernetesError, 400), (KubernetesError, 501)):
        assert kind_of_failure(failure(kind, status)) is None


def test_a_computer_that_was_suspended_has_not_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    retries = RetryTimer(Limits.same(100))
    now = 5000.0
    assert not retries.is_over(Failure.SILENT)
    now = 5030.0
    assert not retries.is_over(Failure.SILENT)
    now = 5050.0
    assert retries.is_over(Failure.SILENT)
    retries.reset()
    assert not retries.is_over(Failure.SILENT)


def test_the_public_names() -> None:
    assert {"follow", "follow_job", "read", "read_job", "LogLine", "LogGap", "LogIncomplete"} <= set(logs.__all__)
