"""Arguments of preflight, and its verdict if Azure does not respond."""

from __future__ import annotations

from typing import Any

import pytest

from aksgpu import cluster, sizes
from aksgpu.azure import Azure
from aksgpu.errors import AzureError, InvalidInput

from .conftest import Answer, Script
from .test_operations import CLUSTER, NOT_FOUND, OPERATION, shown
from .test_sizes import sku

SIZE = "Standard_NC4as_T4_v3"


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("eastus", SIZE, 1.5), {}, "`count` must be an integer, 0 or more, got 1.5"),
        (("eastus", SIZE, None), {}, "`count` must be an integer, 0 or more, got None"),
        (("eastus", SIZE, -1), {}, "`count` must be an integer, 0 or more, got -1"),
        (("eastus", SIZE), {"surge": "a third"}, "`surge` must be an integer, 0 or more, got 'a third'"),
        (("eastus", SIZE), {"surge": 0.3}, "`surge` must be an integer, 0 or more, got 0.3"),
        (("eastus", SIZE), {"zones": (None,)}, "`zones` must be a list of availability zones, got an item None"),
        (("eastus", SIZE), {"zones": 1}, "`zones` must be a list of strings, got 1"),
        (("eastus", SIZE), {"look_in": 5}, "`look_in` must be a list of strings, got 5"),
        (("eastus", SIZE), {"look_in": (5,)}, "`look_in` must be the name of a location"),
        ((None, SIZE), {}, "`location` must be the name of a location"),
        ((5, SIZE), {}, "`location` must be the name of a location"),
        (("eastus", None), {}, "`vm_size` must be the name of a VM size"),
    ],
)
def test_invalid_arguments(
    scripted: Azure, script: Script, arguments: Any, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        sizes.preflight(scripted, *arguments, **options)
    assert script.seen == []


@pytest.mark.parametrize("location", [None, 5])
def test_gpu_sizes_needs_the_name_of_a_location(scripted: Azure, script: Script, location: Any) -> None:
    with pytest.raises(InvalidInput, match="must be the name of a location"):
        sizes.gpu_sizes(scripted, location)
    assert script.seen == []


def test_zones_surges_and_locations_have_several_forms(scripted: Azure, script: Script) -> None:
    script.on("GET", "/skus$", Answer(200, {"value": [sku("Standard_NEW1")]}))
    script.on("GET", "/usages$", Answer(403))
    found = sizes.preflight(scripted, "East US", "Standard_NEW1", 4, zones=(1, "2", 2), surge="33%", look_in="eastus2")
    assert (found.verdict, found.count) == ("unknown", 6)
    assert script.count("GET", "/skus$") == 2
    script.seen.clear()
    sizes.preflight(scripted, "eastus", "Standard_NEW1", zones="1", look_in=["eastus2", "East US 2", "eastus"])
    assert script.count("GET", "/skus$") == 2


@pytest.mark.parametrize("status", [403, 429, 503])
def test_unknown_sizes_do_not_fail_the_check(
    scripted: Azure, script: Script, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = {"error": {"code": "Refused", "message": "not now"}}
    script.on("GET", "/skus$", Answer(status, refusal, {"retry-after-ms": "20"}))
    found = sizes.preflight(scripted, "eastus", SIZE, timeout=3)
    assert found.verdict == "unknown"
    assert "listing VM sizes in eastus:" in found.reasons[0]
    assert "not now (Refused)" in found.reasons[0]
    with pytest.raises(AzureError):
        sizes.gpu_sizes(scripted, "eastus", timeout=3)
    monkeypatch.setattr("aksgpu.sizes.offered_sizes._SHORT_TIMEOUT", 0.5)
    script.on("GET", "/resourcegroups/rg$", Answer(200, {"id": "rg", "name": "rg", "location": "eastus"}))
    script.on("GET", CLUSTER, NOT_FOUND, Answer(200, shown("Succeeded")))
    script.on("PUT", CLUSTER, Answer(200, shown("Succeeded"), OPERATION))
    script.on("GET", "/operations/1", Answer(200, {"name": "1", "status": "Succeeded"}))
    assert cluster.create(scripted, "aks", resource_group="rg", location="eastus").name == "aks"


def test_a_throttled_request_for_sizes_is_not_repeated(scripted: Azure, script: Script) -> None:
    script.on(
        "GET", "/skus$", Answer(429, {"error": {"code": "Throttled", "message": "later"}}, {"Retry-After": "300"})
    )
    assert sizes.preflight(scripted, "eastus", SIZE).verdict == "unknown"
    assert script.count("GET", "/skus$") == 1


def test_a_missing_login_is_an_error_and_not_unknown(scripted: Azure, script: Script) -> None:
    script.on("GET", "/skus$", Answer(401, {"error": {"code": "InvalidAuthenticationToken", "message": "no"}}))
    with pytest.raises(AzureError):
        sizes.preflight(scripted, "eastus", SIZE)
