from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.polling import wait_for

import aksgpu
from aksgpu import cluster, local
from aksgpu.azure import Azure, resources
from aksgpu.cluster import expiry
from aksgpu.cluster.leftover_resources import delete_within_call
from aksgpu.errors import (
    AksGpuError,
    AzureConflict,
    AzureError,
    AzureNotFound,
    AzureUnreachable,
    InvalidInput,
    SizeNotAvailable,
    WaitTimeout,
)

from .conftest import Answer, Script


def timers(name: str) -> list[threading.Timer]:
    """Return the timers that will delete a cluster of this name."""
    running = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    return [timer for timer in running if timer.name == f"aksgpu-delete-{name}" and not timer.finished.is_set()]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("2h", 7200), ("1.5 m", 90), ("1d", 86400), (timedelta(minutes=1), 60)]
)
def test_durations(text: Any, seconds: float) -> None:
    assert expiry.check_lifetime(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["2", "h", "-1h", "0s", "99d", "two hours", timedelta()])
def test_invalid_durations(text: Any) -> None:
    with pytest.raises(InvalidInput):
        expiry.check_lifetime(text)


def test_the_tag_is_read_back() -> None:
    at = expiry.due(expiry.tag(timedelta(hours=1)))
    assert at is not None and timedelta(minutes=59) < at - datetime.now(UTC) < timedelta(minutes=61)
    assert expiry.due({}) is None
    assert expiry.due({expiry.TAG: "soon"}) is None
    assert expiry.due({expiry.TAG: "2026-01-01T00:00:00"}) == datetime(2026, 1, 1, tzinfo=UTC)


def test_a_cluster_is_deleted_when_its_time_is_over(azure: Azure) -> None:
    cluster.create(azure, "brief", resource_group="brief", location="eastus", delete_after="15s")
    assert timers("brief")
    for timer in timers("brief"):
        timer.join(120)
    with pytest.raises(AzureNotFound):
        cluster.get(azure, "brief", resource_group="brief")


def test_creating_again_extends_the_time_and_deleting_cancels_it(azure: Azure) -> None:
    made = {"resource_group": "more", "location": "eastus", "tags": {"who": "me"}}
    cluster.create(azure, "more", delete_after="1h", **made)
    aks = cluster.create(azure, "more", delete_after="2h", **made)
    assert repr(aks) == "Cluster(more in more (eastus))"
    wait_for(lambda: len(timers("more")) == 1)  # the first one ends by itself once it is cancelled
    assert repr(cluster.get(azure, "more", resource_group="more")) == repr(aks)
    shown = azure.client.managed_clusters.get("more", "more")
    at = expiry.due(shown.tags)
    assert at is not None and at > datetime.now(UTC) + timedelta(minutes=110)
    assert cluster.list(azure).set_index("cluster").loc["more", "delete_after"] == at
    assert shown.tags["who"] == "me"
    cluster.delete(aks)
    wait_for(lambda: not timers("more"))


def test_leftovers_shows_overdue_clusters(azure: Azure) -> None:
    tags = {expiry.TAG: "2026-01-01T00:00:00+00:00"}
    aks = cluster.create(azure, "late", resource_group="late", location="eastus", tags=tags)
    assert cluster.leftovers(azure).query("cluster == 'late'")["state"].tolist() == ["Succeeded, overdue"]
    cluster.delete(aks)


def test_a_temporary_cluster_is_deleted_on_exceptions_too(azure: Azure) -> None:
    with pytest.raises(ZeroDivisionError), cluster.temporary(azure, "temp", resource_group="temp", location="eastus"):
        assert cluster.get(azure, "temp", resource_group="temp").name == "temp"
        _ = 1 / 0
    with pytest.raises(AzureNotFound):
        cluster.get(azure, "temp", resource_group="temp")


def test_only_an_abandoned_temporary_cluster_is_reused(azure: Azure) -> None:
    cluster.create(azure, "t1", resource_group="t1", location="eastus", tags=expiry.TEMPORARY)
    with cluster.temporary(azure, "t1", resource_group="t1", location="eastus") as aks:
        assert aks.name == "t1"
    keep = cluster.create(azure, "keep", resource_group="keep", location="eastus")
    with (
        pytest.raises(AzureConflict, match="would be deleted"),
        cluster.temporary(azure, "keep", resource_group="keep", location="eastus"),
    ):
        raise AssertionError("the block must not run")
    cluster.delete(keep)


def test_a_temporary_cluster_whose_creation_fails_leaves_nothing(azure: Azure) -> None:
    with (
        pytest.raises(AksGpuError, match="VM size 'Standard_X' does not exist"),
        cluster.temporary(azure, "t2", resource_group="t2", location="eastus", vm_size="Standard_X"),
    ):
        raise AssertionError("the block must not run")
    assert "t2" not in cluster.list(azure)["cluster"].tolist()


def test_a_cluster_whose_creation_timed_out_is_deleted_too() -> None:
    with local.laptop(time_scale=2.0) as endpoint:
        azure = aksgpu.connect(endpoint)
        with pytest.raises(WaitTimeout):
            cluster.create(azure, "slow", resource_group="slow", location="eastus", delete_after="8s", timeout=2)
        assert len(timers("slow")) == 1
        for timer in timers("slow"):
            timer.join(120)
        assert resources.find_cluster(azure, "slow", "slow") is None


def test_a_refused_creation_sets_no_timer(azure: Azure) -> None:
    with pytest.raises(AksGpuError):
        cluster.create(
            azure,
            "no",
            resource_group="no",
            location="eastus",
            vm_size="Standard_X",
            delete_after="1h",
            preflight=False,
        )
    assert not timers("no")


def test_a_refused_deletion_keeps_the_timer(scripted: Azure, script: Script) -> None:
    script.on("GET", "/managedClusters/aks$", Answer(200, {"id": "x", "name": "aks", "properties": {}}))
    script.on("DELETE", "/managedClusters/aks$", Answer(403, {"error": {"code": "Forbidden", "message": "no"}}))
    aks = cluster.Cluster("aks", resource_group="rg", azure=scripted, id="refused")
    expiry.set_timer(aks, timedelta(hours=1), cluster.delete)
    with pytest.raises(AzureError):
        cluster.delete(aks)
    assert len(timers("aks")) == 1
    expiry.cancel(aks)


def test_a_failed_deletion_is_retried(
    scripted: Azure, script: Script, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(expiry, "_PAUSE", 0.02)
    shown = {"id": "x", "name": "aks", "location": "eastus", "properties": {}, "tags": expiry.tag(timedelta())}
    script.on("GET", "/managedClusters/aks$", Answer(200, shown))
    aks = cluster.Cluster("aks", resource_group="rg", azure=scripted, id="tried-again")
    done = threading.Event()
    tries: list[Any] = []

    def delete(aks: cluster.Cluster, **options: Any) -> None:
        tries.append(aks)
        if len(tries) < 3:
            raise RuntimeError("the network is away")
        done.set()

    expiry.set_timer(aks, timedelta(seconds=0.01), delete)
    assert done.wait(60)
    assert "could not be deleted; next attempt in 0.04 s: the network is away" in caplog.text


def test_a_nested_block_of_the_same_name_keeps_the_cluster(azure: Azure) -> None:
    with cluster.temporary(azure, "nest", resource_group="nest", location="eastus", tags=None):
        with (
            pytest.raises(AzureConflict, match="a block that is still open"),
            cluster.temporary(azure, "nest", resource_group="nest", location="eastus", node_count=2),
        ):
            raise AssertionError("the block must not run")
        assert cluster.get(azure, "nest", resource_group="nest").name == "nest"
    assert "nest" not in cluster.list(azure)["cluster"].tolist()


def test_a_refused_block_keeps_an_existing_resource_group(azure: Azure) -> None:
    resources.create_group(azure, "empty", "eastus")
    with (
        pytest.raises(SizeNotAvailable),
        cluster.temporary(azure, "t3", resource_group="empty", location="eastus", vm_size="Standard_X"),
    ):
        raise AssertionError("the block must not run")
    assert resources.find_group(azure, "empty") is not None


@pytest.mark.parametrize("refusals", [1, 9])
def test_a_failed_deletion_at_the_end_of_a_block_is_retried_or_noted(
    azure: Azure, monkeypatch: pytest.MonkeyPatch, refusals: int
) -> None:
    left = [AzureUnreachable("no answer")] * refusals if refusals == 1 else [AzureError("never")]
    name = f"again{refusals}"

    def delete(*args: Any, **options: Any) -> Any:
        if left:
            raise left.pop()
        return delete_within_call(*args, **options)

    monkeypatch.setattr("aksgpu.cluster.temporary_clusters.delete_within_call", delete)
    monkeypatch.setattr("aksgpu.cluster.temporary_clusters._PAUSE", 0.02)
    with (
        pytest.raises(ZeroDivisionError) as caught,
        cluster.temporary(azure, name, resource_group=name, location="eastus"),
    ):
        _ = 1 / 0
    still = resources.find_cluster(azure, name, name)
    if refusals == 1:
        assert still is None and not hasattr(caught.value, "__notes__")
    else:
        assert "may still exist" in caught.value.__notes__[0]
        cluster.delete(cluster.get(azure, name, resource_group=name))


def test_aborting(azure: Azure, scripted: Azure, script: Script) -> None:
    aks = cluster.create(azure, "calm", resource_group="calm", location="eastus")
    cluster.abort(aks)
    cluster.delete(aks)
    busy = cluster.Cluster("aks", resource_group="rg", azure=scripted, id="x")
    script.on("POST", "/abort$", Answer(202, None, {"Location": "{base}/done", "retry-after-ms": "20"}))
    script.on("GET", "/done$", Answer(202, None, {"retry-after-ms": "20"}), Answer(204))
    cluster.abort(busy)
    assert script.count("GET", "/done$") == 2
