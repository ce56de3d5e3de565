"""The facts about an Executor's run: what job.facts(), the history and a comparison say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aksgpu import jobs, runs
from aksgpu.cluster import Cluster

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
