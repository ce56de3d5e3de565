"""A function of this process runs in a pod, and its value or exception comes back."""

from __future__ import annotations

import os
import pickle
import socket
import traceback
from typing import Any

import pytest
from support.polling import wait_for

import aksgpu
from aksgpu import errors, jobs
from aksgpu.cluster import Cluster

TIMEOUT = 120
FACTOR = 3


class Point:
    """A class of a module that the pod does not have."""

    def __init__(self, x: float) -> None:
        self.x = x


class LearningRateError(ValueError):
    """An exception with arguments of its own."""

    def __init__(self, rate: float, limit: float) -> None:
        super().__init__(f"{rate} is above {limit}")
        self.rate = rate
        self.limit = limit

    def __reduce__(self) -> Any:
        return LearningRateError, (self.rate, self.limit)


def where(number: int, *, factor: int = 1) -> dict[str, Any]:
    aksgpu.log(step=1, loss=0.5)
    return {
        "value": number * factor * FACTOR,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "job": os.environ["HOSTNAME"],
    }


def too_fast(rate: float) -> None:
    limit = 0.1
    raise LearningRateError(rate, limit)  # the line that the traceback shows


def test_a_function_runs_in_another_process_and_its_value_comes_back(cpu: jobs.Executor) -> None:
    job = cpu.submit(where, 2, factor=5)
    found = job.result(TIMEOUT)
    assert found["value"] == 30
    assert found["pid"] != os.getpid()
    assert found["job"].startswith(job.name)
    assert '{"step": 1, "loss": 0.5}' in job.logs()


def test_another_kernel_gets_the_value_by_the_name(cpu: jobs.Executor, aks: Cluster) -> None:
    job = cpu.submit(where, 2)
    assert jobs.get(aks, job.name).result(TIMEOUT)["value"] == 6


def test_a_class_of_this_module_travels_with_its_instances(cpu: jobs.Executor) -> None:
    moved = cpu.submit(lambda point: Point(point.x + 1), Point(1.5)).result(TIMEOUT)
    assert isinstance(moved, Point)
    assert moved.x == 2.5


def test_the_original_exception_is_raised_with_the_remote_source_lines(cpu: jobs.Executor) -> None:
    job = cpu.submit(too_fast, 0.5)
    with pytest.raises(LearningRateError) as raised:
        job.result(TIMEOUT)
    assert (raised.value.rate, raised.value.limit) == (0.5, 0.1)
    shown = "".join(traceback.format_exception(raised.value))
    assert "raise LearningRateError(rate, limit)  # the line that the traceback shows" in shown
    assert "in too_fast" in shown
    assert "runner.py" not in shown
    assert "LearningRateError: 0.5 is above 0.1" in job.logs()


def test_raw_bytes_are_returned_without_unpickling(cpu: jobs.Executor) -> None:
    assert pickle.loads(cpu.submit(where, 2).result(TIMEOUT, raw=True))["value"] == 6


def test_a_job_of_a_manifest_has_no_result(aks: Cluster) -> None:
    job = jobs.submit(aks, image="busybox", command=["true"], gpus=0, name="plain")
    with pytest.raises(errors.InvalidInput, match=r"must be created by jobs\.Executor"):
        job.result(TIMEOUT)
    job.delete()


def test_the_job_and_its_secrets_disappear_together(cpu: jobs.Executor, aks: Cluster) -> None:
    job = cpu.submit(where, 2)
    job.result(TIMEOUT)
    selector = f"aksgpu.dev/executor={job.name}"
    assert aks.kube.list("Secret", label_selector=selector)
    job.delete()
    wait_for(lambda: aks.kube.list("Secret", label_selector=selector) == [], 60)
