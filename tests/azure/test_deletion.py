from __future__ import annotations

import pytest

from aksgpu import cluster, kube
from aksgpu.azure import Azure
from aksgpu.azure.saved_operation import SavedOperation
from aksgpu.errors import Unauthorized


def test_a_deleted_cluster_leaves_no_files_and_its_object_reports_the_deletion(azure: Azure) -> None:
    aks = cluster.create(azure, "files", resource_group="files", location="eastus")
    own = [cluster.kubeconfig(aks), cluster.kubeconfig(aks, admin=True)]
    assert isinstance(aks.kube, kube.Kube)
    kept = [SavedOperation(azure.home, aks.id), SavedOperation(azure.home, f"{aks.id}/agentPools/nodepool1")]
    for each in kept:
        each.save("what was interrupted", "token")
    cluster.delete(aks)
    assert [path for path in (*own, *(each.path for each in kept)) if path.exists()] == []
    with pytest.raises(Unauthorized, match=r"may have been deleted or created again.*cluster\.get\("):
        aks.kube.list("Node")
    with pytest.warns(UserWarning, match="cluster 'files' does not exist"):
        cluster.delete(aks)
