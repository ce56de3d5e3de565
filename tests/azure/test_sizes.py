from __future__ import annotations

import pytest

from aksgpu import sizes
from aksgpu.azure import Azure
from aksgpu.common import gpu_size_table
from aksgpu.errors import InvalidInput, LocationNotAvailable, QuotaExceeded, SizeNotAvailable, ZoneNotAvailable
from aksgpu.sizes import skus_and_quota
from aksgpu.sizes.preflight_checks import Preflight, check_availability
from aksgpu.sizes.skus_and_quota import Location, Usage, VmSku

from .conftest import Answer, Script


def test_lookup_ignores_case() -> None:
    size = sizes.lookup("standard_nc4AS_T4_v3")
    assert (size.vm_size, size.gpu_model, size.gpus, size.vcpus) == ("Standard_NC4as_T4_v3", "Tesla T4", 1.0, 4)
    assert sizes.lookup("Standard_NV6ads_A10_v5").devices == 1
    assert sizes.lookup("Standard_NC6").use_instead == "Standard_NC4as_T4_v3"


def test_an_unknown_size_gets_similar_names() -> None:
    with pytest.raises(SizeNotAvailable, match="Did you mean 'Standard_NC4as_T4_v3'"):
        sizes.lookup("NC4as_T4v3")
    with pytest.raises(SizeNotAvailable, match=r"gpu_sizes\(azure, location\)"):
        sizes.lookup("zzz")


def test_alternatives_begin_with_the_recommended_size_and_have_the_same_gpu() -> None:
    assert sizes.alternatives("Standard_NC6")[0] == "Standard_NC4as_T4_v3"
    others = sizes.alternatives("Standard_NC4as_T4_v3")
    assert others[0] == "Standard_NC8as_T4_v3"
    assert {sizes.lookup(other).gpu_model for other in others} == {"Tesla T4"}


def test_every_size_in_the_table_is_complete() -> None:
    for size in gpu_size_table.table().values():
        assert size.gpus > 0 and size.vcpus > 0 and size.family and size.arch in ("amd64", "arm64")
        assert bool(size.retired_on) == bool(size.use_instead)
        if size.use_instead:
            assert not sizes.lookup(size.use_instead).retired_on


def test_the_table_of_a_location(azure: Azure) -> None:
    table = sizes.gpu_sizes(azure, "East US").set_index("vm_size")
    row = table.loc["Standard_NC4as_T4_v3"]
    assert row["gpu_model"] == "Tesla T4"
    assert row["zones"] == "1,2,3"
    assert (row["usd_per_hour"], row["usd_per_gpu_hour"]) == (0.526, 0.526)
    assert row["family_left"] <= 64
    assert table.loc["Standard_NC96ads_A100_v4", "gpu_memory_gb"] == 80
    assert table.loc["Standard_NV6ads_A10_v5", "gpus"] == pytest.approx(1 / 6, abs=1e-3)
    assert table["spot_usd_per_hour"].isna().all()
    assert "Standard_NC6" not in table.index
    assert not table["gpu_model"].isna().any()
    assert table.dtypes.astype(str)["family_left"] == "Int64"


def test_a_location_that_does_not_exist(azure: Azure) -> None:
    with pytest.raises(LocationNotAvailable, match="az account list-locations"):
        sizes.gpu_sizes(azure, "atlantis")


def sku(name: str, **more: object) -> dict[str, object]:
    facts = {"vCPUs": "4", "MemoryGB": "28", "GPUs": "1", "LowPriorityCapable": "True"}
    return {
        "resourceType": "virtualMachines",
        "name": name,
        "family": "standardNEWFamily",
        "locations": ["eastus"],
        "locationInfo": [{"location": "eastus", "zones": ["2", "1"]}],
        "capabilities": [{"name": key, "value": value} for key, value in facts.items()],
        "restrictions": [],
        **more,
    }


def test_pages_restrictions_spellings_and_sizes_newer_than_the_table(
    scripted: Azure, script: Script, plain_script: Script
) -> None:
    zone = {"type": "Zone", "values": ["eastus"], "restrictionInfo": {"locations": ["eastus"], "zones": ["1"]}}
    refused = {"type": "Location", "values": ["eastus"], "reasonCode": "NotAvailableForSubscription"}
    script.on(
        "GET",
        "/skus$",
        Answer(200, {"value": [sku("Standard_NEW1", restrictions=[zone])], "nextLink": "{base}/skus?page=2"}),
        Answer(200, {"value": [sku("Standard_NEW2", restrictions=[refused]), {"resourceType": "disks", "name": "P1"}]}),
    )
    usage = {"name": {"value": "StandardNewFamily"}, "currentValue": 3, "limit": 10, "unit": "Count"}
    script.on("GET", "/usages$", Answer(200, {"value": [usage]}))
    scripted.prices_url = f"{plain_script.base_url}/prices"
    price = {"unitOfMeasure": "1 Hour", "armSkuName": "Standard_NEW1", "productName": "NEW Series"}
    items = [
        {**price, "retailPrice": 2.0, "skuName": "NEW1"},
        {**price, "retailPrice": 0.5, "skuName": "NEW1 Spot"},
        {**price, "retailPrice": 0.4, "skuName": "NEW1 Low Priority"},
        {**price, "retailPrice": 3.0, "skuName": "NEW1", "productName": "NEW Series Windows"},
    ]
    plain_script.on("GET", "/prices$", Answer(200, {"Items": items[:1], "NextPageLink": "{base}/prices/2"}))
    plain_script.on("GET", "/prices/2$", Answer(200, {"Items": items[1:], "NextPageLink": None}))
    table = sizes.gpu_sizes(scripted, "eastus").set_index("vm_size")
    first = table.loc["Standard_NEW1"]
    second = table.loc["Standard_NEW2"]
    assert (first["zones"], first["family_left"], first["usd_per_hour"], first["spot_usd_per_hour"]) == ("2", 7, 2, 0.5)
    assert second["restriction"] == "NotAvailableForSubscription"
    assert table[["gpu_model", "retired", "mig", "regional_left"]].isna().all(axis=None)


def test_without_the_rights_to_see_quota_nothing_is_refused(scripted: Azure, script: Script) -> None:
    script.on("GET", "/skus$", Answer(200, {"value": [sku("Standard_NEW1")]}))
    script.on("GET", "/usages$", Answer(403, {"error": {"code": "AuthorizationFailed", "message": "no"}}))
    found = sizes.preflight(scripted, "eastus", "Standard_NEW1", 100)
    assert (found.verdict, bool(found), found.left) == ("unknown", True, None)
    assert found.raise_if_no() is found


def place(name: str = "eastus", left: int = 8, **changes: object) -> Location:
    t4 = "Standard NCASv3_T4 Family"
    base = {"family": t4, "ram_gb": 28.0, "gpus": 1.0, "arch": "amd64", "zones": ("1", "2"), "refused_zones": ("3",)}
    skus = [
        VmSku(vm_size="Standard_NC4as_T4_v3", vcpus=4, **{**base, "restriction": "", "spot": True, **changes}),
        VmSku(vm_size="Standard_NC8as_T4_v3", vcpus=8, **base, restriction="", spot=True),
    ]
    usages = [Usage(t4.lower(), 64 - left, 64), Usage("cores", 0, 100), Usage("lowPriorityCores", 0, 4)]
    return Location(name, {o.vm_size.lower(): o for o in skus}, {u.name.lower(): u for u in usages})


def ask(where: Location, count: int = 1, size: str = "Standard_NC4as_T4_v3", **options: object) -> Preflight:
    settings: dict[str, object] = {"spot": False, "zones": (), "needs_gpu": True, **options}
    return check_availability(where, size, count, **settings)  # type: ignore[arg-type]


def test_verdicts() -> None:
    assert ask(place(), 2).verdict == "yes"
    no = ask(place(), 3, others=[place("westeurope", 16)])
    assert (no.verdict, no.requested, no.left, no.limit, no.quota) == ("no", 12, 8, 64, "Standard NCASv3_T4 Family")
    assert no.alternatives == ("Standard_NC4as_T4_v3 in westeurope",)
    assert "family 'Standard NCASv3_T4 Family' has 8 of 64 left" in repr(no)
    with pytest.raises(QuotaExceeded, match="Available instead: Standard_NC4as_T4_v3 in westeurope"):
        no.raise_if_no()
    assert ask(place(), 2, spot=True).quota == "lowPriorityCores"
    assert ask(place(), 2, spot=True).verdict == "no"
    assert ask(Location("nowhere", {})).verdict == "unknown"


def test_zones_restrictions_and_spot() -> None:
    wrong_zone = ask(place(), zones=("3",))
    assert wrong_zone.alternatives == (
        "Standard_NC4as_T4_v3 in eastus zone 1, 2",
        "Standard_NC8as_T4_v3 in eastus zone 1, 2",
    )
    with pytest.raises(ZoneNotAvailable):
        wrong_zone.raise_if_no()
    restricted = ask(place(restriction="NotAvailableForSubscription"))
    assert restricted.alternatives == ("Standard_NC8as_T4_v3 in eastus",)
    assert "not offered to this subscription" in restricted.reasons[0]
    assert ask(place(spot=False), spot=True).verdict == "no"


def test_the_html_of_a_preflight_shows_everything() -> None:
    page = ask(place(), 3)._repr_html_()
    assert "vCPUs requested" in page and ">12<" in page and "8 of 64" in page


def test_preflight_on_the_laptop_counts_surge(azure: Azure) -> None:
    fits = sizes.preflight(azure, "southcentralus", "Standard_NC24ads_A100_v4", 2)
    assert (fits.verdict, fits.requested, fits.left) == ("yes", 48, 48)
    assert sizes.preflight(azure, "southcentralus", "Standard_NC24ads_A100_v4", 2, surge=1).verdict == "no"
    with pytest.raises(InvalidInput):
        sizes.preflight(azure, "southcentralus", "Standard_NC24ads_A100_v4", -1)


def test_the_table_of_sizes_fits_a_screen_and_stays_a_table(azure: Azure) -> None:
    table = sizes.gpu_sizes(azure, "eastus")
    cheapest = table[table["gpu_model"].str.contains("T4")].sort_values("usd_per_gpu_hour").head(1)
    assert cheapest["vm_size"].tolist() == ["Standard_NC4as_T4_v3"]
    shown = repr(cheapest)
    assert "16" in shown and "0.526" in shown and "family_left" not in shown
    assert max(map(len, repr(table).splitlines())) < 170
    page = table._repr_html_()
    assert (
        page is not None
        and ">1/6 x A10-4Q</td>" in page
        and "spot USD/h" not in page
        and "<th>VMs by quota</th>" in page
    )
    assert "family_left" in repr(table[["vm_size", "family_left"]])
    assert repr(table.head(0)).startswith("Empty SizeTable")
    assert table["usd_per_hour"].dtype == "Float64"


def test_prices_are_requested_once(azure: Azure, scripted: Azure, script: Script) -> None:
    item = {"armSkuName": "Standard_X", "skuName": "X", "unitOfMeasure": "1 Hour", "retailPrice": 1.5}
    script.on("GET", "/retail/prices", Answer(200, {"Items": [item]}))
    for _ in range(2):
        assert skus_and_quota.prices(scripted, "eastus", ["Standard_X"]) == {"Standard_X": skus_and_quota.Price(1.5)}
    assert script.count("GET", "/retail/prices") == 1


def test_a_size_that_a_region_does_not_offer_is_searched_elsewhere(azure: Azure) -> None:
    found = sizes.preflight(azure, "eastus", "Standard_NC40ads_H100_v5", look_in=["eastus2", "westeurope"])
    assert (found.verdict, found.alternatives[0]) == ("no", "Standard_NC40ads_H100_v5 in eastus2")
    with pytest.raises(SizeNotAvailable, match="Available instead: Standard_NC40ads_H100_v5 in eastus2; "):
        found.raise_if_no()
    page = found._repr_html_()
    assert "available instead" in page and "unknown" not in page
    short = sizes.preflight(azure, "eastus2", "Standard_NC40ads_H100_v5", count=2)
    assert "40 of 40 left, enough for 1" in short.reasons[0]
    assert "ask for more at" in short._repr_html_()
