"""The arguments and the return type of Resource Manager's request handlers.

A handler takes the :class:`Context` and a :class:`Call`, and returns an :class:`Answer`. It does not depend on the HTTP
server, and uses Kubernetes only through :class:`Clusters`.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from aksgpu.local.arm.arm_errors import refusal
from aksgpu.local.arm.arm_store import Document, State
from aksgpu.local.arm.async_operations import Operations
from aksgpu.local.arm.faults import Faults
from aksgpu.local.arm.representations import served_version
from aksgpu.local.arm.resource_ids import cluster_key, operations_path
from aksgpu.local.objects import Objects
from aksgpu.local.settings import Settings


class Clusters(Protocol):
    """The Kubernetes clusters of this machine, by their ids."""

    async def open(self, cluster_id: str, token: str, version: str) -> Objects:
        """Start the cluster if it is not running.

        Args:
            cluster_id: the cluster's id.
            token: its administrator's bearer token.
            version: its Kubernetes version.
        """
        ...

    def unload_roles(self, seconds: float) -> None:
        """Make every running API server behave for some seconds as if it had not loaded the RBAC roles yet."""
        ...

    async def close(self, cluster_id: str) -> None:
        """Stop the cluster and keep its state."""
        ...

    async def delete(self, cluster_id: str) -> None:
        """Stop the cluster and remove its state."""
        ...


@dataclass(frozen=True)
class Call:
    """One request.

    Attributes:
        base_url: the server's address, without a slash at the end.
        path: the values of the placeholders in the route's path.
        query: the query parameters. Their names are in lower case.
        headers: the headers. Their names are case-insensitive.
        body: the parsed JSON body, or None.
    """

    base_url: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Answer:
    """One response. It has no body if ``body`` is None."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Context:
    """The state of the subscription, and the services that handlers need.

    Attributes:
        state: the stored documents.
        clusters: runs the Kubernetes clusters.
        settings: the laptop's settings.
        ca_file: the laptop's certificate authority.
        faults: the injected faults.
        operations: the long-running operations.
        node_locks: by cluster id, a lock that is held while nodes are created or removed.
    """

    state: State
    clusters: Clusters
    settings: Settings
    ca_file: Path
    faults: Faults
    operations: Operations
    node_locks: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def get_objects(self, cluster: Document) -> Objects:
        """Return the Kubernetes objects of a cluster. Start the cluster if it is not running."""
        return await self.clusters.open(cluster["id"], cluster["token"], served_version(cluster))

    def save(self, cluster: Document) -> None:
        """Write a cluster to disk."""
        self.state.save(("clusters", cluster_key(cluster["group"], cluster["name"])))

    def get_group(self, call: Call) -> Document:
        """Return the resource group in the request's path; raises ArmError if it does not exist."""
        name = call.path["group"]
        if name.lower() not in self.state.groups:
            raise refusal("no_group", name=name)
        return self.state.groups[name.lower()]

    def find_cluster(self, call: Call) -> Document | None:
        """Return the cluster in the request's path, or None; raises ArmError if its group does not exist."""
        return self.state.clusters.get(cluster_key(self.get_group(call)["name"], call.path["cluster"]))

    def get_cluster(self, call: Call) -> Document:
        """Return the cluster in the request's path; raises ArmError if it does not exist."""
        cluster = self.find_cluster(call)
        if cluster is None:
            raise refusal("no_cluster", name=call.path["cluster"], group=self.get_group(call)["name"])
        return cluster

    def get_pool(self, call: Call) -> tuple[Document, Document]:
        """Return the cluster and the agent pool in the request's path; raises ArmError if one does not exist."""
        cluster = self.get_cluster(call)
        name = call.path["pool"]
        if name.lower() not in cluster["pools"]:
            raise refusal("no_pool", pool=name, cluster=cluster["name"], group=cluster["group"])
        return cluster, cluster["pools"][name.lower()]

    def accept(self, call: Call, operation: Document, *, status: int = 202, body: Any = None) -> Answer:
        """Return the response for a long-running operation, with headers that say where and when to poll."""
        version = f"?api-version={quote(call.query.get('api-version', '2017-08-31'))}"
        address = f"{call.base_url}{operations_path(operation)}"
        headers = {"Azure-AsyncOperation": f"{address}/operations/{operation['id']}{version}"}
        headers |= self.operations.retry_after(operation)
        if status == 202:
            headers["Location"] = f"{address}/operationresults/{operation['id']}{version}"
        return Answer(status, body, headers)
