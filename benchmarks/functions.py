"""Measure how long functions take as Jobs and in a session, each beside a floor.

    python benchmarks/functions.py          # on a laptop AKS of its own; prints a table in Markdown
    pip install submitit                    # to compare with submitit's local executor

Each time is the best of three runs. The floor is the least that the work could cost on the same cluster.
"""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

REPEAT = 3
MEBIBYTE = 2**20
LARGE_BYTES = 20 * MEBIBYTE
NAMES = iter(range(1000))


def first_line() -> int:
    """What the Jobs run."""
    print("first line", flush=True)
    return 7


def best(measure: Callable[[], float]) -> float:
    """Return the smallest of several measurements."""
    return min(measure() for _ in range(REPEAT))


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds of some work."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Functions:
    """Jobs of functions on a cluster, and the least that they could cost."""

    def __init__(self, aks: Any) -> None:
        from aksgpu import jobs

        self.aks = aks
        self.jobs = jobs
        self.gpu = jobs.Executor(aks, gpus=0)

    def bare(self, command: str) -> Any:
        """Start a Job of the same image without the library's runner."""
        return self.jobs.submit(
            self.aks,
            image=self.gpu.options.image,
            command=["sh", "-c", command],
            gpus=0,
            name=f"bare-{next(NAMES)}",
        )

    def submit(self) -> float:
        """Return the seconds until ``submit`` returns."""
        began = time.perf_counter()
        job = self.gpu.submit(first_line)
        took = time.perf_counter() - began
        job.result()
        return took

    def bare_submit(self) -> float:
        """Return the seconds until a Job that runs ``true`` is created."""
        began = time.perf_counter()
        job = self.bare("true")
        took = time.perf_counter() - began
        job.wait()
        return took

    def to_first_line(self, job: Callable[[], Any]) -> float:
        """Return the seconds from the call to the first line that is printed."""
        began = time.perf_counter()
        lines: Iterator[str] = job().follow()
        next(lines)
        took = time.perf_counter() - began
        list(lines)
        return took

    def rows(self) -> Iterator[tuple[str, float, str, float]]:
        """Yield the rows of the table of Jobs."""
        yield "`submit` returns", best(self.submit), "creating a Job that runs `true`", best(self.bare_submit)
        measured = best(lambda: self.to_first_line(lambda: self.gpu.submit(first_line)))
        floor = best(lambda: self.to_first_line(lambda: self.bare("echo first line")))
        yield "`submit` to the first line", measured, "the same pod with `echo`", floor
        measured = best(lambda: timed(lambda: self.gpu.submit(first_line).result()))
        floor = best(lambda: timed(lambda: self.bare("true").wait()))
        yield "`submit` to `result()`", measured, "the same pod with `true`, waited for", floor
        yield from submitit_rows(measured)
        for size in (1_000_000, 4_000_000):
            took = best(lambda size=size: timed(lambda: self.gpu.submit(os.urandom, size).result()))
            yield f"`submit` to a result of {size // 1_000_000} MB", took, "the same pod with `true`, waited for", floor

    def session_rows(self) -> Iterator[tuple[str, float, str, float]]:
        """Yield the rows of the table of sessions."""
        floor = best(lambda: timed(lambda: self.bare("true").wait()))
        with self.gpu.session() as session:
            took = timed(lambda: session(first_line))
            yield "session: first call, with the pod's start", took, "the same pod with `true`, waited for", floor
            pod = str(session.job.pods()["pod"].iloc[0])
            floor = best(lambda: timed(lambda: self.run_in(pod, ["true"])))
            yield "session: second call", best(lambda: timed(lambda: session(first_line))), "`exec` of `true`", floor
            data = os.urandom(LARGE_BYTES)
            took = best(lambda: timed(lambda: session(len, data)))
            floor = best(lambda: timed(lambda: self.run_in(pod, ["sh", "-c", "cat >/dev/null"], data)))
            yield "session: an argument of 20 MiB", took, "`exec` of `cat` with it as input", floor

    def run_in(self, pod: str, command: list[str], data: bytes | None = None) -> None:
        """Run a program in a pod until it ends."""
        with self.aks.kube.exec(pod, command, container="main", stdin=data is not None) as program:
            program.communicate(data)


def submitit_rows(measured: float) -> Iterator[tuple[str, float, str, float]]:
    """Yield the row that compares with submitit, if that is installed."""
    try:
        import submitit
    except ImportError:
        print("submitit is not installed, so its row is left out", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as directory:
        executor = submitit.AutoExecutor(directory, cluster="local")
        took = best(lambda: timed(lambda: executor.submit(first_line).result()))
    yield "... and submitit's local executor", measured, "submitit, which starts a process without a cluster", took


def print_times(rows: Iterator[tuple[str, float, str, float]]) -> None:
    """Print a table of times."""
    print("| | measured | floor | ratio |\n|---|---|---|---|")
    for what, took, against, floor in rows:
        print(f"| {what} | {took:.2f} s | {against}: {floor:.2f} s | {took / floor:.1f} |", flush=True)


def print_sizes() -> None:
    """Print a table of the bytes that travel."""
    import numpy as np

    from aksgpu.payload.packing import pack_call
    from aksgpu.payload.script_packing import pack_script, read_script
    from aksgpu.payload.session_packing import pack_session_call

    root = Path(__file__).parent
    array = np.random.default_rng(0).random(MEBIBYTE // 8)
    calls: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "a small function": (first_line, ()),
        "a function with 1 MiB of random numbers": (len, (array,)),
    }
    print("| | as a Job | in a session | floor: its pickle |\n|---|---|---|---|")
    for what, (function, args) in calls.items():
        payload = pack_call(function, args, {}, root=root)
        secrets = sum(len(content) for each in payload.secrets() for content in each.values())
        packed = pack_session_call(function, args, {}, root=root, is_same_python=True)
        message = sum(map(len, packed.entries.values()))
        pickled = len(pickle.dumps((function, args, {})))
        print(f"| {what} | {secrets:,} bytes | {message:,} bytes | {pickled:,} bytes |")
    payload, _ = pack_script(read_script(__file__, root=root), ())
    secrets = sum(len(content) for each in payload.secrets() for content in each.values())
    size = Path(__file__).stat().st_size
    print(f"| this script | {secrets:,} bytes | | the file: {size:,} bytes |")


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["AKSGPU_HOME"] = home
        os.environ["AKSGPU_PROGRESS"] = "0"
        import aksgpu
        from aksgpu import cluster, local

        try:
            azure = aksgpu.connect()
            aks = cluster.create(azure, "benchmark", resource_group="benchmark", location="eastus")
            functions = Functions(aks)
            functions.gpu.submit(first_line).result()
            print_times(functions.rows())
            print()
            print_times(functions.session_rows())
            print()
            print_sizes()
        finally:
            local.stop()


if __name__ == "__main__":
    main()
