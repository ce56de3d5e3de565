"""The tutorial with the library, from an empty subscription to an accuracy curve and back, on a private laptop AKS."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import aksgpu
from aksgpu import capacity, cluster, errors, jobs, local, manifests, plugin, waiting

GROUP = "myResourceGroup"
T4 = "Standard_NC4as_T4_v3"


pytest_plugins = ["aksgpu.local.testing", "support.laptop_cluster"]


def walk(aks: cluster.Cluster, version: Any) -> None:
    """Sections two to five of the tutorial."""
    assert capacity.gpus(aks)["allocatable"].tolist() == [0]
    plugin.install(aks, manifest=manifests.device_plugin(version), timeout=60)
    assert capacity.gpus(aks)[["capacity", "allocatable", "free"]].values.tolist() == [[1, 1, 1]]
    job = jobs.apply(aks, manifests.mnist(version, max_steps=60))
    job.wait(120)
    assert job.status().phase == "Complete"
    accuracy = job.metrics()
    assert accuracy["step"].tolist() == list(range(0, 60, 10))
    assert accuracy["accuracy"].iloc[-1] > accuracy["accuracy"].iloc[0]
    assert "simulated" in job.logs()
    assert list(job.follow()) == job.logs().splitlines()
    assert len(job.plot().axes) == 1
    job.delete()
    assert jobs.list(aks).empty


def test_the_current_tutorial_from_start_to_end(azure: Any) -> None:
    aks = cluster.create(azure, "myAKSCluster", resource_group=GROUP, location="eastus")
    cluster.add_gpu_pool(aks, "gpunp", vm_size=T4, count=1)
    walk(aks, "current")
    plugin.remove(aks)
    cluster.delete(aks)
    with pytest.raises(errors.AzureNotFound):
        cluster.get(azure, "myAKSCluster", resource_group=GROUP)


def test_the_tutorial_of_2020_from_start_to_end(azure: Any) -> None:
    aks = cluster.create(azure, "of2020", resource_group=GROUP, location="eastus", vm_size=T4, node_count=1)
    assert capacity.gpus(aks)["taints"].tolist() == [""]
    walk(aks, "2020")
    cluster.delete(aks)


def test_a_recreated_cluster_refuses_the_old_credentials(azure: Any) -> None:
    aks = cluster.create(azure, "again", resource_group=GROUP, location="eastus")
    assert jobs.list(aks).empty
    cluster.delete(aks)
    fresh = cluster.create(azure, "again", resource_group=GROUP, location="eastus")
    with pytest.raises((errors.Unauthorized, errors.NotFound)):
        jobs.list(aks)
    assert jobs.list(fresh).empty
    cluster.delete(fresh)


def test_a_job_survives_the_laptop_being_killed(tmp_path: Path) -> None:
    with local.laptop(time_scale=0.05) as endpoint:
        azure = aksgpu.connect(endpoint)
        aks = cluster.create(azure, "myAKSCluster", resource_group=GROUP, location="eastus")
        command = ["sh", "-c", "for i in $(seq 1 40); do echo line $i; sleep 0.1; done"]
        job = jobs.submit(aks, image="docker.io/library/busybox:1", command=command, gpus=0, name="long")
        lines = job.follow()
        got = [next(lines) for _ in range(3)]
        pid = json.loads((endpoint.home / "laptop.json").read_text())["pid"]
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(errors.Unreachable, match="no response") as raised, waiting.deadline(1):
            job.status()
        assert "aksgpu.connect(" in raised.value.hint
        local.start(endpoint.home)
        got += lines
        assert got == [f"line {i}" for i in range(1, 41)]
        assert job.wait(120).status().phase == "Complete"
