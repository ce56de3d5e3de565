"""The helper pod runs where the claim can be used, and a disk is made where GPU nodes are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.polling import wait_for

from aksgpu import cluster, jobs, plugin, storage
from aksgpu.cluster import Cluster
from aksgpu.kube import Kube
from aksgpu.storage import helper_placement

ZONE_OF_DISK = "aksgpu.dev/disk-zone"
TIMEOUT = 180


@pytest.fixture(scope="module")
def zonal(azure: Any) -> Iterator[Cluster]:
    """A system pool without zones, and a tainted GPU pool in zone 2."""
    made = cluster.create(azure, "zonal", resource_group="zonal", location="eastus")
    cluster.add_gpu_pool(made, "gpunp", vm_size="Standard_NC4as_T4_v3", count=1, zones=["2"])
    plugin.install(made, timeout=120)
    yield made
    cluster.delete(made)


def where(path: str) -> str:
    return Path(path).read_text()


def zone_of(aks: Cluster, claim: str) -> str:
    found = aks.kube.get("PersistentVolumeClaim", claim)
    return str(found["metadata"]["annotations"][ZONE_OF_DISK])


def test_a_disk_is_made_in_the_zone_of_the_gpu_nodes(zonal: Cluster, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("content")
    storage.create(zonal, "disk", size_gb=1, shared=False)
    storage.upload(zonal, "disk", tmp_path / "a")
    assert zone_of(zonal, "disk") == "eastus-2"
    gpu = jobs.Executor(zonal, gpus=1, volumes={"/data": "disk"}, root=Path(__file__).parent)
    assert gpu.submit(where, "/data/a").result(TIMEOUT) == "content"
    assert list(storage.ls(zonal, "disk")["path"]) == ["a"]


def test_a_pool_without_nodes_has_a_zone_too(zonal: Cluster, tmp_path: Path) -> None:
    cluster.add_gpu_pool(zonal, "empty", vm_size="Standard_NC4as_T4_v3", count=0, zones=["3"])
    spec: dict[str, Any] = {}
    claim = {"metadata": {"name": "new", "namespace": "default"}, "status": {"phase": "Pending"}}
    assert helper_placement._zones_of_pools(zonal) == ["eastus-2", "eastus-3"]
    helper_placement.place(zonal, spec, claim, shared=False)
    required = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = required["nodeSelectorTerms"]
    assert term["matchExpressions"][0]["values"] == ["eastus-2"], "nodes that exist decide"
    cluster.delete_pool(zonal, "empty")


def test_a_shared_claim_prefers_nodes_without_gpus(zonal: Cluster) -> None:
    spec: dict[str, Any] = {}
    claim = {"metadata": {"name": "new", "namespace": "default"}, "status": {"phase": "Bound"}}
    helper_placement.place(zonal, spec, claim, shared=True)
    (preferred,) = spec["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    (rule,) = preferred["preference"]["matchExpressions"]
    assert (rule["operator"], rule["values"]) == ("NotIn", ["gpunp"])
    assert "requiredDuringSchedulingIgnoredDuringExecution" not in spec["affinity"]["nodeAffinity"]


def test_a_disk_in_use_is_read_on_its_node(zonal: Cluster, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("content")
    storage.create(zonal, "busy", size_gb=1, shared=False)
    storage.upload(zonal, "busy", tmp_path / "a")
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "user"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "busybox", "command": ["sleep", "600"]}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "busy"}}],
            "tolerations": [{"operator": "Exists"}],
        },
    }
    zonal.kube.create(pod)
    wait_for(lambda: zonal.kube.get("Pod", "user")["status"]["phase"] == "Running", 120)
    spec: dict[str, Any] = {}
    helper_placement.place(zonal, spec, zonal.kube.get("PersistentVolumeClaim", "busy"), shared=False)
    required = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (field,) = required["nodeSelectorTerms"][0]["matchFields"]
    assert field["values"] == [zonal.kube.get("Pod", "user")["spec"]["nodeName"]]
    assert list(storage.ls(zonal, "busy")["path"]) == ["a"]
    zonal.kube.delete("Pod", "user")


NAMESPACE = "team"


@pytest.fixture
def editor(zonal: Cluster, tmp_path: Path) -> Cluster:
    """The cluster as a user with the role ``edit`` in one namespace."""
    kube = zonal.kube
    for obj in (
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "editor", "namespace": NAMESPACE},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "eve"}],
        },
    ):
        kube.apply(obj)
    path = tmp_path / "config"
    cluster.get_credentials(zonal, file=path)
    config = yaml.safe_load(path.read_text())
    config["users"][0]["user"]["as"] = "eve"
    config["contexts"][0]["context"]["namespace"] = NAMESPACE
    path.write_text(yaml.safe_dump(config))
    return Cluster("zonal", kube=Kube.from_kubeconfig(path))


def test_the_edit_role_suffices(editor: Cluster, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("content")
    with pytest.warns(UserWarning, match="AKS' documented class 'azurefile-csi' is assumed"):
        storage.create(editor, "mine", size_gb=1)
    storage.create(editor, "mine", size_gb=1)
    assert storage.upload(editor, "mine", tmp_path / "a").files == 1
    assert list(storage.ls(editor, "mine")["path"]) == ["a"]
    assert storage.list(editor)["claim"].tolist() == ["mine"]
    storage.download(editor, "mine", "a", to=tmp_path / "back")
    assert (tmp_path / "back").read_text() == "content"
    with pytest.warns(UserWarning, match="documented class 'managed-csi' is assumed"):
        storage.create(editor, "disk", size_gb=1, shared=False)
    with pytest.warns(UserWarning, match="the disk of claim 'disk' is made in any zone"):
        storage.upload(editor, "disk", tmp_path / "a")
    for name in ("mine", "disk"):
        storage.delete(editor, name, timeout=60)
