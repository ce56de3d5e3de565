"""The facts about an Executor's run: what job.facts(), the history and a comparison say."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.polling import wait_for

from aksgpu import jobs, runs
from aksgpu.cluster import Cluster
from aksgpu.jobs.run_record import read_facts
from aksgpu.logs.job_logs import job_pods

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("AKSGPU_HISTORY", str(tmp_path / "history"))
    yield tmp_path / "history"


def half(number: float) -> float:
    return number / 2


def test_facts_have_the_users_variables_and_nothing_of_the_runner(aks: Cluster, clean: None) -> None:
    plain = jobs.Executor(aks, gpus=0, root=HERE).submit(half, 1.0)
    env = {"LR": "0.1", "COLUMNS": "80"}
    other = jobs.Executor(aks, gpus=0, root=HERE, env=env, timeout="5m").submit(half, 2.0)
    assert (plain.result(), other.result()) == (0.5, 1.0)
    first = plain.facts()
    assert (first["command"], first["args"], first["env"]) == ([], [], {})
    assert other.facts()["env"] == env
    assert runs.get(other.name).facts["env"] == env
    rows = set(runs.compare([plain, other]).differences().index) - {"seconds", "usd"}
    assert rows == {"env LR", "env COLUMNS", "argument number"}


def test_the_times_are_the_same_before_and_after_the_jobs_end_is_recorded(
    aks: Cluster, cpu: jobs.Executor, clean: None
) -> None:
    job = cpu.submit(half, 3.0)
    job.wait()
    recorded = job.facts()
    obj = job._object()
    pods = job_pods(aks.kube, obj)
    del obj["status"]["conditions"]
    facts = read_facts(aks, obj, pods)
    assert (facts["phase"], facts["reason"]) == ("Complete", "Completing")
    (row,) = runs.list(job=job.name).to_dict("records")
    for name in ("started", "ended", "seconds", "usd", "spans"):
        assert facts[name] == recorded[name], name
    assert row["seconds"] == recorded["seconds"]


def test_the_time_of_a_job_that_runs_has_whole_seconds(cpu: jobs.Executor, clean: None) -> None:
    job = cpu.submit(time.sleep, 60)
    wait_for(job.running)
    seconds = job.facts()["seconds"]
    assert seconds == int(seconds)
    assert job.facts()["ended"] is None
