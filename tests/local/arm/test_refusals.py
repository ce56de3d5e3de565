from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.mgmt.containerservice.models import AgentPool

from aksgpu.local.arm import arm_errors, reference_data

from .conftest import CLUSTER, GROUP, SUBSCRIPTION, Arm, body, pool


def refused(arm: Arm, document: dict[str, Any], path: str = CLUSTER) -> tuple[int, str, str]:
    answer = arm.send("PUT", path, document)
    error = answer.json()
    error = error.get("error", error)
    return answer.status_code, error["code"], error["message"]


@pytest.mark.parametrize(
    ("document", "code", "text"),
    [
        (body() | {"location": None}, "LocationRequired", "location property is required"),
        (
            body() | {"location": "mars"},
            "LocationNotAvailableForResourceType",
            "The provided location 'mars' is not available for resource type "
            "'Microsoft.ContainerService/managedClusters'. List of available regions for the resource type is 'eastus,",
        ),
        (body(dnsPrefix=None), "InvalidParameter", "DNS prefix '' is invalid. DNS prefix must contain between 1 and"),
        (body() | {"identity": None}, "InvalidParameter", "Required parameter servicePrincipalProfile is missing"),
        (body(agentPoolProfiles=[]), "InvalidParameter", "Required parameter agentPoolProfiles is missing"),
        (body(pool(mode="User")), "BadRequest", "There has to be at least one system agent pool"),
        (body(pool("Pool1")), "InvalidParameter", "agentPoolProfile.name is invalid"),
        (body(pool("a234567890123")), "InvalidParameter", "max length of 12"),
        (body(pool(), pool("windows1", osType="Windows")), "InvalidParameter", "max length of 6"),
        (body(pool(count=0)), "InvalidParameter", "greater or equal to minCount:1"),
        (body(pool(count=1001)), "InvalidParameter", "less than or equal to maxCount:1000"),
        (body(pool(count="3")), "InvalidParameter", "string into a field of type integer"),
        (body(pool(enableAutoScaling=True, minCount=3, maxCount=1)), "InvalidParameter", "minCount <= maxCount"),
        (body(pool(enableAutoScaling=True, minCount=2, maxCount=3)), "InvalidParameter", "minCount:2"),
        (
            body(pool(type="VirtualMachines", vmSize=None)),
            "OperationNotAllowed",
            "is of type VirtualMachines. The laptop AKS serves only pools of type VirtualMachineScaleSets",
        ),
        (body(pool(vmSize="Standard_NC5")), "BadRequest", "The VM size of Standard_NC5 is not allowed in your"),
        (body(pool(vmSize="Standard_NC6")), "VMSizeNotSupported", "The size was retired on 2022-08-31"),
        (
            body(pool(vmSize="standard_nc40ads_h100_v5")),
            "VMSizeNotSupported",
            f"Virtual Machine size: 'Standard_NC40ads_H100_v5' is not supported for subscription {SUBSCRIPTION} in "
            "location 'eastus'.",
        ),
        (
            body(pool(vmSize="Standard_NC4as_T4_v3", count=17)),
            "ErrCode_InsufficientVCPUQuota",
            "Insufficient vcpu quota requested 68, remaining 64 for family Standard NCASv3_T4 Family for region "
            "eastus. If you want to increase the quota",
        ),
        (
            body(
                pool(count=12, vmSize="Standard_D8s_v3"),
                pool("b", count=12, vmSize="Standard_D8s_v5"),
                pool("c", count=12, vmSize="Standard_D8ds_v5"),
            ),
            "ErrCode_InsufficientVCPUQuota",
            "Insufficient regional vcpu quota left for location eastus. left regional vcpu quota 256, requested "
            "quota 288.",
        ),
        (
            body(dnsPrefix=None),
            "InvalidParameter",
            "DNS prefix '' is invalid. DNS prefix must contain between 1 and 54",
        ),
        (body(dnsPrefix="my_cluster"), "InvalidParameter", "DNS prefix 'my_cluster' is invalid."),
        (body(nodeResourceGroup="RG"), "NodeResourceGroupSameAsResourceGroup", "is the same as ResourceGroup 'RG'"),
        (body(nodeResourceGroup="a/b"), "InvalidResourceGroup", "resource group name 'a/b' has these invalid"),
        (body(pool(nodeTaints=["sku=gpu"])), "InvalidParameter", "Invalid node taint 'sku=gpu'"),
        (body(pool(availabilityZones=["4"])), "AvailabilityZoneNotSupported", "The zone(s) '4' for resource"),
        (
            body(pool(), pool("a100", mode="User", vmSize="Standard_NC24ads_A100_v4", availabilityZones=["1", "2"])),
            "AvailabilityZoneNotSupported",
            "The zone(s) '2' for resource 'agentPoolProfile' is not supported. The supported zones for location "
            "'eastus' are '1','3'",
        ),
        (body(kubernetesVersion="1.12.0"), "K8sVersionNotSupported", "is on version 1.12.0"),
        (body(pool(), pool("s", scaleSetPriority="Spot")), "InvalidParameter", "cannot be a Spot node pool"),
        (body(pool(gpuInstanceProfile="MIG1g")), "InvalidParameter", "does not support MIG"),
        (
            body(pool(vmSize="Standard_NC24ads_A100_v4", gpuInstanceProfile="MIG9g")),
            "InvalidParameter",
            "'MIG9g' is not a GPU instance profile",
        ),
        (body(pool(gpuProfile={"driver": "Maybe"})), "InvalidParameter", "'Maybe' is not one of Install, None."),
        (
            body(pool(gpuProfile={"nvidia": {"managementMode": "Managed"}})),
            "InvalidParameter",
            "has no NVIDIA GPU that AKS can manage",
        ),
        (body(pool(capacityReservationGroupID="mine")), "InvalidParameter", "'mine' is not the resource id"),
        (
            body(pool(), pool("s", mode="User", scaleSetPriority="Spot", count=40)),
            "ErrCode_InsufficientVCPUQuota",
            "requested 80, remaining 64 for family lowPriorityCores",
        ),
    ],
)
def test_invalid_clusters(arm: Arm, document: dict[str, Any], code: str, text: str) -> None:
    status, found, message = refused(arm, document)
    assert (status, found) == (400, code)
    assert text in message
    assert arm.send("GET", CLUSTER).status_code == 404


@pytest.mark.parametrize(
    ("document", "field"),
    [
        *(
            (
                body(pool(), pool("gpunp", **{"mode": "User", field.partition(".")[0]: value})),
                f"agentPoolProfile.{field}",
            )
            for field, value in (
                ("availabilityZones", [1]),
                ("availabilityZones", [None]),
                ("nodeTaints", 5),
                ("minCount", "0"),
                ("count", True),
                ("gpuProfile", "x"),
                ("gpuProfile.nvidia", {"nvidia": "x"}),
                ("powerState", "Stopped"),
                ("powerState.code", {"code": "Off"}),
                ("capacityReservationGroupID", 5),
                ("nodeLabels", {"a": 1}),
                ("nodeLabels", {"a b": "c"}),
                ("nodeLabels", {"a": "-"}),
                ("nodeTaints", ["a//b=c:NoSchedule"]),
                ("spotMaxPrice", 0),
                ("spotMaxPrice", -0.5),
                ("scaleSetEvictionPolicy", "Drop"),
                ("scaleSetPriority", "Low"),
                ("scaleDownMode", "Pause"),
                ("osSKU", "Gentoo"),
                ("osType", "linux"),
                ("osDiskType", "Floppy"),
                ("osDiskSizeGB", 29),
                ("osDiskSizeGB", 2049),
                ("mode", "Boss"),
                ("maxPods", 9),
                ("maxPods", 251),
                ("type", "Pets"),
                ("upgradeSettings.maxSurge", {"maxSurge": "101%"}),
                ("upgradeSettings.maxSurge", {"maxSurge": "many"}),
            )
        ),
        (body() | {"properties": "x"}, "properties"),
        (body() | {"identity": "x"}, "identity"),
        (body() | {"tags": {"a": 1}}, "tags"),
        (body(agentPoolProfiles="x"), "agentPoolProfiles"),
        (body(agentPoolProfiles=[5]), "agentPoolProfiles"),
        (body(pool(), pool()), "agentPoolProfiles"),
        (body(apiServerAccessProfile={"authorizedIPRanges": ["home"]}), "apiServerAccessProfile.authorizedIPRanges"),
    ],
)
def test_invalid_fields(arm: Arm, document: dict[str, Any], field: str) -> None:
    answer = arm.send("PUT", CLUSTER, document)
    assert (answer.status_code, answer.json().get("code"), answer.json().get("target")) == (
        400,
        "InvalidParameter",
        field,
    )
    assert arm.send("GET", CLUSTER).status_code == 404


def test_a_system_pool_cannot_be_stopped(arm: Arm) -> None:
    client = arm.client()
    client.managed_clusters.begin_create_or_update("rg", "aks", body(pool(), pool("user1", mode="User"))).result()
    stopped = {"properties": {"powerState": {"code": "Stopped"}}}
    assert refused(arm, stopped, f"{CLUSTER}/agentPools/nodepool1")[:2] == (409, "OperationNotAllowed")
    assert refused(arm, {"properties": "x"}, f"{CLUSTER}/agentPools/user1")[:2] == (400, "InvalidParameter")
    assert arm.send("PUT", f"{CLUSTER}/agentPools/user1", stopped).status_code == 200


def test_quota_is_released(arm: Arm) -> None:
    client = arm.client()
    client.managed_clusters.begin_create_or_update("rg", "aks", body()).result()
    gpu = AgentPool(vm_size="Standard_NC4as_T4_v3", count=16)
    client.agent_pools.begin_create_or_update("rg", "aks", "gpunp", gpu).result()
    with pytest.raises(HttpResponseError) as caught:
        client.agent_pools.begin_create_or_update(
            "rg", "aks", "more", AgentPool(vm_size="Standard_NC8as_T4_v3", count=1)
        )
    answer = caught.value.response.json()
    assert list(answer) == ["code", "details", "message", "subcode"]
    assert "requested 8, remaining 0 for family Standard NCASv3_T4 Family" in caught.value.message
    path = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute/locations/eastus/usages"

    def used() -> int:
        rows = {row["name"]["value"].lower(): row for row in arm.send("GET", path).json()["value"]}
        return int(rows["standard ncasv3_t4 family"]["currentValue"])

    assert used() == 64
    client.agent_pools.begin_create_or_update("rg", "aks", "gpunp", AgentPool(count=1)).result()
    assert used() == 4
    client.agent_pools.begin_delete("rg", "aks", "gpunp").result()
    assert used() == 0


def test_invalid_names_of_clusters(arm: Arm) -> None:
    assert refused(arm, body(), CLUSTER.replace("/aks", "/aks-"))[1] == "InvalidParameter"
    assert refused(arm, body(), CLUSTER.replace("/aks", "/" + "a" * 64))[1] == "InvalidParameter"


@pytest.mark.parametrize(
    ("path", "code", "text"),
    [
        (CLUSTER.replace("/rg/", "/no/"), "ResourceGroupNotFound", "Resource group 'no' could not be found."),
        (
            CLUSTER,
            "ResourceNotFound",
            "The Resource 'Microsoft.ContainerService/managedClusters/aks' under resource group 'rg' was not found. "
            "For more details please go to https://aka.ms/ARMResourceNotFoundFix",
        ),
        (GROUP.replace(SUBSCRIPTION, SUBSCRIPTION[:-1] + "9"), "SubscriptionNotFound", "could not be found"),
        (f"{GROUP}/providers/Microsoft.Storage/x/y", "InvalidResourceType", "could not be found"),
    ],
)
def test_resources_that_do_not_exist(arm: Arm, path: str, code: str, text: str) -> None:
    answer = arm.send("GET", path)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == code
    assert text in answer.json()["error"]["message"]


def test_api_versions(arm: Arm) -> None:
    missing = arm.send("GET", GROUP, version=None)
    assert (missing.status_code, missing.json()["error"]["code"]) == (400, "MissingApiVersionParameter")
    assert arm.send("GET", GROUP, version="yesterday").json()["error"]["code"] == "InvalidApiVersionParameter"
    assert arm.send("PATCH", CLUSTER + "/agentPools", {}).status_code == 405


def test_bodies_that_are_not_json_objects(arm: Arm) -> None:
    answer = arm.send("PUT", CLUSTER, ["a"])
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "InvalidRequestContent")


@pytest.mark.parametrize("text", ["{", '{"tags": {"a": "\\ud800"}}', '{"properties": {"spotMaxPrice": NaN}}'])
def test_bodies_that_are_not_json(arm: Arm, text: str) -> None:
    answer = arm.send("PUT", CLUSTER, text)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "InvalidRequestContent")


def test_bodies_with_a_content_encoding(arm: Arm) -> None:
    for encoding in ("gzip", "deflate", "br", "zstd", "rot13"):
        answer = arm.send("PUT", CLUSTER, "{}", **{"Content-Encoding": encoding})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "InvalidRequestContent")


def test_bodies_that_are_nested_too_deeply(arm: Arm) -> None:
    for depth in (100, 900, 100_000):
        deep = '{"location": "eastus", "properties": {"networkProfile": ' + '{"a":' * depth + "1" + "}" * (depth + 2)
        answer = arm.send("PUT", CLUSTER, deep)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "InvalidRequestContent")


def test_bodies_that_are_too_large(arm: Arm) -> None:
    answer = arm.send("PUT", CLUSTER, {"tags": {"a": "b" * 2**21}})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "RequestContentTooLarge")


def test_a_node_resource_group_must_not_exist(arm: Arm) -> None:
    mine = GROUP.replace("/rg", "/mine")
    arm.send("PUT", mine, {"location": "eastus"}, "2021-04-01")
    status, code, text = refused(arm, body(nodeResourceGroup="Mine"))
    assert (status, code) == (400, "NodeResourceGroupAlreadyExists") and "'Mine' under subscription" in text
    assert "managedBy" not in arm.send("GET", mine, version="2021-04-01").json()


def test_immutable_fields(arm: Arm) -> None:
    client = arm.client()
    client.managed_clusters.begin_create_or_update("rg", "aks", body()).result()
    with pytest.raises(HttpResponseError, match=r"Changing property 'properties\.vmSize' is not allowed"):
        client.agent_pools.begin_create_or_update("rg", "aks", "nodepool1", AgentPool(vm_size="Standard_D4s_v3"))
    assert refused(arm, body(dnsPrefix="other"))[1] == "PropertyChangeNotAllowed"
    assert refused(arm, body() | {"location": "westus2"})[1] == "InvalidResourceLocation"
    with pytest.raises(HttpResponseError, match="at least one system agent pool"):
        client.agent_pools.begin_delete("rg", "aks", "nodepool1")
    with pytest.raises(ResourceNotFoundError, match="Could not find the agentpool"):
        client.agent_pools.get("rg", "aks", "nope")
    assert refused(arm, {"location": "westus2"}, GROUP)[1] == "InvalidResourceGroupLocation"


def test_etags(arm: Arm) -> None:
    client = arm.client()
    client.managed_clusters.begin_create_or_update("rg", "aks", body()).result()
    pool_path = f"{CLUSTER}/agentPools/nodepool1"
    stale = arm.send("PUT", pool_path, {"properties": {"count": 2}}, **{"If-Match": '"old"'})
    assert stale.status_code == 412
    assert arm.send("PUT", CLUSTER, body(), **{"If-None-Match": "*"}).status_code == 412
    etag = arm.send("GET", pool_path).json()["properties"]["eTag"]
    for method, path in (("PATCH", CLUSTER), ("DELETE", CLUSTER), ("DELETE", pool_path)):
        assert arm.send(method, path, {} if method == "PATCH" else None, **{"If-Match": '"old"'}).status_code == 412
    assert arm.send("PUT", pool_path, {"properties": {"count": 2}}, **{"If-Match": etag}).status_code == 200


def test_invalid_requests_are_refused_even_while_an_operation_is_in_progress(arm: Arm) -> None:
    client = arm.client()
    client.managed_clusters.begin_create_or_update("rg", "aks", body()).result()
    arm.run(arm.manager.inject("stuck", {}))
    arm.send("PUT", f"{CLUSTER}/agentPools/gpunp", {"properties": {"vmSize": "Standard_D2s_v3"}})
    wrong = {"vmSize": "Standard_D2s_v3", "scaleSetPriority": "Spot", "spotMaxPrice": -5}
    answer = arm.send("PUT", f"{CLUSTER}/agentPools/spot", {"properties": wrong})
    assert (answer.status_code, answer.json()["code"]) == (400, "InvalidParameter")
    assert refused(arm, body(kubernetesVersion="1.2.3"))[1] == "K8sVersionNotSupported"
    assert refused(arm, body())[1] == "OperationNotAllowed"


def test_a_subnet_of_ones_own_needs_pools_that_have_one(arm: Arm) -> None:
    gpu = {"properties": {"vmSize": "Standard_NC4as_T4_v3", "vnetSubnetID": "/subscriptions/0/subnets/gpus"}}
    arm.client().managed_clusters.begin_create_or_update("rg", "aks", body()).result()
    answer = arm.send("PUT", f"{CLUSTER}/agentPools/gpunp", gpu)
    assert (answer.status_code, answer.json()["code"]) == (400, "InvalidParameter")
    assert "because agent pool nodepool1 is using a managed subnet" in answer.json()["message"]
    assert arm.send("GET", f"{CLUSTER}/agentPools/gpunp").status_code == 404


def test_a_subnet_beside_another_one(arm: Arm) -> None:
    gpu = {"properties": {"vmSize": "Standard_NC4as_T4_v3", "vnetSubnetID": "/subscriptions/0/subnets/gpus"}}
    document = body(pool(vnetSubnetID="/subscriptions/0/subnets/system"))
    arm.client().managed_clusters.begin_create_or_update("rg", "aks", document).result()
    answer = arm.send("PUT", f"{CLUSTER}/agentPools/gpunp", gpu)
    assert answer.status_code == 201
    assert answer.json()["properties"]["vnetSubnetID"] == "/subscriptions/0/subnets/gpus"


def test_every_error_text_is_used_and_every_used_one_exists() -> None:
    folder = Path(arm_errors.__file__).parent
    rows = reference_data.table("refusals")
    named = {name for section in rows.values() for name in section}
    source = "\n".join(path.read_text() for path in folder.glob("*.py")) + (folder / "fields.yaml").read_text()
    assert set(re.findall(r'refusal\(\s*"(\w+)"', source)) <= named
    assert [name for name in named if not re.search(rf"\b{name}\b", source)] == []
