"""Logs under faults: each line is yielded once, or a marker says what is missing.

The pods follow the rules of a kubelet (:mod:`support.kubelet`); the faults come from a proxy in front of them.
"""

from __future__ import annotations

import gc
import os
import re
import signal
import threading
import time
import urllib.parse
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import fault_proxy as faults
from support import recorded
from support.fault_proxy import FaultProxy
from support.kubelet import ApiServer, Entry, Job, Pod, Run
from support.polling import wait_for

from aksgpu import jobs, logs, metrics
from aksgpu.errors import Forbidden, KubernetesError, LogsGone, LogUnavailable, NotFound, StreamLost, Unreachable
from aksgpu.kube import Kube
from aksgpu.logs import container_runs, follower, log_request, retrying
from aksgpu.waiting import Interrupted

LOG = r"/log"


def slow(*values: Any) -> Any:
    """Return a parameter set that is marked as slow. It keeps the real pauses."""
    return pytest.param(*values, marks=pytest.mark.slow)


class Setup:
    """Pods behind a fault proxy, and a client of the library that uses the proxy."""

    def __init__(self, folder: Path, *pods: Pod, jobs: tuple[Job, ...] = ()) -> None:
        self.server = ApiServer(*pods, jobs=jobs)
        self.server.__enter__()
        self.proxy = FaultProxy(self.server.url, seed=1).__enter__()
        self.kube = Kube.from_kubeconfig(self.proxy.kubeconfig(folder))
        self.given: list[logs.LogLine] = []
        self.error: BaseException | None = None
        self._thread: threading.Thread | None = None

    @property
    def aks(self) -> Any:
        """The parts of a cluster that a Job needs."""
        return SimpleNamespace(name="c", kube=self.kube)

    def follow(self) -> Setup:
        """Follow pod p in a thread."""

        def run() -> None:
            try:
                for line in logs.follow(self.aks, "p", read_timeout=0.5):
                    self.given.append(line)
            except BaseException as error:
                self.error = error

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        return self

    def wait_for(self, count: int, timeout: float = 60) -> None:
        """Wait until ``count`` lines have been yielded."""

        def enough() -> bool:
            assert self.error is None, self.error
            return len(self.given) >= count

        wait_for(enough, timeout)

    def end(self, timeout: float = 120) -> list[str]:
        """Return the texts of all lines after the iteration has ended."""
        assert self._thread is not None
        self._thread.join(timeout)
        assert not self._thread.is_alive(), "following does not end"
        if self.error is not None:
            raise self.error
        return [line.text for line in self.given]

    @property
    def gaps(self) -> list[logs.LogGap]:
        return [line.gap for line in self.given if line.gap is not None]

    @property
    def lines(self) -> list[str]:
        """Return the program's lines."""
        return [line.text for line in self.given if line.gap is None]

    def close(self) -> None:
        self.kube.close()
        self.proxy.__exit__()
        self.server.__exit__()


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Callable[..., Setup]]:
    made: list[Setup] = []

    def make(*pods: Pod, jobs: tuple[Job, ...] = ()) -> Setup:
        made.append(Setup(tmp_path, *pods, jobs=jobs))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(autouse=True)
def short_pauses(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses, so that the tests are quick. Tests marked as slow keep the real ones."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(follower, "POLL_SECONDS", 0.05)
        monkeypatch.setattr(follower, "STATUS_LAG_SECONDS", 0.5)
        monkeypatch.setattr(follower, "NEWER_RUN_SECONDS", 2.0)
        monkeypatch.setattr(retrying, "FIRST_PAUSE", 0.02)
        monkeypatch.setattr(log_request, "PAUSE_SECONDS", 0.02)


def numbered(start: int, stop: int, word: str = "line") -> list[str]:
    return [f"{word} {number}" for number in range(start, stop)]


# The scripted kubelet, compared with a real one.


def test_the_scripted_kubelet_serves_the_same_as_a_real_one() -> None:
    log = [
        exchange
        for step in recorded.steps("06-logs.json")
        for exchange in step["exchanges"]
        if urllib.parse.urlsplit(exchange["path"]).path.endswith("/log")
    ]
    whole = next(each["response_body"] for each in log if each["path"].endswith("log?timestamps=true"))
    name = log[0]["path"].split("/")[6]
    pod = Pod(name)
    entries = [Entry(nanoseconds(line.split()[0]), line.split(" ", 1)[1].encode()) for line in whole.splitlines(True)]
    pod.runs = [Run("containerd://x", entries[0].at, entries[-1].at, entries=entries)]
    compared = 0
    for exchange in log:
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(exchange["path"]).query))
        answer = pod.log(query)
        if isinstance(answer, tuple):
            assert exchange["status"] == answer[0]
            assert f'"message": "{answer[1]}"' in exchange["response_body"].replace('\\"', '"')
        else:
            assert b"".join(answer).decode() == exchange["response_body"], exchange["path"]
        compared += 1
    assert compared >= 7


def nanoseconds(stamp: str) -> int:
    seconds, _, fraction = stamp.rstrip("Z").partition(".")
    return int(logs_epoch(seconds + "Z")) * 1_000_000_000 + int(fraction.ljust(9, "0"))


def logs_epoch(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def test_a_since_time_inside_a_line_returns_its_rest_without_a_timestamp() -> None:
    pod = Pod().start()
    first = 1_700_000_000_999_999_999
    later = 1_700_000_001_000_000_001
    pod.runs[0].entries = [Entry(first, b"begin "), Entry(later, b"rest\n"), Entry(later + 1, b"next\n")]
    answer = pod.log({"timestamps": "true", "sinceTime": "2023-11-14T22:13:21.9Z"})
    assert not isinstance(answer, tuple)
    assert b"".join(answer) == b"rest\n2023-11-14T22:13:21.000000002Z next\n"


# Restarts in place.


@pytest.mark.parametrize("lag", [slow(0.0), 0.3, slow(1.2)])
@pytest.mark.parametrize("begin", ["before", "in the lag", "later"])
def test_runs_are_complete_and_in_order_while_the_status_is_behind(setup: Any, lag: float, begin: str) -> None:
    pod = Pod(status_lag=lag)
    case = setup(pod)
    if begin == "before":
        case.follow()
    pod.start().write(*numbered(0, 30, "run 0 line"))
    if begin == "later":
        case.follow().wait_for(10)
    pod.restart().write(*numbered(0, 20, "run 1 line"))
    if begin == "in the lag":
        case.follow()
    case.wait_for(40)
    pod.restart().write(*numbered(0, 10, "run 2 line"))
    case.wait_for(60)
    pod.write("last").end(0)
    assert case.end() == pod.texts


def test_a_run_that_prints_nothing_and_one_that_ends_at_once(setup: Any) -> None:
    pod = Pod(status_lag=0.5)
    case = setup(pod).follow()
    pod.start().restart().write("second")
    case.wait_for(1)
    pod.restart().write("third").end(0)
    assert case.end() == ["second", "third"]


def test_runs_that_cannot_be_read_any_more_are_a_gap(setup: Any) -> None:
    pod = Pod().start().write("a")
    for text in ("b", "c", "d"):
        pod.restart().write(text)
    pod.end(0)
    case = setup(pod).follow()
    texts = case.end()
    assert texts[1:] == ["c", "d"]
    assert case.gaps[0].runs == (0, 1)
    assert re.match(r"\[aksgpu: 2 runs of container main could not be read \(runs 0 to 1\)", texts[0])


@pytest.mark.parametrize("waits", ["back_off", "create"])
def test_a_pod_first_seen_while_it_waits_for_a_restart_that_never_comes(setup: Any, waits: str) -> None:
    pod = Pod().start().write("a").restart().write("b").end(1, over=False)
    getattr(pod, waits)()
    case = setup(pod).follow()
    case.wait_for(2)
    pod.fail()
    texts = case.end()
    assert texts[1:] == ["b"]
    assert texts[0].startswith("[aksgpu: 1 run of container main could not be read (run 0)")
    assert [gap.runs for gap in case.gaps] == [(0,)]


@pytest.mark.parametrize("waits", ["back_off", "create"])
def test_a_first_run_that_waits_for_its_restart_is_not_a_gap(setup: Any, waits: str) -> None:
    pod = Pod().start().write("a").end(1, over=False)
    getattr(pod, waits)()
    case = setup(pod).follow()
    case.wait_for(1)
    pod.start().write("b")
    case.wait_for(2)
    pod.end(0)
    assert case.end() == ["a", "b"]


def test_a_pod_that_is_removed_before_its_first_line_was_read_is_a_gap(setup: Any) -> None:
    pod = Pod().start().write("a")
    case = setup(pod)
    lines = logs.follow(case.aks, "p")
    pod.delete()
    (line,) = lines
    assert line.gap is not None
    assert line.text.startswith("[aksgpu: pod p was removed before its log was read to the end")


def test_first_lines_are_not_held_back_if_the_previous_log_shows_their_run(
    setup: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A wait for the status would take longer than the test allows.
    monkeypatch.setattr(follower, "STATUS_LAG_SECONDS", 1000.0)
    pod = Pod().start().write("a")
    case = setup(pod).follow()
    case.wait_for(1)
    cross_a_second()
    pod.restart().write("b")
    case.wait_for(2)
    pod.end(0)
    assert case.end() == ["a", "b"]


def test_runs_missed_while_the_connection_was_broken_are_a_gap(setup: Any) -> None:
    pod = Pod().start().write(*numbered(0, 5))
    case = setup(pod).follow()
    case.wait_for(5)
    case.proxy.plan = faults.always(faults.status(503))
    case.proxy.break_connections()
    pod.write("unseen").restart().write("lost").restart().write("kept").restart().write("newest").end(0)
    case.proxy.plan = faults.nothing
    case.end()
    assert case.lines == [*numbered(0, 5), "kept", "newest"]
    assert [gap.runs for gap in case.gaps] == [(0,), (1,)]
    assert case.gaps[0].since == case.given[4].timestamp


# The last read of an ended container.

LAST_READ = {
    "one 500": [faults.status(500)],
    "one 404": [faults.not_found()],
    "429 seven times": [faults.status(429, retry_after=0)] * 7,
    "clean end at byte 0": [faults.early_end(0)],
    "clean end at byte 0 twice": [faults.early_end(0)] * 2,
    "the same clean end four times": [faults.early_end(900)] * 4,
    "clean end inside a line": [faults.early_end(2017)],
    "401": [faults.unauthorized()] * 2,
    "410": [faults.gone()],
    "502 and 504": [faults.status(502), faults.status(504)],
    "cut": [faults.cut(700), faults.cut(3000)],
    "silence": [faults.half_open(700)],
    "silence before the status": [faults.half_open(None)],
    "kubelet away": [faults.kubelet_away()] * 2,
    "tunnel": [faults.tunnel_broken()] * 2,
    "words": [faults.kubelet_message()] * 2,
    "etcd": [faults.etcd_hangs()],
    "RBAC": [faults.rbac_not_ready()] * 3,
    "trickle": [faults.trickle(100, 0.001)] * 2,
    "refused": [faults.refused(0.4)],
}


@pytest.mark.parametrize("fault", LAST_READ)
@pytest.mark.parametrize("policy", ["Never", slow("OnFailure")])
def test_the_last_read_of_an_ended_container_survives_faults(setup: Any, fault: str, policy: str) -> None:
    pod = Pod(policy=policy).start().write(*numbered(0, 51))
    case = setup(pod).follow()
    case.wait_for(51)
    case.proxy.plan = faults.in_turn(LAST_READ[fault], path=LOG)
    case.proxy.break_connections()
    pod.write(*numbered(51, 200)).end(0)
    assert case.end() == numbered(0, 200)
    assert len(case.proxy.faults) == len(LAST_READ[fault])


@pytest.mark.parametrize("fault", LAST_READ)
def test_reads_survive_the_same_faults(setup: Any, fault: str) -> None:
    case = setup(Pod().start().write(*numbered(0, 200)).end(0))
    case.proxy.plan = faults.in_turn(LAST_READ[fault], path=LOG)
    case.kube.log = bounded(case.kube.log)
    assert logs.read(case.aks, "p").splitlines() == numbered(0, 200)
    case.proxy.plan = faults.in_turn(LAST_READ[fault], path=LOG)
    assert logs.read(case.aks, "p", tail_lines=7).splitlines() == numbered(193, 200)


def bounded(log: Any) -> Any:
    """The log call with a shorter silence, so that a test of silence does not take 45 s."""
    return lambda *args, **options: log(*args, **{"read_timeout": 0.5, **options})


def test_an_empty_log_of_a_running_container_is_read_again(setup: Any) -> None:
    case = setup(Pod().start().write("a", "b"))
    case.proxy.plan = faults.first(faults.early_end(0), path=LOG)
    assert logs.read(case.aks, "p") == "a\nb\n"


def test_the_log_of_a_container_that_printed_nothing_is_empty(setup: Any) -> None:
    case = setup(Pod().start().end(0))
    assert logs.read(case.aks, "p") == ""
    assert case.follow().end() == []


@pytest.mark.parametrize("step", [11, slow(1)])
def test_cuts_and_early_ends_at_every_byte(setup: Any, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    monkeypatch.setattr(follower, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(retrying, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(log_request, "PAUSE_SECONDS", 0.02)
    lines = ["a", "", "same", "same"]
    pod = Pod(policy="Never").start().write(*lines).end(0)
    case = setup(pod)
    size = len(case.kube.log("p", timestamps=True).read())
    for make in (faults.cut, faults.early_end):
        for byte in range(0, size + 1, step):
            case.proxy.plan = faults.first(make(byte), path=LOG)
            assert [line.text for line in logs.follow(case.aks, "p")] == lines, f"{make.__name__} at {byte}"
    for byte in range(0, size + 1, step):
        case.proxy.plan = faults.first(faults.early_end(byte), path=LOG)
        assert logs.read(case.aks, "p").splitlines() == lines, f"read, early end at {byte}"


# A kubelet that does not respond.


@pytest.fixture
def job(setup: Any) -> Any:
    """A Job that has ended, with three accuracies in its log."""
    texts = [f"Accuracy at step {step}: 0.{step}" for step in (10, 20, 30)]
    pod = Pod("j-1", job="j").start().write(*texts).end(0)
    owner = Job()
    owner.finish("Complete", succeeded=1)
    case = setup(pod, jobs=(owner,))
    case.texts = texts
    case.job = jobs.Job(case.aks, "j", namespace="default")
    return case


ONCE = [
    faults.kubelet_away(),
    faults.tunnel_broken(),
    faults.kubelet_message(),
    faults.kubelet_message("failed to create fsnotify watcher: too many open files"),
    faults.kubelet_message("Some other words of the node\n"),
    faults.status(500, "text, not JSON"),
    faults.etcd_hangs(),
    faults.rbac_not_ready(),
]


@pytest.mark.parametrize("number", range(len(ONCE)))
def test_a_kubelet_that_is_away_once_loses_nothing(job: Any, number: int) -> None:
    def again() -> None:
        job.proxy.plan = faults.first(ONCE[number], times=2, path=LOG)

    again()
    assert job.job.logs().splitlines() == job.texts
    again()
    assert job.job.metrics()["step"].tolist() == [10, 20, 30]
    again()
    assert list(job.job.follow()) == job.texts
    again()
    assert job.job.plot().axes[0].lines
    assert len(job.proxy.faults) == 8


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (faults.kubelet_away(), "10250: connect: connection refused"),
        (faults.tunnel_broken(), "tunnel-uds/proxysocket"),
        (faults.kubelet_message(), "unable to retrieve container logs for containerd://"),
    ],
)
def test_a_kubelet_that_stays_away_is_an_error_and_never_an_empty_log(
    job: Any, fault: faults.Fault, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.proxy.plan = faults.always(fault, path=LOG)
    monkeypatch.setattr(follower, "LIMITS", follower.Limits.same(0.3))
    monkeypatch.setattr(follower, "MISSING_LOG_SECONDS", 0.3)
    for ask in (job.job.logs, job.job.metrics, job.job.plot):
        monkeypatch.setattr(logs.read_job, "__kwdefaults__", {"tail_lines": None, "timeout": 0.2})
        monkeypatch.setattr(logs.read_attempts, "__kwdefaults__", {"namespace": None, "timeout": 0.2})
        with pytest.raises(LogUnavailable, match=re.escape(words)):
            ask()
    try:
        followed = list(job.job.follow())
    except StreamLost as error:
        followed = [error.message]
    assert len(followed) == 1
    assert words in followed[0]


def test_markers_are_not_lines_of_the_program() -> None:
    marker = "[aksgpu: 1 run of container main could not be read: Accuracy at step 10: 0.5]"
    assert metrics.parse([marker, "Accuracy at step 20: 0.25"])["step"].tolist() == [20]


# Permission errors of a server that has just come back.


def test_temporary_permission_errors_are_awaited(setup: Any) -> None:
    pod = Pod(policy="Never").start().write(*numbered(0, 43))
    case = setup(pod).follow()
    case.wait_for(43)
    case.proxy.plan = faults.in_turn([faults.rbac_not_ready()] * 6)
    case.proxy.break_connections()
    pod.write(*numbered(43, 600)).end(0)
    assert case.end() == numbered(0, 600)
    assert len(case.proxy.faults) == 6


def test_a_permission_error_that_stays_is_raised(setup: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "LIMITS", follower.Limits(60.0, 60.0, 3.0))
    case = setup(Pod(policy="Never").start().write("a"))
    case.proxy.plan = faults.always(faults.forbidden(), path=LOG)
    with pytest.raises(Forbidden):
        case.follow().end()
    assert len(case.proxy.faults) == 1  # other missing permissions are not awaited
    case.proxy.plan = faults.always(faults.rbac_not_ready(), path=LOG)
    with pytest.raises(Forbidden, match="RBAC"):
        case.follow().end()
    assert len(case.proxy.faults) > 3


# Clocks.


@pytest.mark.parametrize(("seconds", "cuts"), [(10, 1), (600, 3), slow(10, 0), slow(10, 3), slow(600, 0), slow(600, 1)])
def test_a_clock_that_is_set_back_loses_and_repeats_nothing(setup: Any, seconds: float, cuts: int) -> None:
    pod = Pod(policy="Never").start().write(*numbered(0, 40))
    case = setup(pod).follow()
    case.wait_for(40)
    if cuts:
        case.proxy.plan = faults.in_turn([faults.cut(0)] * (2 * cuts))
        case.proxy.break_connections()
    pod.set_clock_back(seconds).write(*numbered(40, 70))
    case.wait_for(70)
    for _ in range(cuts):
        case.proxy.break_connections()
    pod.write(*numbered(70, 100)).end(0)
    assert case.end() == numbered(0, 100)


def test_a_clock_that_is_set_back_before_a_restart(setup: Any) -> None:
    pod = Pod(status_lag=0.3).start().write(*numbered(0, 40))
    case = setup(pod).follow()
    case.wait_for(40)
    pod.set_clock_back(30).write(*numbered(40, 50))
    case.wait_for(50)
    pod.restart().write(*numbered(50, 70))
    case.wait_for(70)
    pod.end(0)
    assert case.end() == numbered(0, 70)


# Pods that are removed.


def test_a_pod_that_is_removed_with_its_last_failure(setup: Any) -> None:
    pod = Pod("j-1", job="j")
    owner = Job()
    case = setup(pod, jobs=(owner,))
    lines: list[str] = []
    thread = threading.Thread(target=lambda: lines.extend(jobs.Job(case.aks, "j", namespace="default").follow()))
    thread.start()
    pod.start()
    for run in range(3):
        pod.write(*numbered(0, 100, f"run {run} line"))
        while sum(line.startswith(f"run {run}") for line in lines) < 100:
            time.sleep(0.01)
        if run < 2:
            pod.restart()
    pod.write("the reason").end(1)
    pod.delete()
    owner.finish("Failed", failed=1)
    thread.join(60)
    program = [line for line in lines if not line.startswith("[aksgpu:")]
    assert program in (pod.texts, pod.texts[:-1])
    if program != pod.texts:
        assert lines[-1].startswith("[aksgpu: pod j-1 was removed before its log was read to the end")


def test_a_pod_that_is_removed_while_the_connection_is_broken_is_a_gap(setup: Any) -> None:
    pod = Pod(policy="Never").start().write(*numbered(0, 35))
    case = setup(pod).follow()
    case.wait_for(35)
    case.proxy.plan = faults.in_turn([faults.status(503)] * 3)
    case.proxy.break_connections()
    pod.write(*numbered(35, 50)).end(1)
    pod.delete()
    case.end()
    assert case.lines == numbered(0, 35)
    (gap,) = case.gaps
    assert gap.since == case.given[34].timestamp
    assert case.given[-1].text.startswith("[aksgpu: pod p was removed before its log was read to the end: the rest of")


def test_a_pod_that_is_removed_after_it_was_read_is_not_a_gap(setup: Any) -> None:
    pod = Pod(policy="Never").start().write("a").end(0)
    case = setup(pod).follow()
    assert case.end() == ["a"]


def test_logs_of_a_job_without_pods_raise_logs_gone(setup: Any) -> None:
    pod = Pod("j-1", job="j")
    owner = Job()
    case = setup(pod, jobs=(owner,))
    job = jobs.Job(case.aks, "j", namespace="default")
    assert job.logs() == ""  # not started
    pod.start().write("a")
    assert job.logs() == "a\n"
    pod.delete()
    owner.finish("Failed", failed=1)
    for ask in (job.logs, job.metrics, job.plot, lambda: list(job.follow())):
        with pytest.raises(LogsGone, match="were deleted with their logs"):
            ask()
    with pytest.raises(NotFound):
        jobs.Job(case.aks, "other", namespace="default").logs()


def test_pods_that_were_gone_before_they_were_followed_are_a_gap(setup: Any) -> None:
    pod = Pod("j-2", job="j", policy="Never").start().write("second").end(0)
    owner = Job()
    owner.finish("Complete", succeeded=1, failed=2)
    case = setup(pod, jobs=(owner,))
    lines = list(jobs.Job(case.aks, "j", namespace="default").follow())
    assert lines[0] == "second"
    assert lines[1:] == ["[aksgpu: 2 pods of job j could not be read: removed before their logs were followed]"]


# Long lines.


@pytest.mark.parametrize("cut", [slow(1), 20_000, slow(40_000), slow(60_000)])
def test_a_long_line_that_is_stored_in_pieces_is_yielded_once(setup: Any, cut: int) -> None:
    bar = "\r".join(f"{percent:3d} %|{'#' * percent}" for percent in range(100)) * 12
    assert len(bar) > 3 * 16 * 1024
    pod = Pod(policy="Never").start()
    case = setup(pod).follow()
    pod.write("before")
    case.wait_for(1)
    case.proxy.plan = faults.in_turn([faults.cut(cut)], path=LOG)
    case.proxy.break_connections()
    pod.write_part(bar[:20_000])
    cross_a_second()
    pod.write(bar[20_000:])
    pod.texts[-1] = bar
    case.wait_for(2)
    cross_a_second()
    for _ in range(3):
        case.proxy.break_connections()
        pod.write("after")
        case.wait_for(len(pod.texts) + 0)
    pod.end(0)
    pod.texts.insert(0, pod.texts.pop(0))
    assert case.end() == ["before", bar, "after", "after", "after"]


def cross_a_second() -> None:
    """Wait for the clock's next second, so that there are timestamps in both."""
    second = int(time.time())
    while int(time.time()) == second:
        time.sleep(0.01)


def test_a_line_that_grows_for_longer_than_the_margin(setup: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aksgpu.logs.deduplication.SHORT_LOG_MARGIN", 0)
    pod = Pod(policy="Never").start()
    case = setup(pod).follow()
    pod.write_part("y" * 40_000)
    cross_a_second()
    pod.write("z" * 30_000)
    case.wait_for(1)
    for number in range(2):
        cross_a_second()
        case.proxy.break_connections()
        pod.write(f"after {number}")
        case.wait_for(2 + number)
    pod.end(0)
    texts = case.end()
    assert texts == ["y" * 40_000 + "z" * 30_000, "after 0", "after 1"]


# The first request.

FIRST = {
    "500": faults.status(500),
    "503": faults.status(503),
    "429": faults.status(429, retry_after=0),
    "cut": faults.cut(0),
    "truncated": faults.cut(40),
    "no answer": faults.no_answer(),
    "RBAC": faults.rbac_not_ready(),
    "401": faults.unauthorized(),
    "etcd": faults.etcd_hangs(),
    "refused": faults.refused(0.3),
}


@pytest.mark.parametrize("fault", FIRST)
def test_the_first_request_is_retried(setup: Any, fault: str) -> None:
    pod = Pod("j-1", job="j", policy="Never").start().write("a").end(0)
    owner = Job()
    owner.finish("Complete", succeeded=1)
    case = setup(pod, jobs=(owner,))
    case.proxy.plan = faults.each_once(FIRST[fault])
    assert [line.text for line in logs.follow(case.aks, "j-1")] == ["a"]
    case.proxy.plan = faults.first(FIRST[fault], times=2)
    assert [line.text for _, line in logs.follow_job(case.aks, "j")] == ["a"]
    case.proxy.plan = faults.first(FIRST[fault], times=2)
    assert logs.read_job(case.aks, "j") == "a\n"


def test_with_timeout_0_each_request_is_sent_once(setup: Any) -> None:
    case = setup(Pod("j-1", job="j").start().write("a"), jobs=(Job(),))
    case.proxy.plan = faults.always(faults.status(500), path=LOG)
    with pytest.raises(LogUnavailable):
        logs.read(case.aks, "j-1", timeout=0)
    assert len(case.proxy.faults) == 1
    with pytest.raises(LogUnavailable):
        logs.read_job(case.aks, "j", timeout=0)
    assert len(case.proxy.faults) == 2
    case.proxy.plan = faults.always(faults.status(503))
    with pytest.raises(Unreachable):
        logs.read(case.aks, "j-1", timeout=0)
    assert len(case.proxy.faults) == 3


def test_the_timeout_is_the_total_time(setup: Any) -> None:
    case = setup(Pod().start().write("a"))
    case.proxy.plan = faults.always(faults.status(500))
    began = time.monotonic()
    with pytest.raises(Unreachable):
        logs.read(case.aks, "p", timeout=0.5)
    assert time.monotonic() - began < 10  # two retry policies, one inside the other, would take over a minute


def test_retry_after_is_respected(setup: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "FIRST_PAUSE", 1000.0)
    case = setup(Pod().start().write("a").end(0))
    case.proxy.plan = faults.first(faults.status(429, retry_after=0), times=2)
    assert logs.read(case.aks, "p") == "a\n"


def test_a_name_that_does_not_exist_is_not_retried(setup: Any) -> None:
    case = setup()
    with pytest.raises(NotFound):
        logs.follow(case.aks, "p")
    assert len(case.proxy.calls) == 1


# Interruptions.


@pytest.mark.parametrize("call", ["read", "read_job", "follow", "follow_job"])
def test_an_interruption_is_one_sentence(setup: Any, call: str) -> None:
    case = setup(Pod("j", job="j").start().write("a"), jobs=(Job("j"),))

    def interrupt(request: Any) -> None:
        if request.route.endswith("/log"):
            os.kill(os.getpid(), signal.SIGINT)

    case.server.before = interrupt
    with pytest.raises(Interrupted, match=r"^(reading|following) .*(pod|job) j was interrupted"):
        list(getattr(logs, call)(case.aks, "j"))


# The kubelet's own messages.


def test_a_message_after_the_lines_is_not_a_line(setup: Any) -> None:
    pod = Pod(policy="Never").start().write("a", "b")
    case = setup(pod)
    texts = iter(["failed to create fsnotify watcher: too many open files", "no such file or directory\n"])

    def answer(request: Any) -> bool:
        if not request.route.endswith("/log") or request.query.get("follow") != "true":
            return False
        text = next(texts, None)
        if text is None:
            return False
        request.begin()
        for block in pod.log({key: value for key, value in request.query.items() if key != "follow"}):
            request.chunk(block)
        request.chunk(text.encode())
        request.end()
        return True

    case.server.before = answer
    case.follow().wait_for(2)
    pod.write("c")
    case.wait_for(3)
    pod.end(0)
    assert case.end() == ["a", "b", "c"]
    assert next(texts, None) is None


def test_a_message_that_stays_is_reported(setup: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "MISSING_LOG_SECONDS", 1.0)
    pod = Pod(policy="Never").start().write("a").end(0)
    case = setup(pod)
    case.proxy.plan = faults.always(faults.kubelet_message(), path=LOG)
    (text,) = case.follow().end()
    assert text.startswith("[aksgpu: run 0 of container main could not be read: the kubelet returned a message")


# Rotation.


def test_a_log_that_is_rotated_while_it_is_followed_is_complete(setup: Any) -> None:
    pod = Pod(policy="Never").start().write(*numbered(0, 20))
    case = setup(pod).follow()
    case.wait_for(20)
    pod.rotate().write(*numbered(20, 30))
    case.wait_for(30)
    pod.write("last")
    case.wait_for(31)
    pod.end(0)
    assert case.end() == [*numbered(0, 30), "last"]


def test_a_log_that_is_rotated_while_the_connection_is_broken_has_a_gap(setup: Any) -> None:
    pod = Pod(policy="Never").start().write(*numbered(0, 20))
    case = setup(pod).follow()
    case.wait_for(20)
    case.proxy.plan = faults.in_turn([faults.status(503)])
    case.proxy.break_connections()
    pod.write(*numbered(20, 30)).rotate().write(*numbered(30, 40)).end(0)
    case.end()
    assert case.lines == [*numbered(0, 20), *numbered(30, 40)]
    (gap,) = case.gaps
    assert (gap.since, gap.until) == (case.given[19].timestamp, case.given[21].timestamp)
    assert gap.seconds is not None and gap.seconds > 0
    assert case.given[20].gap is gap


def test_a_read_of_a_rotated_log_says_what_is_missing(setup: Any) -> None:
    pod = Pod(policy="Never").start().write(*numbered(0, 20))
    case = setup(pod).follow()
    case.wait_for(20)
    pod.rotate().write("newest")
    first, *rest = logs.read(case.aks, "p").splitlines()
    assert rest == ["newest"]
    assert first.startswith(f"[aksgpu: lines from {case.given[0].timestamp} to ")
    pod.end(0)
    case.end()


def test_a_read_of_a_possibly_rotated_log_warns_that_it_is_a_guess(setup: Any) -> None:
    pod = Pod(policy="Never").start()
    pod.runs[0].started -= 1_800_000_000_000
    pod._history[-1][1]["containerStatuses"][0]["state"]["running"]["startedAt"] = "2020-01-01T00:00:00Z"
    pod.write(*numbered(0, 3))
    case = setup(pod)
    with pytest.warns(logs.LogIncomplete, match="a guess"):
        assert logs.read(case.aks, "p").splitlines() == numbered(0, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logs.read(case.aks, "p", tail_lines=2)


# Threads and sockets.


@pytest.mark.parametrize("follows", [20, slow(100)])
def test_many_follows_leave_no_thread_and_no_socket_behind(setup: Any, follows: int) -> None:
    pod = Pod(policy="Never").start().write("a", "b")
    case = setup(pod)

    def follow_a_little() -> None:
        lines = logs.follow(case.aks, "p")
        next(lines)
        lines.close()  # type: ignore[attr-defined]

    follow_a_little()
    gc.collect()
    before = threading.active_count(), open_files()
    for _ in range(follows):
        follow_a_little()
    gc.collect()
    # The servers in this process close their side a little later.
    wait_for(lambda: open_files() <= before[1] + 3)
    wait_for(lambda: threading.active_count() <= before[0] + 3)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_errors_are_in_the_librarys_tree() -> None:
    assert issubclass(LogsGone, NotFound)
    assert issubclass(LogUnavailable, KubernetesError)
    assert container_runs.first_line("") is None
