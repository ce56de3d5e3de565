"""A cluster's kubeconfig: its address on this machine, the laptop's certificate authority, and a token."""

from __future__ import annotations

import base64
from typing import Any

import yaml

from aksgpu.local.arm.context import Context
from aksgpu.local.arm.state import Document


def kubeconfig(context: Context, base_url: str, cluster: Document, credential: str) -> str:
    """The kubeconfig in base64, named as AKS names its parts.

    Args:
        context: the subscription.
        base_url: where this machine serves, without a slash at the end.
        cluster: the cluster.
        credential: ``clusterUser`` or ``clusterAdmin``.
    """
    name, user = cluster["name"], f"{credential}_{cluster['group']}_{cluster['name']}"
    where = name if credential == "clusterUser" else f"{name}-admin"
    config: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": name,
                "cluster": {
                    "certificate-authority-data": base64.b64encode(context.ca_file.read_bytes()).decode(),
                    "server": f"{base_url}/k8s/clusters/{cluster['id']}",
                },
            }
        ],
        "contexts": [{"name": where, "context": {"cluster": name, "user": user}}],
        "current-context": where,
        "preferences": {},
        "users": [{"name": user, "user": {"token": cluster["token"]}}],
    }
    return base64.b64encode(yaml.safe_dump(config, sort_keys=False).encode()).decode()
