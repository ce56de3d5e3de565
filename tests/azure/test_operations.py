from __future__ import annotations

import re
import threading
import traceback
from types import SimpleNamespace
from typing import Any

import pytest
from support.interrupts import interrupt_when

from aksgpu import cluster
from aksgpu.azure import Azure
from aksgpu.azure.operations import CallerPolling
from aksgpu.azure.saved_operation import SavedOperation
from aksgpu.errors import (
    AllocationFailed,
    AzureError,
    NodeBootstrapFailed,
    OperationInProgress,
    QuotaExceeded,
    WaitTimeout,
)
from aksgpu.waiting import Interrupted

from .conftest import SUBSCRIPTION, Answer, Script

GROUP = "/resourcegroups/rg$"
ID = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/aks"
CLUSTER = "/managedClusters/aks$"
OPERATION = {"Azure-AsyncOperation": "{base}/operations/1", "retry-after-ms": "20"}
NOT_FOUND = Answer(404, {"error": {"code": "ResourceNotFound", "message": "no such cluster"}})
RUNNING = Answer(200, {"name": "1", "status": "InProgress"}, {"retry-after-ms": "20"})
DONE = Answer(200, {"name": "1", "status": "Succeeded"})


def shown(state: str, **properties: Any) -> dict[str, Any]:
    pool = {"name": "nodepool1", "count": 1, "vmSize": "Standard_D2s_v5", "mode": "System"}
    return {
        "id": ID,
        "name": "aks",
        "type": "Microsoft.ContainerService/ManagedClusters",
        "location": "eastus",
        "properties": {"provisioningState": state, "agentPoolProfiles": [pool], **properties},
    }


def create(azure: Azure, **options: Any) -> cluster.Cluster:
    return cluster.create(azure, "aks", resource_group="rg", location="eastus", preflight=False, **options)


@pytest.fixture(autouse=True)
def group(script: Script) -> None:
    script.on("GET", GROUP, Answer(200, {"id": "rg", "name": "rg", "location": "eastus"}))


def client_threads() -> set[threading.Thread]:
    """Return the threads of this process, except those of the scripted server's connections."""
    return {thread for thread in threading.enumerate() if "process_request_thread" not in thread.name}


def test_an_operation_is_polled_to_its_end_and_leaves_no_thread(scripted: Azure, script: Script) -> None:
    script.on("GET", CLUSTER, NOT_FOUND, Answer(200, shown("Succeeded")))
    script.on("PUT", CLUSTER, Answer(201, shown("Creating"), OPERATION))
    script.on("GET", "/operations/1", RUNNING, RUNNING, DONE)
    before = client_threads()
    made = create(scripted)
    assert repr(made) == "Cluster(aks in rg (eastus))"
    assert cluster.usd_per_hour(made) is None, "the script has no prices"
    assert script.count("GET", "/operations/1") == 3
    assert client_threads() <= before
    assert not SavedOperation(scripted.home, ID).path.exists()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": "QuotaExceeded", "message": "..."}, QuotaExceeded),
        ({"code": "ZonalAllocationFailed", "message": "..."}, AllocationFailed),
        (
            {"code": "VMExtensionProvisioningError", "message": "'vmssCSE' ... terminated with exit status=85"},
            NodeBootstrapFailed,
        ),
    ],
)
def test_a_failed_operation_is_reported_with_status_200(
    scripted: Azure, script: Script, error: dict[str, str], kind: type[AzureError]
) -> None:
    script.on("GET", CLUSTER, NOT_FOUND)
    script.on("PUT", CLUSTER, Answer(201, shown("Creating"), OPERATION))
    script.on("GET", "/operations/1", RUNNING, Answer(200, {"name": "1", "status": "Failed", "error": error}))
    with pytest.raises(kind, match="creating cluster aks") as caught:
        create(scripted)
    assert caught.value.http_status == 200
    assert caught.value.__cause__ is not None
    assert not SavedOperation(scripted.home, ID).path.exists()


def test_after_a_timeout_the_same_call_continues_the_wait(scripted: Azure, script: Script) -> None:
    script.on("GET", CLUSTER, NOT_FOUND)
    script.on("PUT", CLUSTER, Answer(201, shown("Creating"), OPERATION))
    script.on("GET", "/operations/1", RUNNING)
    with pytest.raises(WaitTimeout, match="Run the cell again") as caught:
        create(scripted, timeout=3)
    assert caught.value.state == "Creating"
    kept = SavedOperation(scripted.home, ID).path
    assert kept.stat().st_mode & 0o777 == 0o600
    assert "secret-token" not in kept.read_text()
    script.on("GET", CLUSTER, Answer(200, shown("Creating")), Answer(200, shown("Succeeded")))
    script.on("GET", "/operations/1", RUNNING, DONE)
    assert create(scripted).name == "aks"
    assert script.count("PUT", CLUSTER) == 1
    assert not kept.exists()


def test_progress_shows_the_state_without_additional_requests(
    scripted: Azure, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    script.on("GET", CLUSTER, NOT_FOUND, Answer(200, shown("Creating")))
    script.on("PUT", CLUSTER, Answer(201, shown("Creating"), OPERATION))
    script.on("GET", "/operations/1", RUNNING, RUNNING, RUNNING, DONE)
    create(scripted, progress=True)
    printed = capsys.readouterr().err
    assert re.search(r"creating cluster aks \[00:\d\d\], Creating, node pools ready 0/1", printed)
    assert "InProgress" not in printed
    # One read before each poll, and reads at the start and the end.
    assert script.count("GET", "/operations/1") == 4
    assert script.count("GET", CLUSTER) == 4 + 2


@pytest.mark.parametrize(
    ("method", "url", "words"),
    [
        ("DELETE", "https://x/managedClusters/aks?api-version=1", "Deleting"),
        ("POST", "https://x/aks/stop?a=1", "Stopping"),
    ],
)
def test_an_operation_without_a_body_is_named_after_its_request(method: str, url: str, words: str) -> None:
    polling = CallerPolling(1)
    request = SimpleNamespace(method=method, url=url)
    polling._initial_response = SimpleNamespace(http_response=SimpleNamespace(text=lambda: "", request=request))
    polling.status = lambda: "InProgress"
    assert polling.state() == words


def test_a_failure_is_reported_to_the_call_that_continues_the_operation(scripted: Azure, script: Script) -> None:
    script.on("GET", CLUSTER, NOT_FOUND, Answer(200, shown("Creating")))
    script.on("PUT", CLUSTER, Answer(201, shown("Creating"), OPERATION))
    script.on("GET", "/operations/1", RUNNING)
    with pytest.raises(WaitTimeout):
        create(scripted, timeout=3)
    error = {"code": "AllocationFailed", "message": "Allocation failed."}
    script.on("GET", "/operations/1", Answer(200, {"name": "1", "status": "Failed", "error": error}))
    with pytest.raises(AllocationFailed):
        create(scripted)


def test_an_operation_started_elsewhere_is_awaited(scripted: Azure, script: Script) -> None:
    script.on("GET", CLUSTER, *[Answer(200, shown("Creating"))] * 2, Answer(200, shown("Succeeded")))
    assert create(scripted).name == "aks"
    assert script.count("PUT", CLUSTER) == 0


def test_a_failed_operation_started_elsewhere_is_reported_with_its_reason(scripted: Azure, script: Script) -> None:
    error = {"code": "AllocationFailed", "message": "Allocation failed."}
    failed = shown("Failed", status={"provisioningError": error})
    script.on("GET", CLUSTER, Answer(200, shown("Creating")), Answer(200, failed))
    with pytest.raises(AllocationFailed):
        create(scripted)


def test_an_operation_that_azure_has_forgotten_is_read_from_the_cluster(scripted: Azure, script: Script) -> None:
    SavedOperation(scripted.home, ID).save("creating cluster aks", "bm90IGEgdG9rZW4=")
    script.on("GET", CLUSTER, Answer(200, shown("Creating")), Answer(200, shown("Succeeded")))
    assert create(scripted).name == "aks"


def test_a_cluster_whose_creation_failed_is_created_again(scripted: Azure, script: Script) -> None:
    script.on("GET", CLUSTER, Answer(200, shown("Failed")), Answer(200, shown("Succeeded")))
    script.on("PUT", CLUSTER, Answer(200, shown("Updating"), OPERATION))
    script.on("GET", "/operations/1", DONE)
    assert create(scripted).name == "aks"
    assert script.count("PUT", CLUSTER) == 1


def test_an_interrupt_leaves_the_operation_running_and_says_how_to_continue(scripted: Azure, script: Script) -> None:
    script.on("GET", CLUSTER, NOT_FOUND)
    script.on("PUT", CLUSTER, Answer(201, shown("Creating"), OPERATION))
    script.on("GET", "/operations/1", Answer(200, {"name": "1", "status": "InProgress"}, {"Retry-After": "30"}))
    polled = interrupt_when(lambda: script.count("GET", "/operations/1"))
    with polled, pytest.raises(KeyboardInterrupt) as caught:
        create(scripted)
    assert str(caught.value) == (
        "creating cluster aks: the creation continues in Azure; "
        "cluster.create(...) with the same arguments waits for it."
    )
    assert caught.value.__context__ is None, "no screen of frames"
    assert len(traceback.extract_tb(caught.value.__traceback__)) <= 3
    assert SavedOperation(scripted.home, ID).path.exists()


def test_an_interrupt_before_the_first_request_reports_that_nothing_was_sent(scripted: Azure, script: Script) -> None:
    script.on("GET", CLUSTER, Answer(503, None, {"Retry-After": "30"}))
    with interrupt_when(lambda: script.count("GET", CLUSTER)), pytest.raises(Interrupted) as caught:
        create(scripted)
    assert str(caught.value) == "creating cluster aks: nothing was started in Azure."
    assert caught.value.__context__ is None


BUSY = {
    "code": "OperationNotAllowed",
    "details": None,
    "subcode": "",
    "message": "Operation is not allowed: Another operation (Updating) is in progress, please wait for it to finish "
    "before starting a new operation. See https://aka.ms/aks-pending-operation for more details",
}


def test_a_creation_by_another_caller_is_awaited_and_returned(scripted: Azure, script: Script) -> None:
    script.on("GET", CLUSTER, NOT_FOUND, Answer(200, shown("Updating")), Answer(200, shown("Succeeded")))
    script.on("PUT", CLUSTER, Answer(409, BUSY))
    assert create(scripted).name == "aks"
    assert script.count("PUT", CLUSTER) == 1


def test_another_operation_is_awaited(scripted: Azure, script: Script) -> None:
    others = Answer(200, shown("Failed"))
    script.on(
        "GET", CLUSTER, NOT_FOUND, Answer(200, shown("Updating")), others, others, Answer(200, shown("Succeeded"))
    )
    script.on("PUT", CLUSTER, Answer(409, BUSY), Answer(200, shown("Succeeded")))
    assert create(scripted).name == "aks"
    assert script.count("PUT", CLUSTER) == 2


def test_waiting_for_another_operation_has_a_limit(scripted: Azure, script: Script) -> None:
    script.on("GET", CLUSTER, NOT_FOUND)
    script.on("PUT", CLUSTER, Answer(409, BUSY))
    with pytest.raises(OperationInProgress) as caught:
        create(scripted, timeout=3)
    assert caught.value.operation == "Updating"


def test_throttling_waits_for_the_requested_time(scripted: Azure, script: Script) -> None:
    throttled = {"error": {"code": "Throttled", "message": "please retry again in 1 seconds."}}
    script.on("GET", CLUSTER, NOT_FOUND)
    script.on("PUT", CLUSTER, Answer(429, throttled, {"Retry-After": "1"}), Answer(200, shown("Succeeded")))
    assert create(scripted).name == "aks"
    assert script.count("PUT", CLUSTER) == 2


def test_a_throttled_creation_that_another_caller_completed_is_not_repeated(scripted: Azure, script: Script) -> None:
    throttled = {"error": {"code": "Throttled", "message": "please retry again in 1 seconds."}}
    script.on("GET", CLUSTER, NOT_FOUND, Answer(200, shown("Succeeded")))
    script.on("PUT", CLUSTER, Answer(429, throttled, {"Retry-After": "1"}))
    assert create(scripted).name == "aks"
    assert script.count("PUT", CLUSTER) == 1


def test_a_running_deletion_is_awaited_before_a_creation(scripted: Azure, script: Script) -> None:
    script.on("GET", CLUSTER, *[Answer(200, shown("Deleting"))] * 2, NOT_FOUND)
    script.on("PUT", CLUSTER, Answer(200, shown("Succeeded")))
    assert create(scripted).name == "aks"
