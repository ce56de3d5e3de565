"""The laptop's answers against the contract and the examples that Microsoft publishes, where they are at hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing
from azure.mgmt.containerservice import models

from .conftest import CLUSTER, SUBSCRIPTION, Arm, body, pool

EXAMPLES = Path(__file__).parents[4] / "shared" / "azure-examples"
pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the published Azure examples are not here")

RESOURCE = {"type": "object", "properties": {key: {"type": "string"} for key in ("id", "name", "type", "location")}}
COMMON = {  # what the contract's references to common types stand for
    "definitions": {
        "TrackedResource": RESOURCE | {"required": ["id", "name", "type", "location"]},
        "ProxyResource": RESOURCE | {"required": ["id", "name", "type"]},
        "ErrorDetail": {"type": "object"},
        "DelegatedResource": {"type": "object"},
    }
}


def example(name: str) -> Any:
    return json.loads((EXAMPLES / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def contract() -> referencing.Registry[Any]:
    published = json.loads((EXAMPLES / "managedClusters.openapi.json").read_text())
    common = "http://example/common-types/resource-management/v6/"

    def resource(document: Any) -> referencing.Resource[Any]:
        return referencing.Resource.from_contents(document, default_specification=referencing.jsonschema.DRAFT4)

    return referencing.Registry().with_resources(
        [
            ("http://example/a/b/c/d/e/f/managedClusters.json", resource(published)),
            (f"{common}types.json", resource(COMMON)),
            (f"{common}managedidentitywithdelegation.json", resource(COMMON)),
        ]
    )


def check(contract: referencing.Registry[Any], definition: str, answer: Any) -> None:
    schema = {"$ref": f"http://example/a/b/c/d/e/f/managedClusters.json#/definitions/{definition}"}
    jsonschema.Draft4Validator(schema, registry=contract).validate(answer)


def unknown(contract: Any, definition: str, answer: dict[str, Any]) -> set[str]:
    """Fields of an answer that the contract does not know."""
    published = contract["http://example/a/b/c/d/e/f/managedClusters.json"].contents["definitions"]

    def fields(name: str) -> set[str]:
        found = set(published[name].get("properties", {}))
        for base in published[name].get("allOf", ()):
            part = base["$ref"].rpartition("/")[2]
            found |= fields(part) if part in published else {"id", "name", "type", "location", "tags"}
        return found

    return set(answer) - fields(definition)


def test_answers_keep_the_contract(arm: Arm, contract: Any) -> None:
    gpu = pool("gpunp", mode="User", vmSize="Standard_NC4as_T4_v3", scaleSetPriority="Spot")
    document = body(pool(), gpu) | {"tags": {"a": "b"}}
    arm.client().managed_clusters.begin_create_or_update("rg", "aks", document).result()
    cluster = arm.send("GET", CLUSTER).json()
    check(contract, "ManagedCluster", cluster)
    assert unknown(contract, "ManagedCluster", cluster) == set()
    assert unknown(contract, "ManagedClusterProperties", cluster["properties"]) == set()
    for profile in cluster["properties"]["agentPoolProfiles"]:
        assert unknown(contract, "ManagedClusterAgentPoolProfile", profile) == set()
    one = arm.send("GET", f"{CLUSTER}/agentPools/gpunp").json()
    check(contract, "AgentPool", one)
    assert unknown(contract, "ManagedClusterAgentPoolProfileProperties", one["properties"]) == set()
    for definition, path in {
        "ManagedClusterListResult": CLUSTER.rpartition("/")[0],
        "AgentPoolListResult": f"{CLUSTER}/agentPools",
        "MachineListResult": f"{CLUSTER}/agentPools/gpunp/machines",
        "KubernetesVersionListResult": f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.ContainerService/"
        "locations/eastus/kubernetesVersions",
    }.items():
        check(contract, definition, arm.send("GET", path).json())
    check(contract, "CredentialResults", arm.send("POST", f"{CLUSTER}/listClusterUserCredential").json())


def missing(published: Any, ours: Any, at: str = "") -> set[str]:
    """Fields of a published answer that ours lacks, and those of another type."""
    if isinstance(published, dict) and isinstance(ours, dict):
        found = {f"{at}/{key}" for key in published if key not in ours}
        return found.union(*(missing(published[key], ours[key], f"{at}/{key}") for key in published if key in ours))
    if isinstance(published, list) and isinstance(ours, list):
        return missing(published[0], ours[0], at) if published and ours else set()
    return set() if isinstance(ours, type(published)) else {f"{at}: {type(ours).__name__}"}


def filled(example_body: Any, **changes: Any) -> Any:
    """An example's request with the placeholders replaced by what the laptop has."""
    text = json.dumps(example_body).replace("Standard_DS1_v2", "Standard_DS2_v2").replace('"location1"', '"eastus"')
    text = text.replace('"Basic"', '"Base"')  # the contract itself does not know the example's SKU
    return json.loads(text) | changes


OURS_TO_LACK = {  # the laptop has no load balancer and no public addresses to show
    "/properties/networkProfile/loadBalancerProfile/allocatedOutboundPorts",
    "/properties/networkProfile/loadBalancerProfile/effectiveOutboundIPs",
    "/properties/networkProfile/loadBalancerProfile/idleTimeoutInMinutes",
}


def test_the_cluster_of_the_examples(arm: Arm, contract: Any) -> None:
    published = example("ManagedClustersCreate_Update")
    request = filled(published["parameters"]["parameters"])
    answer = arm.send("PUT", CLUSTER, request)
    assert answer.status_code == 201
    assert answer.headers["Azure-AsyncOperation"].startswith(arm.base_url)
    check(contract, "ManagedCluster", answer.json())
    assert missing(published["responses"]["201"]["body"], answer.json()) <= OURS_TO_LACK
    assert models.ManagedCluster(answer.json()).provisioning_state == "Creating"
    text = answer.text()
    assert "<password>" not in text and '"secret"' not in text


@pytest.mark.parametrize("name", ["AgentPoolsCreate_Update", "AgentPoolsCreate_Spot", "AgentPoolsCreate_ManagedGPU"])
def test_the_pools_of_the_examples(arm: Arm, contract: Any, name: str) -> None:
    arm.client().managed_clusters.begin_create_or_update("rg", "aks", body()).result()
    published = example(name)
    answer = arm.send("PUT", f"{CLUSTER}/agentPools/agentpool1", filled(published["parameters"]["parameters"]))
    assert answer.status_code == 201, answer.text()
    check(contract, "AgentPool", answer.json())
    assert missing(published["responses"]["201"]["body"], answer.json()) == set()
    assert models.AgentPool(answer.json()).provisioning_state == "Creating"


def test_reading_and_deleting_as_in_the_examples(arm: Arm) -> None:
    arm.client().managed_clusters.begin_create_or_update("rg", "aks", body()).result()
    reads = {
        "AgentPoolsGet": f"{CLUSTER}/agentPools/nodepool1",
        "AgentPoolsList": f"{CLUSTER}/agentPools",
        "KubernetesVersions_List": f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.ContainerService/"
        "locations/eastus/kubernetesVersions",
    }
    for name, path in reads.items():
        lacking = missing(example(name)["responses"]["200"]["body"], arm.send("GET", path).json())
        assert {field for field in lacking if "patchVersions" not in field} == set(), name
    credentials = example("ManagedClustersListClusterUserCredentials")["responses"]["200"]["body"]
    assert missing(credentials, arm.send("POST", f"{CLUSTER}/listClusterUserCredential").json()) == set()
    for name in ("AgentPoolsDelete", "ManagedClustersDelete"):
        published = example(name)["responses"]
        answer = arm.send("DELETE", CLUSTER)
        assert answer.status_code == 202
        assert set(published["202"]["headers"]) <= {key.lower() for key in answer.headers}
        assert arm.send("GET", answer.headers["Location"], version=None).status_code == 202


def test_compute_as_in_the_examples(arm: Arm) -> None:
    compute = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute"
    published = example("ListAvailableResourceSkusForARegion")["responses"]["200"]["body"]["value"][0]
    ours = arm.send("GET", f"{compute}/skus?$filter=location eq 'westus2'", version="2021-07-01").json()["value"][0]
    assert {field for field in missing(published, ours) if "zoneDetails" not in field} == set()
    published = example("Usage_List_MaximumSet_Gen")["responses"]["200"]["body"]["value"][0]
    ours = arm.send("GET", f"{compute}/locations/westus2/usages", version="2024-11-01").json()["value"][0]
    assert missing(published, ours) == set()
    published = example("CreateResourceGroup")["responses"]["201"]["body"]
    ours = arm.send("PUT", f"/subscriptions/{SUBSCRIPTION}/resourcegroups/new", {"location": "eastus"}).json()
    assert missing(published, ours) == set()
