"""How long a function's way to a pod and back takes, beside the time of a pod that runs ``true``.

    python benchmarks/functions.py            # on a private laptop AKS

Each row is the median of several runs, in seconds, and its ratio to the floor: the same Job with the program ``true``
in place of the runner, from its creation until its pod has succeeded.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import aksgpu
from aksgpu import cluster, jobs
from aksgpu.cluster import Cluster
from aksgpu.local.process import laptop
from aksgpu.payload.packing import pack_call

HERE = Path(__file__).parent


def nothing() -> None:
    """Do nothing."""


def first_line() -> None:
    """Print a line, then wait, so that the line is seen before the end."""
    print("started", flush=True)
    time.sleep(0.5)


def noise(size: int) -> bytes:
    """Return a value that cannot be compressed."""
    return os.urandom(size)


def median(call: Callable[[], float], runs: int) -> float:
    """Return the median of several measurements."""
    return statistics.median(call() for _ in range(runs))


def floor(aks: Cluster) -> float:
    """Return the seconds of a Job whose program is ``true``."""
    began = time.perf_counter()
    job = jobs.submit(aks, image="python:3", command=["true"], gpus=0, name=f"floor-{time.monotonic_ns()}")
    while not any(pod["status"].get("phase") == "Succeeded" for pod in pods_of(aks, job)):
        time.sleep(0.01)
    return time.perf_counter() - began


def pods_of(aks: Cluster, job: jobs.Job) -> list[dict[str, dict[str, str]]]:
    """Return the Pod objects of a Job."""
    return aks.kube.list("Pod", job.namespace, label_selector=f"batch.kubernetes.io/job-name={job.name}")


def to_result(cpu: jobs.Executor, function: Callable[..., object], *args: object) -> float:
    """Return the seconds from submit until the value is there."""
    began = time.perf_counter()
    cpu.submit(function, *args).result(timeout=300)
    return time.perf_counter() - began


def to_first_line(cpu: jobs.Executor) -> float:
    """Return the seconds from submit until the first line of the log."""
    began = time.perf_counter()
    job = cpu.submit(first_line)
    next(job.follow())
    took = time.perf_counter() - began
    job.result(timeout=300)
    return took


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    os.environ["AKSGPU_PROGRESS"] = "0"
    with laptop(time_scale=0.05) as endpoint:
        aks = cluster.create(aksgpu.connect(endpoint), "bench", resource_group="bench", location="eastus")
        cpu = jobs.Executor(aks, gpus=0, root=HERE)
        to_result(cpu, nothing)
        lowest = median(lambda: floor(aks), runs)
        rows = {
            "floor: a Job with `true`": lowest,
            "submit to first line": median(lambda: to_first_line(cpu), runs),
            "submit to result": median(lambda: to_result(cpu, nothing), runs),
            "submit to result of 1 MB": median(lambda: to_result(cpu, noise, 1_000_000), runs),
            "submit to result of 4 MB": median(lambda: to_result(cpu, noise, 4_000_000), runs),
        }
    for what, seconds in rows.items():
        print(f"{what:<28}{seconds:>8.3f} s   {seconds / lowest:>5.2f} x floor")
    for size in (0, 100_000, 1_000_000):
        payload = pack_call(len, (os.urandom(size),), {}, root=HERE)
        print(f"payload of {size:>9,} bytes: {len(payload.body):>9,} bytes in {len(payload.secrets())} Secrets")


if __name__ == "__main__":
    main()
