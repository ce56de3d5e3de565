"""The laptop's responses, compared with the contract and the examples that Microsoft publishes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing
from azure.mgmt.compute._utils import model_base as compute_base
from azure.mgmt.compute.models import ResourceSku, Usage
from azure.mgmt.containerservice import models
from azure.mgmt.containerservice._utils import model_base
from azure.mgmt.resource.resources._utils import model_base as resource_base
from azure.mgmt.resource.resources.models import ResourceGroup

from .conftest import CLUSTER, SUBSCRIPTION, VERSION, Arm, body, pool

EXAMPLES = Path(__file__).parents[2] / "data" / "azure-examples"

RESOURCE = {"type": "object", "properties": {key: {"type": "string"} for key in ("id", "name", "type", "location")}}
COMMON = {  # the definitions of common types
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
    """Return the fields of a response that the contract does not define."""
    published = contract["http://example/a/b/c/d/e/f/managedClusters.json"].contents["definitions"]

    def fields(name: str) -> set[str]:
        found = set(published[name].get("properties", {}))
        for base in published[name].get("allOf", ()):
            part = base["$ref"].rpartition("/")[2]
            found |= fields(part) if part in published else {"id", "name", "type", "location", "tags"}
        return found

    return set(answer) - fields(definition)


def test_responses_follow_the_contract(arm: Arm, contract: Any) -> None:
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
        "Machine": arm.send("GET", f"{CLUSTER}/agentPools/gpunp/machines").json()["value"][0]["id"],
        "ManagedClusterListResult": CLUSTER.rpartition("/")[0],
        "AgentPoolListResult": f"{CLUSTER}/agentPools",
        "MachineListResult": f"{CLUSTER}/agentPools/gpunp/machines",
        "KubernetesVersionListResult": f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.ContainerService/"
        "locations/eastus/kubernetesVersions",
    }.items():
        check(contract, definition, arm.send("GET", path).json())
    check(contract, "CredentialResults", arm.send("POST", f"{CLUSTER}/listClusterUserCredential").json())


NO_BALANCER = "the laptop has no load balancer and no public addresses to show"
NOT_GIVEN = "the example's cluster was made with it, ours was not"
ONE_PAGE = "the laptop's lists have one page"
VERSIONS = "the laptop runs one Kubernetes version"

_PLACE = "/subscriptions/{subscriptionId}"
_GROUP = _PLACE + "/resourceGroups/{resourceGroupName}"
_AKS = "/providers/Microsoft.ContainerService"
_CLUSTERS = _GROUP + _AKS + "/managedClusters"
_CLUSTER = _CLUSTERS + "/{resourceName}"
_POOL = _CLUSTER + "/agentPools/{agentPoolName}"
_CREDENTIAL = _CLUSTER + "/listClusterUserCredential"


@dataclass(frozen=True)
class Example:
    """How an example is run, and the differences of the laptop's response, with a reason for each."""

    method: str
    path: str
    contract: str = ""
    model: Any = None
    base: Any = model_base
    differs: dict[str, str] = field(default_factory=dict)


BALANCER = "/properties/networkProfile/loadBalancerProfile/"
CREATED = {
    f"{BALANCER}allocatedOutboundPorts": NO_BALANCER,
    f"{BALANCER}effectiveOutboundIPs": NO_BALANCER,
    f"{BALANCER}idleTimeoutInMinutes": NO_BALANCER,
}
EXAMPLES_PLAYED = {
    "AgentPoolsCreate_ManagedGPU": Example("PUT", _POOL, "AgentPool", models.AgentPool),
    "AgentPoolsCreate_Spot": Example("PUT", _POOL, "AgentPool", models.AgentPool),
    "AgentPoolsCreate_Update": Example("PUT", _POOL, "AgentPool", models.AgentPool),
    "AgentPoolsDelete": Example("DELETE", _POOL),
    "AgentPoolsGet": Example("GET", _POOL, "AgentPool", models.AgentPool),
    "AgentPoolsList": Example("GET", _CLUSTER + "/agentPools", "AgentPoolListResult", models.AgentPool),
    "CreateResourceGroup": Example(
        "PUT", "/subscriptions/{subscriptionId}/resourcegroups/{resourceGroupName}", "", ResourceGroup, resource_base
    ),
    "KubernetesVersions_List": Example(
        "GET",
        _PLACE + _AKS + "/locations/{location}/kubernetesVersions",
        "KubernetesVersionListResult",
        models.KubernetesVersionListResult,
        differs={"/values/patchVersions/1.23.12": VERSIONS, "/values/patchVersions/1.23.15": VERSIONS},
    ),
    "ListAvailableResourceSkusForARegion": Example(
        "GET",
        _PLACE + "/providers/Microsoft.Compute/skus",
        "",
        ResourceSku,
        compute_base,
        {"/nextLink": ONE_PAGE},
    ),
    "ManagedClustersCreate_Update": Example("PUT", _CLUSTER, "ManagedCluster", models.ManagedCluster, differs=CREATED),
    "ManagedClustersDelete": Example("DELETE", _CLUSTER),
    "ManagedClustersGet": Example(
        "GET",
        _CLUSTER,
        "ManagedCluster",
        models.ManagedCluster,
        differs=CREATED | {f"{BALANCER}outboundIPs": NOT_GIVEN},
    ),
    "ManagedClustersListByResourceGroup": Example("GET", _CLUSTERS, "ManagedClusterListResult", models.ManagedCluster),
    "ManagedClustersListClusterUserCredentials": Example(
        "POST", _CREDENTIAL, "CredentialResults", models.CredentialResults
    ),
    "Usage_List_MaximumSet_Gen": Example(
        "GET",
        _PLACE + "/providers/Microsoft.Compute/locations/{location}/usages",
        "",
        Usage,
        compute_base,
        {"/nextLink": ONE_PAGE},
    ),
}
"""Every published example that is at hand, by the name of its file."""


def missing(published: Any, ours: Any, at: str = "") -> set[str]:
    """Return the fields of a published response that the laptop's lacks, or that have another type."""
    if isinstance(published, dict) and isinstance(ours, dict):
        found = {f"{at}/{key}" for key in published if key not in ours}
        return found.union(*(missing(published[key], ours[key], f"{at}/{key}") for key in published if key in ours))
    if isinstance(published, list) and isinstance(ours, list):
        return missing(published[0], ours[0], at) if published and ours else set()
    return set() if isinstance(ours, type(published)) else {f"{at}: {type(ours).__name__}"}


def filled(document: Any) -> Any:
    """Return an example's request with its placeholders replaced."""
    text = json.dumps(document)
    for placeholder, real in {
        "Standard_DS1_v2": "Standard_DS2_v2",  # too small for AKS itself
        '"location1"': '"eastus"',
        '"4_."': '"eastus"',
        "{subscription-id}": SUBSCRIPTION,
        '"Basic"': '"Base"',  # the contract does not define the example's SKU
    }.items():
        text = text.replace(placeholder, real)
    return json.loads(text)


def prepare(arm: Arm, name: str) -> None:
    """Create what the example requires: its group, its cluster, and the pool that it reads."""
    group = f"/subscriptions/{SUBSCRIPTION}/resourcegroups/rg1"
    arm.send("PUT", group, {"location": "eastus"}, "2021-04-01")
    if name == "ManagedClustersCreate_Update" or not name.startswith(("AgentPools", "ManagedClusters")):
        return
    given = filled(example("ManagedClustersCreate_Update")["parameters"]["parameters"])
    given["properties"]["agentPoolProfiles"][0]["upgradeSettings"] = {"maxSurge": "33%"}
    arm.client().managed_clusters.begin_create_or_update("rg1", "clustername1", given).result()
    if name in ("AgentPoolsDelete", "AgentPoolsGet", "AgentPoolsList"):
        properties_given = {
            "properties": {"vmSize": "Standard_DS2_v2", "count": 1, "upgradeSettings": {"maxSurge": "33%"}}
        }
        arm.client().agent_pools.begin_create_or_update("rg1", "clustername1", "agentpool1", properties_given).result()


def test_every_example_is_run() -> None:
    there = {path.stem for path in EXAMPLES.glob("*.json")} - {"managedClusters.openapi"}
    assert there == EXAMPLES_PLAYED.keys()


@pytest.mark.parametrize("name", EXAMPLES_PLAYED)
def test_an_example(arm: Arm, contract: Any, name: str) -> None:
    played = EXAMPLES_PLAYED[name]
    published = example(name)
    parameters = filled(published["parameters"])
    prepare(arm, name)
    path = played.path.format(**parameters)
    if "$filter" in parameters:
        path += f"?$filter={parameters['$filter']}"
    with arm.operations_held():
        answer = arm.send(played.method, path, parameters.get("parameters"), parameters["api-version"])
        if played.method == "DELETE":
            assert arm.send("GET", answer.headers["Location"], version=None).status_code == 202
    assert str(answer.status_code) in published["responses"], answer.text()
    theirs = published["responses"][str(answer.status_code)]
    assert {header.lower() for header in theirs.get("headers", {})} <= {header.lower() for header in answer.headers}
    if "body" not in theirs:
        assert played.method == "DELETE"
        return
    ours = answer.json()
    assert missing(theirs["body"], ours) == set(played.differs)
    if played.contract:
        check(contract, played.contract, ours)
    pairs = [(theirs["body"], ours)]
    if "value" in ours:
        pairs = list(zip(theirs["body"]["value"], ours["value"], strict=False))
    for document in (document for pair in pairs for document in pair):
        parsed = played.base._deserialize(played.model, document)
        assert parsed.as_dict() == document


def test_secrets_are_not_returned(arm: Arm) -> None:
    given = filled(example("ManagedClustersCreate_Update")["parameters"]["parameters"])
    answer = arm.send("PUT", CLUSTER, given)
    assert answer.status_code == 201
    assert answer.headers["Azure-AsyncOperation"].startswith(arm.base_url)
    assert "<password>" not in answer.text() and '"secret"' not in answer.text()


@pytest.mark.parametrize("version", ["2021-08-01", "2023-10-01", "2025-05-01", "2026-02-02-preview", VERSION])
def test_older_versions_are_served(arm: Arm, contract: Any, version: str) -> None:
    made = arm.send("PUT", CLUSTER, body(), version)
    assert made.status_code == 201
    assert f"api-version={version}" in made.headers["Azure-AsyncOperation"]
    check(contract, "ManagedCluster", arm.send("GET", CLUSTER, version=version).json())
