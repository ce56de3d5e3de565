"""Read what a diagnosis needs. What cannot be read is recorded as unknown and never treated as absent."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from aksgpu.azure import Azure
from aksgpu.capacity import Usage, usage
from aksgpu.cluster import Cluster, get_pool
from aksgpu.diagnose.cures import Cure, fill
from aksgpu.diagnose.diagnosis import Diagnosis, Rows
from aksgpu.diagnose.failure_text import Failure
from aksgpu.diagnose.node_problems import NodeProblem, problems_of
from aksgpu.diagnose.runner_exits import cure_of_call, is_call
from aksgpu.errors import AksGpuError, GpuStackError, KubernetesError, NotFound, Unreachable
from aksgpu.kube import path_names, pod_facts
from aksgpu.kube.client import HasKube, Object
from aksgpu.kube.node_facts import Node, read
from aksgpu.logs.job_logs import read as read_log

__all__ = ["TAIL", "TAIL_TIMEOUT", "ClusterReader", "has_azure"]

T = TypeVar("T")

_AZURE_REGISTRY = re.compile(r"^([a-z0-9]{5,50})\.azurecr\.(?:io|cn|us)/")

TAIL = 20
"""Lines of a log that are evidence."""
TAIL_TIMEOUT = 5.0
"""Seconds for which reading a log is retried."""


def has_azure(aks: HasKube) -> bool:
    """Whether the cluster is managed through Azure, so that node pools and ``az`` can change it."""
    return getattr(aks, "azure", None) is not None


@dataclass
class _Shared:
    """What several diagnoses need of the same cluster: None if it was not read yet, or could not be read."""

    nodes: list[Node] | None = None
    usage: dict[str, Usage] | None = None
    problems: dict[str, list[NodeProblem]] = field(default_factory=dict)


class ClusterReader:
    """Reads a cluster for one diagnosis.

    Attributes:
        aks: the cluster.
        unknown: what could not be read, and why.
    """

    def __init__(self, aks: HasKube) -> None:
        self.aks = aks
        self.unknown: list[str] = []
        self.names: dict[str, str] = {
            "CLUSTER": str(getattr(aks, "name", "") or ""),
            "GROUP": str(getattr(aks, "resource_group", "") or ""),
        }
        """Names that replace the placeholders of a cure."""
        self._is_call = False
        self._unreachable = False
        self._shared = _Shared()

    def for_another(self) -> ClusterReader:
        """Return a reader for another object of the cluster. It shares the nodes and the GPUs in use."""
        other = ClusterReader(self.aks)
        other._shared = self._shared
        return other

    @property
    def problems(self) -> dict[str, list[NodeProblem]]:
        """What the conditions of the nodes report, by node name."""
        return self._shared.problems

    @property
    def has_azure(self) -> bool:
        """Whether the cluster is managed through Azure."""
        return has_azure(self.aks)

    def attempt(self, what: str, fetch: Callable[[], T]) -> T | None:
        """Return what ``fetch`` returns, or None if the API server refuses or does not answer.

        Once the API server has not answered, no further request is sent: each could take a minute.

        Args:
            what: what is fetched, such as ``the nodes``.
            fetch: sends the request.
        """
        if self._unreachable:
            self.unknown.append(f"{what}: not asked for, since the API server does not answer")
            return None
        try:
            return fetch()
        except KubernetesError as error:
            self._unreachable = isinstance(error, Unreachable)
            self.unknown.append(f"{what}: {error.message}")
            return None

    def finish(self, diagnosis: Diagnosis) -> Diagnosis:
        """Return the diagnosis with what could not be read."""
        return replace(diagnosis, unknown=tuple(dict.fromkeys((*diagnosis.unknown, *self.unknown))))

    def know(self, **names: str | None) -> None:
        """Remember names that replace the placeholders of a cure. Empty ones are ignored."""
        self.names.update({name: value for name, value in names.items() if value})

    def know_job(self, job: Object) -> None:
        """Remember the names of a Job, and whether an Executor made it."""
        metadata = job["metadata"]
        self._is_call = is_call(job)
        self.know(JOB=metadata["name"], NAMESPACE=metadata["namespace"])

    def know_pod(self, pod: Object) -> None:
        """Remember the names of a pod, of its Job and of its image, and whether an Executor made it."""
        metadata = pod["metadata"]
        self._is_call = is_call(pod)
        job = pod_facts.job_name(pod)
        image = str(pod["spec"]["containers"][0].get("image") or "")
        registry = _AZURE_REGISTRY.search(image)
        self.know(
            POD=metadata["name"],
            NAMESPACE=metadata.get("namespace"),
            JOB=job,
            NODE=pod["spec"].get("nodeName"),
            IMAGE=image,
            REGISTRY=registry[1] if registry else None,
        )

    def diagnosis(
        self,
        verdict: str,
        cure: Cure,
        rows: Rows,
        *,
        error: Callable[..., AksGpuError] | None = None,
        cause: str = "",
    ) -> Diagnosis:
        """Return a diagnosis whose cure has the names that are known.

        Args:
            verdict: one sentence.
            cure: what helps.
            rows: the evidence.
            error: makes the exception from the verdict and ``hint``; None if no class represents it.
            cause: the name of the cause in the tables.
        """
        if self._is_call:
            cure = cure_of_call(cure, cause)
        fix = fill(cure.advice_for(self.has_azure), self.names)
        raised = None if error is None else error(verdict, hint=fix)
        return Diagnosis(
            verdict,
            fix,
            rows,
            raised,
            python=self._filled(cure.python_for(self.has_azure)),
            shell=self._filled(cure.shell_for(self.has_azure)),
            cause=cause,
        )

    def known_failure(self, verdict: str, failure: Failure, rows: Rows, *, nodes: tuple[str, ...] = ()) -> Diagnosis:
        """Return the diagnosis of a failure of the table.

        Args:
            verdict: one sentence.
            failure: the failure.
            rows: the evidence.
            nodes: the nodes whose GPUs it is about, for the exception.
        """
        facts = dict(failure.facts)
        if nodes and issubclass(failure.kind, GpuStackError):
            facts["nodes"] = nodes
        return self.diagnosis(
            verdict,
            failure.cure,
            rows,
            error=lambda text, hint: failure.kind(text, hint=hint, **facts),
            cause=failure.name,
        )

    def _filled(self, code: str) -> str:
        """Return code with the names that are known; empty if it needs the name of a Job and there is none."""
        filled = fill(code, self.names)
        return "" if "JOB" in code and not self.names.get("JOB") else filled

    def custom(self, group: str, plural: str, namespace: str = "") -> list[Object] | None:
        """Return custom resources; empty if the cluster does not have the kind, None if they could not be read.

        Args:
            group: API group, such as ``karpenter.sh``.
            plural: such as ``nodeclaims``.
            namespace: empty lists all namespaces, or a kind without namespaces.
        """

        def fetch() -> list[Object]:
            kube = self.aks.kube
            try:
                version = kube.request("GET", f"/apis/{group}")["preferredVersion"]["groupVersion"]
                where = f"/namespaces/{path_names.check_namespace(namespace)}" if namespace else ""
                found: list[Object] = kube.request("GET", f"/apis/{version}{where}/{plural}")["items"]
            except (NotFound, KeyError):
                return []
            return found

        return self.attempt(f"{plural}.{group}", fetch)

    def node(self, name: str) -> Object | None:
        """Return the Node object; an empty one if the node does not exist, None if it could not be read."""

        def fetch() -> Object:
            try:
                return self.aks.kube.get("Node", name)
            except NotFound:
                return {}

        return self.attempt(f"node {name}", fetch)

    def nodes(self) -> list[Node] | None:
        """Return all nodes by pool and name; None if they could not be read. They are read once."""
        if self._shared.nodes is None:
            found = self.attempt("the nodes", lambda: self.aks.kube.list("Node", pick=_with_problems))
            if found is None:
                return None
            self._shared.nodes = sorted((node for node, _ in found), key=lambda node: (node.pool, node.name))
            self._shared.problems = {node.name: problems for node, problems in found if problems}
        return self._shared.nodes

    def usage(self) -> dict[str, Usage] | None:
        """Return the GPUs in use by node; None if that could not be read. They are read once."""
        if self._shared.usage is None:
            what = "who uses the GPUs (the pods of all namespaces)"
            self._shared.usage = self.attempt(what, lambda: usage(self.aks))
        return self._shared.usage

    def pool_rows(self) -> Rows:
        """Return what Azure reports about the pool whose name is known, as evidence; empty without Azure."""
        pool = self.names.get("POOL")
        azure = getattr(self.aks, "azure", None)
        if not pool or not isinstance(self.aks, Cluster) or not isinstance(azure, Azure):
            return ()
        try:
            found = get_pool(self.aks, pool)
        except AksGpuError as error:
            self.unknown.append(f"pool {pool}: {error.message}")
            return ()
        return ((f"pool {pool}", repr(found)),)

    def log(self, pod: Object, container: str, *, previous: bool = False, lines: int = TAIL) -> str | None:
        """Return the last lines of a container's log; empty if it has none, None if it could not be read.

        Args:
            pod: the Pod object.
            container: name.
            previous: read the run before the last restart.
            lines: how many lines.
        """
        metadata = pod["metadata"]

        def fetch() -> str:
            return read_log(
                self.aks,
                metadata["name"],
                namespace=metadata["namespace"],
                container=container,
                tail_lines=lines,
                previous=previous,
                timeout=TAIL_TIMEOUT,
            )

        return self.attempt(f"the log of pod {metadata['name']}", fetch)

    def beginning(self, pod: Object, container: str, size: int) -> str | None:
        """Return the beginning of a container's log; empty if it has none, None if it could not be read.

        Args:
            pod: the Pod object.
            container: name.
            size: how many bytes.
        """
        metadata = pod["metadata"]

        def fetch() -> str:
            stream = self.aks.kube.log(metadata["name"], metadata["namespace"], container=container)
            parts: list[bytes] = []
            length = 0
            with stream:
                for line in stream.lines():
                    parts.append(line)
                    length += len(line)
                    if length >= size:
                        break
            return b"".join(parts).decode("utf-8", "replace")

        return self.attempt(f"the beginning of the log of pod {metadata['name']}", fetch)


def _with_problems(node: Object) -> tuple[Node, list[NodeProblem]]:
    """Return what matters of a Node object."""
    return read(node), problems_of(node)
