"""Properties of the reader: pieces give the same rows as the whole log, and the fast path the same as the plain one."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aksgpu import metrics
from aksgpu.metrics import templates
from aksgpu.metrics.formats import FORMATS

DATA = Path(__file__).parent.parent / "data"
LOGS = sorted([*(DATA / "logs").glob("*.txt"), *(DATA / "recorded-logs").glob("*.log")])
WHOLE = b"\n".join(path.read_bytes() for path in LOGS)

LOGS_OF_TABLES = [
    DATA / "logs" / f"{name}.txt"
    for name in ("csv", "detectron2", "markdown-table", "ray-tune", "skorch-colours", "stable-baselines3", "xgboost")
]

EXAMPLES = [
    *(form.example for form in FORMATS),
    "step 0: train loss 10.9910, val loss 10.9902",
    "train loss 1.03, val acc 90.5%",
    "Test set: Average loss: 0.1015, Accuracy: 9660/10000 (97%)",
    "9/9 - 0s - 3ms/step - accuracy: 0.5104 - loss: 0.8190 - val_loss: 0.9256",
    "Epoch 3 | Accuracy: 9660/10000 (96.6%)",
    "loss=0.5 lr=1e-05",
    "loss: 1,234",
    "error: 404",
    "listening on 10.0.0.4:8080",
    "3 packets transmitted, 0% packet loss",
    "12.5s elapsed, f1 0.5",
    "top1 0.75 top5 0.9",
    "precision: 16",
    "Epoch 7/20",
    "│  test_acc  │  0.91  │",
    "loss: 0.34:  45%|####5     | 45/100 [00:01<00:01, 40.1it/s]",
]
PREFIXES = [
    "",
    "2026-11-24T06:00:00.123456789Z ",
    "[rank0]: ",
    "[1,0]<stdout>:",
    "[pod/a-b-c12de/main] ",
    "INFO:root:",
    "2025-06-18 00:36:02 [INFO] ",
    "2020-05-08 18:56:16,649 - mmdet - INFO - ",
    "[2021-11-26 03:07:16,494] [INFO] [logging.py:69:log_dist] ",
]


def same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    for name in ("unread", "canonical", "step_kind", "percent", "dropped_names", "node_messages"):
        assert one.attrs[name] == other.attrs[name], name


def read(log: bytes, cuts: list[int]) -> pd.DataFrame:
    reader = metrics.MetricsReader()
    for start, end in zip([0, *cuts], [*cuts, len(log)], strict=True):
        reader.feed(log[start:end])
    return reader.frame()


@settings(max_examples=5, deadline=None)
@given(st.lists(st.integers(0, len(WHOLE)), max_size=12).map(sorted), st.booleans())
def test_pieces_give_the_same_rows_as_the_whole(cuts: list[int], look: bool) -> None:
    whole = metrics.parse(WHOLE)
    reader = metrics.MetricsReader()
    for start, end in zip([0, *cuts], [*cuts, len(WHOLE)], strict=True):
        reader.feed(WHOLE[start:end])
        if look:
            reader.frame()
    frame = reader.frame()
    same(frame, whole)
    assert frame.attrs["formats"] == whole.attrs["formats"]


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.name)
def test_single_bytes_give_the_same_rows_as_the_whole(path: Path) -> None:
    log = path.read_bytes()[:3000]
    same(read(log, list(range(1, len(log)))), metrics.parse(log))


def plain(log: str, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    with monkeypatch.context() as patch:
        patch.setattr(templates, "LEARN_AFTER", 10**9)
        return metrics.parse(log)


def other_digits(line: str, chooser: random.Random) -> str:
    """Return a line of nearly the same shape: other digits, sometimes more or fewer, and sometimes nan."""

    def digits(run: re.Match[str]) -> str:
        kind = chooser.random()
        if kind < 0.03:
            return "0"
        if kind < 0.85:
            return "".join(chooser.choice("0123456789") for _ in run[0])
        return "".join(chooser.choice("0123456789") for _ in range(chooser.randint(1, 12)))

    changed = re.sub(r"(?<![A-Za-z_@])\d+", digits, line)
    if chooser.random() < 0.05:
        changed = re.sub(
            r"(?<![\w.])\d+\.\d+", lambda _: chooser.choice(["nan", "inf", "-0.0", "1e5"]), changed, count=1
        )
    return changed


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_fast_path_gives_the_same_rows_as_the_plain_one(example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chooser = random.Random(example)
    for prefix in chooser.sample(PREFIXES, 3):
        lines = [other_digits(prefix, chooser) + other_digits(example, chooser) for _ in range(30)]
        log = "".join(line + "\n" for line in lines)
        same(metrics.parse(log), plain(log, monkeypatch))


@pytest.mark.parametrize("path", LOGS_OF_TABLES, ids=lambda path: path.stem)
def test_tables_give_the_same_rows_on_both_paths(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of a table have another meaning after its header or its end, so they must not be read by a template."""
    chooser = random.Random(path.name)
    lines = path.read_text().splitlines()
    log = "".join(other_digits(line, chooser) + "\n" for _ in range(12) for line in lines)
    same(metrics.parse(log), plain(log, monkeypatch))


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(EXAMPLES), min_size=2, max_size=4), st.integers(0, 2**32))
def test_mixed_families_give_the_same_rows_on_both_paths(examples: list[str], seed: int) -> None:
    chooser = random.Random(seed)
    log = "".join(other_digits(chooser.choice(examples), chooser) + "\n" for _ in range(80))
    with pytest.MonkeyPatch.context() as patch:
        same(metrics.parse(log), plain(log, patch))


def test_repeated_recorded_logs_give_the_same_rows_on_both_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    log = (WHOLE * 3).decode()
    same(metrics.parse(log), plain(log, monkeypatch))


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200))
def test_no_text_raises_an_exception(text: str) -> None:
    frame = metrics.parse(text)
    assert frame.columns[:2].tolist() == ["step", "epoch"]


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["loss", "val_loss", "acc", "grad_norm", "lr"]), st.floats(width=64), min_size=1, max_size=4
    ),
    st.integers(0, 2**53),
)
def test_every_number_of_a_json_line_is_returned(values: dict[str, float], step: int) -> None:
    frame = metrics.parse(json.dumps({"step": step, **values}) + "\n")
    assert frame["step"].tolist() == [step]
    found = frame.iloc[0][list(values)].astype(float)
    pd.testing.assert_series_equal(found, pd.Series(values), check_names=False, check_exact=True)


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES)
def test_the_fast_path_gives_the_same_rows_after_each_prefix(example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chooser = random.Random(f"{example} again")
    for prefix in PREFIXES:
        lines = [other_digits(prefix, chooser) + other_digits(example, chooser) for _ in range(60)]
        log = "".join(line + "\n" for line in lines)
        same(metrics.parse(log), plain(log, monkeypatch))
