"""The directory of saved runs: what is written is read again, its size is bounded, damage is reported."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from aksgpu import errors, history, metrics, runs
from aksgpu.history import frame_file, run_store


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("AKSGPU_HISTORY", str(tmp_path / "history"))
    yield tmp_path / "history"


def facts(job: str = "train", number: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "job": job,
        "namespace": "default",
        "cluster": "demo",
        "uid": f"{number:08x}-0000-0000-0000-000000000000",
        "created": f"2026-11-29T10:{number // 60:02}:{number % 60:02}Z",
        "started": "2026-11-29T10:00:00Z",
        "phase": "Complete",
        **more,
    }


LOG = """2026-11-29T10:00:01.5Z epoch 1 loss=0.9 val_acc=0.5
2026-11-29T10:00:02.5Z epoch 2 loss=nan val_acc=0.7
2026-11-29T10:00:03.5Z step=30 loss=0.3
"""


def table() -> pd.DataFrame:
    reader = metrics.MetricsReader()
    reader.feed(LOG, pod="train-0", attempt=1)
    return reader.frame()


def test_a_table_of_metrics_is_read_as_it_was_written() -> None:
    before = table()
    after = frame_file.from_bytes(frame_file.to_bytes(before))
    pd.testing.assert_frame_equal(after, before)
    assert after.attrs == before.attrs


@pytest.mark.parametrize("values", [[np.nan, np.inf, -np.inf, -0.0, 5e-324], []])
def test_floats_are_exact(values: list[float]) -> None:
    before = pd.DataFrame({"loss": np.array(values, dtype="float64")})
    after = frame_file.from_bytes(frame_file.to_bytes(before))
    assert after["loss"].to_numpy().tobytes() == before["loss"].to_numpy().tobytes()


def test_na_stays_apart_from_empty_text_zero_and_nan() -> None:
    before = pd.DataFrame(
        {
            "text": pd.array(["", None, "ä\n"], dtype="string"),
            "count": pd.array([0, None, -1], dtype="Int64"),
            "share": pd.array([0.0, None, 0.5], dtype="Float64"),
            "flag": pd.array([False, None, True], dtype="boolean"),
        }
    )
    pd.testing.assert_frame_equal(frame_file.from_bytes(frame_file.to_bytes(before)), before)


@pytest.mark.parametrize("cut", [0, 10, 200, -1])
def test_a_damaged_table_is_an_error(cut: int) -> None:
    data = frame_file.to_bytes(table())
    with pytest.raises(ValueError, match=r"."):
        frame_file.from_bytes(data[:cut])


def test_a_saved_run_is_listed_and_read(directory: Path) -> None:
    history.save(facts(usd=0.25, gpus=1, seconds=12.0), LOG, {"metrics": table()})
    listed = runs.list()
    assert listed["run"].tolist() == ["20261129T100000Z-train-00000000"]
    assert listed[["job", "usd", "gpus"]].to_dict("records") == [{"job": "train", "usd": 0.25, "gpus": 1}]
    run = runs.get("train")
    assert run.logs().splitlines()[2] == "step=30 loss=0.3"
    assert run.metrics()["loss"].tolist()[2] == 0.3
    assert [path.stat().st_mode & 0o777 for path in (directory, run._stored.path / "run.json")] == [0o700, 0o600]


def test_saving_again_keeps_what_is_no_longer_known() -> None:
    history.save(facts(usd=0.25, phase="Running"), LOG, {"metrics": table()})
    history.save(facts(usd=None), None, {})
    run = runs.get("train")
    assert run.facts["usd"] == 0.25
    assert run.facts["phase"] == "Complete"
    assert run.logs()
    assert len(run.metrics()) == 3


def test_no_run_and_no_directory() -> None:
    assert runs.list().empty
    assert runs.clear() == 0
    with pytest.raises(errors.NotFound, match="must be the name of a saved run") as caught:
        runs.get("train")
    assert "No run has been saved yet" in caught.value.hint


def test_the_number_of_runs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_store, "MOST_RUNS", 3)
    for number in range(5):
        history.save(facts(number=number), LOG, {})
    assert runs.list()["run"].str.slice(-8).tolist() == ["00000004", "00000003", "00000002"]


def test_the_bytes_of_all_runs_are_bounded(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_store, "MOST_BYTES", 4000)
    for number in range(12):
        history.save(facts(number=number), LOG, {"metrics": table()})
    used = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
    assert 0 < used <= 4000
    assert runs.list()["run"].iloc[0].endswith("0000000b")


def test_a_file_that_another_save_replaces_has_no_size(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history.save(facts(number=1), LOG, {})
    temporary = next(directory.iterdir()) / ".run.json.new"
    temporary.write_text("{")
    stat = Path.stat

    def stat_of_a_file_in_use(path: Path, **options: Any) -> os.stat_result:
        if path == temporary:
            path.unlink()
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", stat_of_a_file_in_use)
    history.save(facts(number=2), LOG, {})
    assert len(runs.list()) == 2


def test_a_save_that_has_not_started_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[int] = []

    class LateThread(threading.Thread):
        """A thread that starts after another one has tried to load the runs."""

        def start(self) -> None:
            loading.start()
            loading.join(0.5)
            super().start()

    def load() -> None:
        loaded.append(len(history.load()))

    def save() -> None:
        history.save(facts(), LOG, {})

    loading = threading.Thread(target=load)
    module = SimpleNamespace(Thread=LateThread, current_thread=threading.current_thread)
    monkeypatch.setattr(run_store, "threading", module)
    history.save_later(save)
    loading.join(60)
    assert loaded == [1]


def test_a_save_whose_thread_cannot_be_started_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoThread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    module = SimpleNamespace(Thread=NoThread, current_thread=threading.current_thread)
    monkeypatch.setattr(run_store, "threading", module)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        history.save_later(lambda: None)
    assert history.load() == []


def test_a_long_log_keeps_its_beginning_and_its_end() -> None:
    line = "2026-11-29T10:00:00.000000000Z " + "x" * 69 + "\n"
    log = "first\n" + line * 60_000 + "last\n"
    history.save(facts(), log, {})
    saved = runs.get("train").logs()
    assert saved.startswith("first\n")
    assert saved.endswith("last\n")
    assert saved.count("[aksgpu: ") == 1
    omitted = runs.get("train").facts["log_bytes_omitted"]
    assert omitted > 0
    assert f"{omitted} bytes of the log were not saved" in saved
    assert "xxxx" + "\n[aksgpu" in saved


def test_a_damaged_run_is_reported_and_left_out(directory: Path) -> None:
    history.save(facts(number=1), LOG, {})
    history.save(facts(number=2), LOG, {})
    damaged = next(directory.glob("*00000001")) / "run.json"
    damaged.write_text("{")
    with pytest.warns(run_store.DamagedRun, match="00000001"):
        assert len(runs.list()) == 1


def test_runs_are_deleted_by_name_and_all_together() -> None:
    for number in range(4):
        history.save(facts(number=number), LOG, {})
    runs.delete("20261129T100001Z-train-00000001")
    with pytest.raises(errors.NotFound):
        runs.delete("20261129T100001Z-train-00000001")
    assert runs.clear(keep=1) == 2
    assert runs.list()["run"].tolist() == ["20261129T100003Z-train-00000003"]


def two_runs() -> runs.Comparison:
    first = facts(number=1, job="a", args=["--lr", "0.1", "--epochs=3"], gpus=1, image="python:3.12", seconds=10.0)
    second = facts(number=2, job="b", args=["--lr", "0.01", "--epochs=3"], gpus=2, image="python:3.12", seconds=20.0)
    history.save(first, LOG, {"metrics": table()})
    history.save(second, LOG, {"metrics": table()})
    return runs.compare(["a", "b"])


def test_a_comparison_has_what_differs_and_only_that() -> None:
    differences = two_runs().differences()
    assert differences.loc["--lr"].tolist() == ["0.1", "0.01"]
    assert differences.loc["gpus"].tolist() == ["1", "2"]
    assert differences.index.tolist() == ["--lr", "seconds", "gpus"]


def test_a_comparison_has_the_best_values() -> None:
    best = two_runs().best()
    rows = best[best["run"] == "a"].set_index("metric")
    assert rows.loc["loss", ["best", "best_step", "last"]].tolist() == [0.3, 30, 0.3]
    assert rows.loc["val_acc", "best"] == 0.7
    assert rows.loc["val_acc", "best_epoch"] == 2


def test_a_comparison_shows_itself_in_a_notebook() -> None:
    html = two_runs()._repr_html_()
    assert "data:image/png;base64," in html
    assert "--lr" in html


def test_a_comparison_prints_the_best_values_and_the_differences() -> None:
    text = repr(two_runs())
    assert text.startswith("Comparison of a, b\n")
    assert "val_acc" in text
    assert "--lr" in text
    assert max(len(line) for line in text.splitlines()) < 200


def test_a_comparison_needs_two_runs() -> None:
    history.save(facts(), LOG, {"metrics": table()})
    with pytest.raises(errors.InvalidInput, match="`runs` must be two runs or more, got 1"):
        runs.compare(["train"])
    with pytest.raises(errors.InvalidInput, match="`runs` must be a list or a dict"):
        runs.compare("train")
    with pytest.raises(errors.InvalidInput, match="each of `runs` must be a Job"):
        runs.compare(["train", 3])  # type: ignore[list-item]  # wrong on purpose


def test_facts_are_json(directory: Path) -> None:
    history.save(facts(message="größer"), LOG, {})
    content = json.loads(next(directory.glob("*/run.json")).read_text())
    assert content["message"] == "größer"
    assert content["format"] == 1
