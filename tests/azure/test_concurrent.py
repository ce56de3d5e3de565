"""Many threads, and two processes, do the same thing at the same time. Each call returns soon after it is done."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import aksgpu
from aksgpu import cluster
from aksgpu.azure import Azure
from aksgpu.local import Endpoint

CALLERS = 20
LONGEST = 120.0
"""Seconds that all callers together may take. One operation takes less than a second."""


def at_once(call: Callable[[], Any], callers: int = CALLERS) -> list[Any]:
    """Call in many threads at once and return all results, or raise the first error."""
    results: list[Any] = []
    errors: list[BaseException] = []
    together = threading.Barrier(callers)

    def run() -> None:
        together.wait()
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(callers)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + LONGEST
    for thread in threads:
        thread.join(max(0.1, until - time.monotonic()))
    if errors:
        raise errors[0]
    assert len(results) == callers, f"{callers - len(results)} callers still wait"
    return results


def processes(laptop: Endpoint, line: str) -> list[str]:
    """Run a line of code in two processes at once, and return what they print."""
    program = f"""if True:
        import json, sys
        from pathlib import Path
        import aksgpu
        from aksgpu import cluster
        from aksgpu.local import Endpoint
        given = json.loads(sys.argv[1])
        azure = aksgpu.connect(Endpoint(**given | {{"home": Path(given["home"]), "ca_file": Path(given["ca_file"])}}))
        wish = {{"resource_group": "crowd", "location": "eastus"}}
        print({line})
    """
    given = json.dumps(
        {
            "base_url": laptop.base_url,
            "subscription_id": laptop.subscription_id,
            "token": laptop.token,
            "ca_file": str(laptop.ca_file),
            "home": str(laptop.home),
        }
    )
    command = [sys.executable, "-W", "ignore", "-c", program, given]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    return [process.communicate(timeout=LONGEST)[0].strip() for process in running]


@pytest.fixture(scope="module", autouse=True)
def group(request: pytest.FixtureRequest) -> Any:
    azure = aksgpu.connect(request.getfixturevalue("laptop"))
    path = f"/subscriptions/{azure.subscription_id}/resourcegroups/crowd"
    azure.request("PUT", path, api_version="2021-04-01", body={"location": "eastus"})
    yield
    azure.request("DELETE", path, api_version="2021-04-01")


def create(azure: Azure, name: str) -> cluster.Cluster:
    return cluster.create(azure, name, resource_group="crowd", location="eastus")


def test_many_threads_create_scale_and_delete_one_cluster(azure: Azure) -> None:
    made = at_once(lambda: create(azure, "threads"))
    assert len({aks.id for aks in made}) == 1
    aks = made[0]
    pools = at_once(lambda: cluster.add_gpu_pool(aks, "gpunp"))
    assert {pool.count for pool in pools} == {1}
    assert cluster.list_pools(aks)["state"].tolist() == ["Succeeded", "Succeeded"]
    scaled = at_once(lambda: cluster.scale_pool(aks, "gpunp", 2))
    assert {pool.count for pool in scaled} == {2}
    stopped = at_once(lambda: cluster.stop_pool(aks, "gpunp"), 5)
    assert {pool.power for pool in stopped} == {"Stopped"}
    assert True in at_once(lambda: cluster.delete_pool(aks, "gpunp"))
    assert cluster.list_pools(aks)["pool"].tolist() == ["nodepool1"]
    deleted = at_once(lambda: cluster.delete(aks))
    assert "threads" in {deletion.cluster for deletion in deleted}
    assert "threads" not in cluster.list(azure)["cluster"].tolist()


def test_two_processes_do_the_same(azure: Azure, laptop: Endpoint) -> None:
    assert processes(laptop, 'cluster.create(azure, "twice", **wish).name') == ["twice"] * 2
    added = 'cluster.add_gpu_pool(cluster.get(azure, "twice", resource_group="crowd"), "gpunp").count'
    assert processes(laptop, added) == ["1"] * 2
    scaled = 'cluster.scale_pool(cluster.get(azure, "twice", resource_group="crowd"), "gpunp", 2).count'
    assert processes(laptop, scaled) == ["2"] * 2
    aks = cluster.get(azure, "twice", resource_group="crowd")
    assert cluster.list_pools(aks)["count"].tolist() == [2, 1]
    cluster.delete(aks)
