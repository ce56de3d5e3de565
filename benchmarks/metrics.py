"""Measure how fast metrics.parse reads the output of each family.

    python benchmarks/metrics.py [LINES]

The columns are MB/s, the ratio to one re.findall of a pattern for the family's numbers over the same bytes, the ratio
of the times for twice the bytes and for once, and the ratios to pandas and polars (of the extra `benchmark`), which
read the same numbers from CSV. Times are CPU seconds of this process, the best of three.
"""

from __future__ import annotations

import importlib.util
import io
import json
import re
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from aksgpu import metrics

RATIO = 10
"""Upper limit of the time to read, as a multiple of one re.findall."""
LINEAR = 2.5
"""Upper limit of the time for twice the bytes, as a multiple of the time for once."""


class Family(NamedTuple):
    """Lines of one family.

    Attributes:
        line: returns the text for a number: a line, or all states of a bar.
        pattern: a regular expression for the numbers in the text.
        rows: number of states in the text; 1 for a line.
    """

    line: Callable[[int], str]
    pattern: str
    rows: int = 1


def loss(number: int) -> float:
    """Return a falling loss."""
    return 2 / (1 + number / 1000)


def keras_epoch(number: int) -> str:
    """Return an epoch of Keras 2, with the states of its bar as they are written to a pipe."""
    states = []
    for done in range(25, 1876, 25):
        filled = done * 29 // 1875
        bar = f"{done:4d}/1875 [{'=' * filled}>{'.' * (29 - filled)}] - ETA: {9 - done // 200}s"
        states.append(f"{bar} - loss: {loss(done):.4f} - accuracy: {done / 1875:.4f}")
    drawn = "".join(state + "\b" * len(state) + "\r" for state in states[:-1])
    return f"Epoch {number + 1}/9999\n{drawn}{states[-1]} - val_loss: {loss(number):.4f}\n"


def tqdm_epoch(number: int) -> str:
    """Return an epoch of a tqdm bar that is followed by numbers."""
    states = []
    for done in range(0, 1001, 10):
        bar = f"Epoch {number}: {done // 10:3d}%|{'█' * (done // 100):10}| {done}/1000"
        states.append(f"\r{bar} [00:{done % 60:02d}<00:10, {done / 7:.2f}it/s, loss={loss(done):.3g}, v_num=0]")
    return "".join(states) + "\n"


FAMILIES = {
    "tensorflow tutorial": Family(
        lambda n: f"Accuracy at step {n}: {1 - loss(n) / 2:.4f}\n", r"Accuracy at step (\d+): ([\d.]+)"
    ),
    "pytorch mnist": Family(
        lambda n: f"Train Epoch: {n // 938} [{n % 938 * 64}/60000 ({n % 938 * 100 // 938}%)]\tLoss: {loss(n):.6f}\n",
        r"Train Epoch: (\d+) \[(\d+)/\d+ \(\d+%\)\]\tLoss: ([\d.]+)",
    ),
    "json": Family(
        lambda n: json.dumps({"epoch": n // 1000, "step": n, "loss": loss(n), "lr": 1e-4}) + "\n",
        r'"(\w+)": ([\d.e-]+)',
    ),
    "huggingface": Family(
        lambda n: f"{{'loss': {loss(n):.4f}, 'grad_norm': {loss(n) * 3:.4f}, 'epoch': {n / 1000:.2f}}}\n",
        r"'(\w+)': ([\d.e-]+)",
    ),
    "keras bars": Family(keras_epoch, r"- (\w+): ([\d.]+)", 75),
    "tqdm bars": Family(tqdm_epoch, r"(\w+)=([\d.]+)", 100),
    "xgboost": Family(
        lambda n: f"[{n}]\ttrain-logloss:{loss(n):.5f}\teval-logloss:{loss(n) * 1.1:.5f}\n", r"(\w+-\w+):([\d.]+)"
    ),
    "fairseq": Family(
        lambda n: (
            f"| epoch {n // 1891 + 1:03d}: {n % 1891:6d} / 1891 loss={loss(n):.3f}, ppl={2 ** loss(n):.2f},"
            f" wps={52000 + n % 999}, num_updates={n}, lr=8.90889e-05, gnorm=1.543, clip=0%\n"
        ),
        r"(\w+)=([\d.e-]+)",
    ),
    "openmmlab": Family(
        lambda n: (
            f"2020-05-08 18:56:16,649 - mmdet - INFO - Epoch [{n // 7517 + 1}][{n % 7517}/7517]\tlr: 0.00125,"
            f" eta: 4:33:09, time: 0.595, acc: {99 - loss(n):.4f}, loss: {loss(n):.4f}\n"
        ),
        r"(\w+): ([\d.]+)",
    ),
    "key values": Family(
        lambda n: f"Epoch [{n // 600 + 1}/100], Step [{n % 600 + 1}/600], Loss: {loss(n):.4f}\n",
        r"Epoch \[(\d+)/\d+\], Step \[(\d+)/\d+\], Loss: ([\d.]+)",
    ),
    "no metrics": Family(
        lambda n: f"2026-01-01 10:{n % 60:02d}:00 worker {n % 7} processed chunk {n} in {n / 7:.3f} s\n",
        r"(\w+) ([\d.]+)",
    ),
}


def cpu(call: Callable[[], object]) -> float:
    """Return the least of three CPU times of a call, in seconds."""
    times = []
    for _ in range(3):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return min(times)


def main(lines: int) -> None:
    """Print the table."""
    print(f"{'family':20} {'MB':>6} {'MB/s':>6} {'rows/s':>9} {'/findall':>9} {'twice':>6} {'pandas':>8} {'polars':>8}")
    for name, family in FAMILIES.items():
        count = max(lines // family.rows, 20)
        text = "".join(map(family.line, range(count)))
        double = "".join(map(family.line, range(2 * count)))
        pattern = re.compile(family.pattern)
        once = cpu(lambda text=text: metrics.parse(text))
        twice = cpu(lambda double=double: metrics.parse(double))
        findall = cpu(lambda pattern=pattern, text=text: pattern.findall(text))
        size = len(text.encode()) / 1e6
        frame = metrics.parse(text)
        table = frame.dropna(axis="columns", how="all").to_csv(index=False)
        values = [size, size / once, len(frame) / once, once / findall, twice / once]
        flag = "" if values[3] <= RATIO and values[4] <= LINEAR else "  too slow"
        print(
            f"{name:20} {values[0]:6.2f} {values[1]:6.1f} {values[2]:9,.0f} {values[3]:9.1f} {values[4]:6.2f}"
            f" {with_pandas(table, once):>8} {with_polars(table, once):>8}{flag}"
        )


def with_pandas(table: str, once: float) -> str:
    """Return how many times as long metrics.parse takes as pandas for the same numbers as CSV."""
    if not table.strip():
        return "-"
    return f"{once / cpu(lambda: pd.read_csv(io.StringIO(table))):.1f}x"


def with_polars(table: str, once: float) -> str:
    """Return how many times as long metrics.parse takes as polars for the same numbers as CSV."""
    if importlib.util.find_spec("polars") is None or not table.strip():
        return "-"
    import polars

    return f"{once / cpu(lambda: polars.read_csv(io.BytesIO(table.encode()))):.1f}x"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)
