"""A Job of an Executor follows concurrent.futures.Future, and an Executor its map."""

from __future__ import annotations

import concurrent.futures
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.polling import wait_for

from aksgpu import errors, jobs
from aksgpu.cluster import Cluster
from aksgpu.common import times
from aksgpu.jobs import job_cancellation
from aksgpu.jobs.executor_manifest import MAIN
from aksgpu.payload import records

TIMEOUT = 120


def wait_for_file(path: str) -> str:
    print("started", flush=True)
    while not Path(path).exists():
        time.sleep(0.05)
    return Path(path).read_text()


def square(number: int) -> int:
    if number < 0:
        raise ValueError("negative")
    return number * number


def test_a_running_job_is_running_and_a_finished_one_is_done(cpu: jobs.Executor, tmp_path: Path) -> None:
    signal = tmp_path / "go"
    job = cpu.submit(wait_for_file, str(signal))
    wait_for(job.running, 60)
    assert not job.done()
    with pytest.raises(errors.WaitTimeout):
        job.result(timeout=0)
    signal.write_text("now")
    assert job.result(TIMEOUT) == "now"
    assert job.done()
    assert not job.running()
    assert not job.cancelled()
    assert job.exception(TIMEOUT) is None


def test_exception_returns_what_result_raises(cpu: jobs.Executor) -> None:
    job = cpu.submit(square, -1)
    error = job.exception(TIMEOUT)
    assert isinstance(error, ValueError)
    assert str(error) == "negative"


def test_cancel_stops_the_program_and_keeps_its_log(cpu: jobs.Executor, tmp_path: Path) -> None:
    job = cpu.submit(wait_for_file, str(tmp_path / "never"))
    wait_for(lambda: "started" in job.logs(), 60)
    assert job.cancel(timeout=TIMEOUT)
    assert job.cancelled()
    assert job.done()
    assert "started" in job.logs()
    with pytest.raises(concurrent.futures.CancelledError):
        job.result(TIMEOUT)
    assert job.cancel(timeout=TIMEOUT)
    assert isinstance(job.exception(TIMEOUT), errors.JobCancelled)


def pod_whose_program_ended(finished: str) -> dict[str, Any]:
    """Return a pod that runs after its program has ended."""
    states = [{"name": MAIN, "state": {"terminated": {"exitCode": records.STOPPED, "finishedAt": finished}}}]
    return {"metadata": {"name": "p", "uid": "1"}, "status": {"phase": "Running", "containerStatuses": states}}


def test_cancel_waits_for_a_pod_whose_program_has_ended() -> None:
    """The pod of a suspended Job would be deleted, and its log with it."""
    no_requests: Any = SimpleNamespace(kube=None)
    pod = pod_whose_program_ended(times.now())
    assert "its pod ends" in job_cancellation.stop(no_requests, {"metadata": {"name": "j"}}, [pod], {"1"})


def test_cancel_does_not_wait_for_a_sidecar_that_does_not_end() -> None:
    patches: list[tuple[Any, ...]] = []
    server: Any = SimpleNamespace(kube=SimpleNamespace(patch=lambda *patch: patches.append(patch)))
    job = {"metadata": {"name": "j", "namespace": "default"}}
    job_cancellation.stop(server, job, [pod_whose_program_ended("2026-01-01T00:00:00Z")], {"1"})
    ((kind, name, patch, _),) = patches
    assert (kind, name, patch["spec"]) == ("Job", "j", {"suspend": True})


def test_cancel_keeps_a_job_without_a_node_from_starting(aks: Cluster) -> None:
    job = jobs.Executor(aks, gpus=0, node_selector={"disk": "none"}).submit(square, 2)
    assert job.cancel(timeout=TIMEOUT)
    assert job.cancelled()
    with pytest.raises(errors.JobCancelled):
        job.result(TIMEOUT)


def test_cancel_stops_the_installation_of_packages(aks: Cluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        index = f"--index-url=http://127.0.0.1:{silent.getsockname()[1]}/simple"
        job = jobs.Executor(aks, gpus=0, packages=[index, "no-such-distribution"]).submit(square, 2)
        wait_for(lambda: "installing packages" in job.logs(), 60)
        silent.settimeout(60)
        connection, _ = silent.accept()
        assert job.cancel(timeout=TIMEOUT)
        connection.close()
    assert job.cancelled()


def test_a_wait_for_a_job_that_was_cancelled_before_its_start_ends(aks: Cluster) -> None:
    job = jobs.Executor(aks, gpus=0, node_selector={"disk": "none"}).submit(square, 2)
    assert job.cancel(timeout=TIMEOUT)
    with pytest.raises(errors.JobCancelled):
        job.wait(TIMEOUT)
    assert "was cancelled" in job.why().verdict


def test_a_job_without_a_node_is_deleted(aks: Cluster) -> None:
    job = jobs.Executor(aks, gpus=0, node_selector={"disk": "none"}).submit(square, 2)
    wait_for(lambda: len(job.pods()) == 1, 60)
    job.delete(timeout=TIMEOUT)
    assert aks.kube.find("Job", job.name) is None


def test_cancel_of_a_finished_job_does_nothing(cpu: jobs.Executor) -> None:
    job = cpu.submit(square, 3)
    assert job.result(TIMEOUT) == 9
    assert not job.cancel(timeout=TIMEOUT)
    assert not job.cancelled()
    assert job.result(TIMEOUT) == 9


def test_map_gives_results_in_the_order_of_the_items(cpu: jobs.Executor) -> None:
    results = cpu.map(square, [3, 1, 2])
    assert list(results) == [9, 1, 4]
    assert len({job.name for job in results.jobs}) == 3


class Rates:
    """A sequence of the old kind, such as many data sets: it has no ``__iter__``."""

    def __getitem__(self, index: int) -> int:
        return [3, 1][index]


def test_map_takes_a_sequence_without_iter(cpu: jobs.Executor) -> None:
    assert list(cpu.map(square, Rates(), timeout=TIMEOUT)) == [9, 1]  # type: ignore[arg-type]  # iter() takes it


def stop(number: int) -> int:
    raise StopIteration(number)


def test_a_function_that_raises_stop_iteration_does_not_end_the_results(cpu: jobs.Executor) -> None:
    with pytest.raises(RuntimeError, match="raised StopIteration"):
        list(cpu.map(stop, [1]))


def test_as_completed_gives_a_deleted_job_too(cpu: jobs.Executor) -> None:
    job = cpu.submit(square, 2)
    job.delete()
    assert [each.name for each in jobs.as_completed([job], timeout=TIMEOUT)] == [job.name]
    with pytest.raises(errors.NotFound):
        job.result(TIMEOUT)


def test_as_completed_gives_jobs_in_the_order_of_their_end(cpu: jobs.Executor, tmp_path: Path) -> None:
    first = cpu.submit(wait_for_file, str(tmp_path / "first"))
    second = cpu.submit(wait_for_file, str(tmp_path / "second"))
    ended = jobs.as_completed([first, second], timeout=TIMEOUT)
    (tmp_path / "second").write_text("2")
    assert next(ended).name == second.name
    (tmp_path / "first").write_text("1")
    assert [job.name for job in ended] == [first.name]


def test_the_progress_of_as_completed_names_jobs_that_failed(
    cpu: jobs.Executor, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # which would shorten the line
    failing = [cpu.submit(square, -number) for number in range(1, 6)]
    for job in failing:
        with pytest.raises(errors.JobFailed):
            job.wait(TIMEOUT)
    running = cpu.submit(wait_for_file, str(tmp_path / "signal"))
    ended = jobs.as_completed([*failing, running], timeout=TIMEOUT, progress=True)
    failed = [next(ended) for _ in failing]
    newest = ", ".join(job.name for job in reversed(failed[-3:]))
    shown = f"5 of 6 have ended, 5 failed: {newest} and 2 more"
    with ThreadPoolExecutor(1) as pool:
        last = pool.submit(next, ended)
        wait_for(lambda: shown in capsys.readouterr().err, 60)
        (tmp_path / "signal").write_text("now")
        assert last.result(TIMEOUT).name == running.name


@pytest.mark.parametrize("wrong", [[1], "job", [None]])
def test_as_completed_refuses_other_objects_than_jobs(wrong: object) -> None:
    with pytest.raises(errors.InvalidInput, match="must be a list of Jobs"):
        jobs.as_completed(wrong)  # type: ignore[arg-type]  # what is tested
