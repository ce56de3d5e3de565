from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aksgpu import cluster
from aksgpu._azure import expiry
from aksgpu.azure import Azure
from aksgpu.errors import AksGpuError, AzureConflict, AzureNotFound, InvalidInput

from .conftest import Answer, Script


def timers(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == f"aksgpu-delete-{name}"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("2h", 7200), ("1.5 m", 90), ("1d", 86400), (timedelta(minutes=1), 60)]
)
def test_durations(text: Any, seconds: float) -> None:
    assert expiry.parse(text).total_seconds() == seconds


@pytest.mark.parametrize(("text", "words"), [("90m", "90 min"), ("24h", "1 d"), ("1.5h", "90 min"), ("7s", "7 s")])
def test_durations_in_words(text: str, words: str) -> None:
    assert expiry.words(expiry.parse(text)) == words


@pytest.mark.parametrize("text", ["2", "h", "-1h", "0s", "99d", "two hours", timedelta()])
def test_what_is_no_duration(text: Any) -> None:
    with pytest.raises(InvalidInput):
        expiry.parse(text)


def test_the_tag_is_read_back() -> None:
    at = expiry.due(expiry.tag(timedelta(hours=1)))
    assert at is not None and timedelta(minutes=59) < at - datetime.now(UTC) < timedelta(minutes=61)
    assert expiry.due({}) is None
    assert expiry.due({expiry.TAG: "soon"}) is None
    assert expiry.due({expiry.TAG: "2026-01-01T00:00:00"}) == datetime(2026, 1, 1, tzinfo=UTC)


def test_a_cluster_is_deleted_when_its_time_is_over(azure: Azure) -> None:
    cluster.create(azure, "brief", resource_group="brief", location="eastus", delete_after="1s")
    assert len(timers("brief")) == 1
    for timer in timers("brief"):
        timer.join(60)
    with pytest.raises(AzureNotFound):
        cluster.get(azure, "brief", "brief")


def test_creating_again_gives_more_time_and_deleting_forgets_it(azure: Azure) -> None:
    made = {"resource_group": "more", "location": "eastus", "tags": {"who": "me"}}
    cluster.create(azure, "more", delete_after="1h", **made)
    aks = cluster.create(azure, "more", delete_after="2h", **made)
    assert repr(aks) == "Cluster(more in more (eastus), USD 0.096 an hour, deleted after 2 h)"
    assert "by this process; later, cluster.leftovers shows it" in aks._repr_html_()
    deadline = time.monotonic() + 10
    while len(timers("more")) > 1 and time.monotonic() < deadline:
        time.sleep(0.02)  # the first one ends by itself once it is cancelled
    assert len(timers("more")) == 1
    shown = azure.client.managed_clusters.get("more", "more")
    at = expiry.due(shown.tags)
    assert at is not None and at > datetime.now(UTC) + timedelta(minutes=110)
    assert shown.tags["who"] == "me"
    cluster.delete(aks)
    while timers("more") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not timers("more")


def test_what_is_overdue_is_shown_by_leftovers(azure: Azure) -> None:
    tags = {expiry.TAG: "2026-01-01T00:00:00+00:00"}
    aks = cluster.create(azure, "late", resource_group="late", location="eastus", tags=tags)
    assert cluster.leftovers(azure).query("cluster == 'late'")["state"].tolist() == ["Succeeded, overdue"]
    cluster.delete(aks)


def test_a_temporary_cluster_is_deleted_on_exceptions_too(azure: Azure) -> None:
    with pytest.raises(ZeroDivisionError), cluster.temporary(azure, "temp", resource_group="temp", location="eastus"):
        assert cluster.get(azure, "temp", "temp").name == "temp"
        _ = 1 / 0
    with pytest.raises(AzureNotFound):
        cluster.get(azure, "temp", "temp")


def test_a_temporary_cluster_that_was_left_is_taken_over_and_no_other(azure: Azure) -> None:
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
        pytest.raises(AksGpuError, match="no VM size"),
        cluster.temporary(azure, "t2", resource_group="t2", location="eastus", vm_size="Standard_X"),
    ):
        raise AssertionError("the block must not run")
    assert "t2" not in cluster.list(azure)["cluster"].tolist()


def test_aborting(azure: Azure, scripted: Azure, script: Script) -> None:
    aks = cluster.create(azure, "calm", resource_group="calm", location="eastus")
    cluster.abort(aks)
    cluster.delete(aks)
    busy = cluster.Cluster("aks", resource_group="rg", azure=scripted, id="x")
    script.on("POST", "/abort$", Answer(202, None, {"Location": "{base}/done", "retry-after-ms": "20"}))
    script.on("GET", "/done$", Answer(202, None, {"retry-after-ms": "20"}), Answer(204))
    cluster.abort(busy)
    assert script.count("GET", "/done$") == 2
