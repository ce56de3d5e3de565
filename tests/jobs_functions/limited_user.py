"""A cluster as a user sees it who may edit one namespace."""

from __future__ import annotations

import json
from pathlib import Path

from aksgpu.cluster import Cluster
from aksgpu.kube import Kube, kubeconfig


class Limited:
    """A cluster as a user sees it who has a role in one namespace."""

    name = "limited"

    def __init__(self, kube: Kube) -> None:
        self.kube = kube


def limited(aks: Cluster, folder: Path) -> Limited:
    aks.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "dev", "namespace": "team"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "User", "name": "dev", "apiGroup": "rbac.authorization.k8s.io"}],
    }
    aks.kube.apply(binding)
    config = kubeconfig.load(aks.kube._transport._path)
    for entry in config["users"]:
        entry["user"] = {**entry["user"], "as": "dev"}
    path = folder / "dev"
    path.write_text(json.dumps(config))
    return Limited(Kube.from_kubeconfig(path))
