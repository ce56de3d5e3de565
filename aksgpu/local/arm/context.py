"""What every handler of Resource Manager is given, and what it gives back.

Handlers know neither the HTTP server nor how a cluster runs: they see a :class:`Call`, return an :class:`Answer`, and
reach Kubernetes through :class:`Clusters` alone.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from aksgpu.local.arm.arm_errors import refusal, refuse_if
from aksgpu.local.arm.arm_store import Document, State
from aksgpu.local.arm.reference_data import SUBSCRIPTION
from aksgpu.local.objects import Objects
from aksgpu.local.settings import Settings

if TYPE_CHECKING:
    from aksgpu.local.arm.async_operations import Operations
    from aksgpu.local.arm.faults import Faults

_TERM = re.compile(r"(?:^|(?<!\s)\s+(and|or)\s+)(?:(\w+)\s+(eq|ne)\s+'([^']*)'|contains\((\w+),\s*'([^']*)'\))")
_FILTER = re.compile(f"(?:{_TERM.pattern})+")
_ALIASES = {"pricetype": "type", "resourcetype": "type"}
CLUSTER_TYPE = "Microsoft.ContainerService/managedClusters"


class Clusters(Protocol):
    """The Kubernetes clusters of this machine, by their ids."""

    async def open(self, cluster_id: str, token: str) -> Objects:
        """Start the cluster, or find it running; ``token`` is its administrator's."""
        ...

    async def close(self, cluster_id: str) -> None:
        """Stop the cluster and keep its state."""
        ...

    async def delete(self, cluster_id: str) -> None:
        """Stop the cluster and forget its state."""
        ...


@dataclass
class Context:
    """The subscription on this machine."""

    state: State
    clusters: Clusters
    settings: Settings
    ca_file: Path
    faults: Faults
    operations: Operations = field(init=False)
    nodes_lock: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    """By cluster id: whoever makes or removes nodes holds it."""

    async def objects(self, cluster: Document) -> Objects:
        """The objects of a cluster, which is started where it does not run."""
        return await self.clusters.open(cluster["id"], cluster["token"])

    def save(self, cluster: Document) -> None:
        """Write down what a cluster has become."""
        self.state.save(("clusters", cluster_key(cluster["group"], cluster["name"])))

    def group(self, call: Call) -> Document:
        """The resource group that the path names."""
        name = call.path["group"]
        if name.lower() not in self.state.groups:
            raise refusal("no_group", name=name)
        return self.state.groups[name.lower()]

    def known_cluster(self, call: Call) -> Document | None:
        """The cluster that the path names, if there is one; its resource group has to be there."""
        return self.state.clusters.get(cluster_key(self.group(call)["name"], call.path["cluster"]))

    def cluster(self, call: Call) -> Document:
        """The cluster that the path names."""
        cluster = self.known_cluster(call)
        if cluster is None:
            raise refusal("no_cluster", name=call.path["cluster"], group=self.group(call)["name"])
        return cluster

    def pool(self, call: Call) -> tuple[Document, Document]:
        """The cluster and the agent pool that the path names."""
        cluster = self.cluster(call)
        name = call.path["pool"]
        if name.lower() not in cluster["pools"]:
            raise refusal("no_pool", pool=name, cluster=cluster["name"], group=cluster["group"])
        return cluster, cluster["pools"][name.lower()]

    def accepted(self, call: Call, operation: Document, *, status: int = 202, body: Any = None) -> Answer:
        """An answer that starts a long-running operation: where to ask how it stands, and when."""
        version = f"?api-version={quote(call.query.get('api-version', '2017-08-31'))}"
        place = f"{call.base_url}{operation_place(operation)}"
        headers = {"Azure-AsyncOperation": f"{place}/operations/{operation['id']}{version}"}
        headers |= self.operations.patience(operation)
        if status == 202:
            headers["Location"] = f"{place}/operationresults/{operation['id']}{version}"
        return Answer(status, body, headers)


@dataclass(frozen=True)
class Call:
    """One request, with the names that its path holds."""

    base_url: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    """Its keys in lower case."""
    headers: Mapping[str, str]
    """Its keys do not regard case."""
    body: Any


@dataclass(frozen=True)
class Answer:
    """One answer; without a body when ``body`` is None."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


def filtered(call: Call, rows: list[Document], refused: str = "bad_filter") -> list[Document]:
    """The rows, all of the same fields, that an OData ``$filter`` picks.

    Refused where it holds more than ``eq``, ``ne``, ``contains``, and, or, or names a field that rows do not have.
    """
    text = call.query.get("$filter", "").strip()
    if not text:
        return rows
    refuse_if(_FILTER.fullmatch(text) is None, refused, filter=text)
    fields = _ALIASES | {field.lower(): field for row in rows[:1] for field in row}
    ways: list[list[tuple[str, str, str]]] = [[]]
    for joined, exact_of, compared, exact, part_of, part in _TERM.findall(text):
        name = fields.get((exact_of or part_of).lower(), "")
        refuse_if(rows and name not in rows[0], refused, filter=text)
        if joined == "or":
            ways.append([])
        ways[-1].append((name, compared, exact or part))

    def fits(row: Document, field: str, compared: str, wanted: str) -> bool:
        value = str(row[field])
        return (value.lower() == wanted.lower()) == (compared == "eq") if compared else wanted in value

    return [row for row in rows if any(all(fits(row, *term) for term in way) for way in ways)]


def group_id(name: str) -> str:
    """A resource group's ARM id."""
    return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{name}"


def cluster_id(cluster: Document) -> str:
    """A cluster's ARM id."""
    return f"{group_id(cluster['group'])}/providers/{CLUSTER_TYPE}/{cluster['name']}"


def cluster_key(group: str, name: str) -> str:
    """Where the state keeps a cluster: Azure's names do not regard case."""
    return f"{group}/{name}".lower()


def operation_place(operation: Document) -> str:
    """The path below which an operation's status and result are."""
    return f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.ContainerService/locations/{operation['location']}"
