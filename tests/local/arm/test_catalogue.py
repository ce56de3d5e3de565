from __future__ import annotations

from .conftest import CLUSTER, GROUP, SUBSCRIPTION, Arm, body

COMPUTE = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute"


def test_versions(arm: Arm) -> None:
    result = arm.client().managed_clusters.list_kubernetes_versions("eastus")
    assert [(row.version, row.is_default, list(row.patch_versions)) for row in result.values_property] == [
        ("1.35", None, ["1.35.4"]),
        ("1.36", True, ["1.36.2"]),
        ("1.37", None, ["1.37.0"]),
    ]


def test_subscriptions_and_providers(arm: Arm) -> None:
    assert arm.send("GET", "/subscriptions").json()["value"][0]["subscriptionId"] == SUBSCRIPTION
    assert arm.send("GET", f"/subscriptions/{SUBSCRIPTION}").json()["state"] == "Enabled"
    path = f"/subscriptions/{SUBSCRIPTION}/providers/microsoft.containerservice"
    assert arm.send("GET", path).json()["registrationState"] == "Registered"
    assert arm.send("POST", f"{path}/register").status_code == 200


def test_skus_of_a_region(arm: Arm) -> None:
    answer = arm.send("GET", f"{COMPUTE}/skus?$filter=location eq 'eastus'", version="2021-07-01").json()
    rows = {row["name"]: row for row in answer["value"]}
    assert "Standard_NC6" not in rows  # retired
    assert "Standard_NC40ads_H100_v5" not in rows  # not in this region
    t4 = rows["Standard_NC4as_T4_v3"]
    facts = {fact["name"]: fact["value"] for fact in t4["capabilities"]}
    assert (facts["GPUs"], facts["vCPUs"], facts["MemoryGB"]) == ("1", "4", "28")
    assert t4["locationInfo"][0]["zones"] == ["1", "2", "3"]
    everywhere = arm.send("GET", f"{COMPUTE}/skus", version="2021-07-01").json()["value"]
    restricted = [row for row in everywhere if row["restrictions"]]
    assert {row["restrictions"][0]["reasonCode"] for row in restricted} == {"NotAvailableForSubscription"}


def test_prices(arm: Arm) -> None:
    query = "armRegionName eq 'eastus' and priceType eq 'Consumption' and "
    prices = "/api/retail/prices?$filter=" + query
    one = arm.send("GET", prices + "armSkuName eq 'Standard_NC4as_T4_v3'", version=None).json()
    assert [item["retailPrice"] for item in one["Items"]] == [0.526]
    many = arm.send("GET", prices + "contains(armSkuName, 'Standard_N')", version=None).json()
    assert many["Count"] == 3


def test_filters(arm: Arm) -> None:
    prices = "/api/retail/prices?$filter="
    groups = f"/subscriptions/{SUBSCRIPTION}/resourcegroups"
    two = "armSkuName eq 'Standard_NC4as_T4_v3' and armRegionName eq 'eastus' or armSkuName eq 'x or y'"
    assert arm.send("GET", prices + two, version=None).json()["Count"] == 1
    assert arm.send("GET", prices + "armSkuName eq 'a or b eq c'", version=None).json()["Count"] == 0
    arm.send("PUT", f"{groups}/other", {"location": "eastus", "tags": {"env": "dev", "a": "b"}}, "2021-04-01")
    for query, found in {"tagName eq 'env'": 1, "tagName eq 'env' and tagValue eq 'b'": 0}.items():
        answer = arm.send("GET", f"{groups}?$filter={query}", version="2021-04-01").json()
        assert [group["name"] for group in answer["value"]] == ["other"] * found
    for path in (f"{COMPUTE}/skus", groups, f"{groups}/rg/resources"):
        answer = arm.send("GET", f"{path}?$filter=rubbish", version="2021-07-01")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "InvalidFilterInQueryString")
    for query in ("armSkuName in ('a')", "armSkuName eq 'a' and", "not contains(armSkuName, 'a')", "nothing eq 'a'"):
        answer = arm.send("GET", prices + query, version=None)
        assert (answer.status_code, answer.json()["error"]["message"]) == (400, "Invalid OData parameters supplied")


def test_filters_of_resources(arm: Arm) -> None:
    for name, tags in {"aks": {"tags": {"env": "dev", "a": "b"}}, "plain": {}}.items():
        arm.send("PUT", CLUSTER.replace("/aks", f"/{name}"), body() | tags)
    for query, found in {
        "tagName eq 'env' and tagValue eq 'dev'": ["aks"],
        "tagname eq 'env' and tagvalue eq 'b'": [],  # as `az resource list --tag` writes it
        "resourceGroup eq 'RG' and resourceType eq 'Microsoft.ContainerService/managedClusters'": ["aks", "plain"],
        "resourceGroup eq 'x'": [],
        "resourceType ne 'Microsoft.ContainerService/managedClusters'": [],
        "name ne 'aks'": ["plain"],
        "name eq 'a or b eq c'": [],
        "name eq 'plain' or tagName eq 'a'": ["aks", "plain"],
    }.items():
        answer = arm.send("GET", f"{GROUP}/resources?$filter={query}", version="2021-04-01").json()
        assert [resource["name"] for resource in answer["value"]] == found, query
    answer = arm.send("GET", f"{GROUP}/resources?$filter=name eq 'x' and sku eq 'y'", version="2021-04-01")
    assert answer.json()["error"]["code"] == "InvalidFilterInQueryString"
