"""What is wrong with a cluster: its nodes, its GPUs, the pods that wait for them, and its autoscalers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from aksgpu.diagnose import node_claims
from aksgpu.diagnose.cluster_reader import ClusterReader
from aksgpu.diagnose.diagnosis import Diagnosis, Rows
from aksgpu.diagnose.node_diagnosis import diagnose_node, node_problem
from aksgpu.diagnose.pod_diagnosis import diagnose_pod
from aksgpu.kube import pod_facts
from aksgpu.kube.client import HasKube, Object
from aksgpu.kube.cluster_argument import check_cluster
from aksgpu.kube.node_facts import Node

__all__ = ["cluster"]

_EXPLAINED_PODS = 3
"""Pods that wait for GPUs that are explained. The others are counted."""


def cluster(aks: HasKube) -> Diagnosis:
    """Explain what is wrong with a cluster: its nodes, its GPUs, the pods that wait for them, and its autoscalers.

    Args:
        aks: the cluster.

    Returns:
        The verdict names the most important problem and counts the others. The evidence has one row for each of them,
        and one for each NodeClaim and NodePool of node auto-provisioning that is not ready.

    Raises:
        InvalidInput: ``aks`` is not a cluster.

    Example:
        >>> diagnose.cluster(aks)  # doctest: +SKIP
    """
    check_cluster(aks)
    reader = ClusterReader(aks)
    return reader.finish(_diagnose(reader))


def _diagnose(reader: ClusterReader) -> Diagnosis:
    nodes = reader.nodes()
    if nodes is None:
        return Diagnosis(
            "It could not be found out whether anything is wrong with the cluster: its nodes could not be read."
        )
    sick = _sick_nodes(reader, nodes)
    waiting = _waiting_pods(reader)
    claims = _claim_rows(reader)
    explained = [(pod, diagnose_pod(reader, pod)) for pod in waiting[:_EXPLAINED_PODS]]
    rows: Rows = (
        *((f"node {node.name}", clause) for node, clause in sick),
        *((f"pod {_path(pod)}", found.verdict) for pod, found in explained),
        *claims,
    )
    if len(waiting) > len(explained):
        rows = (*rows, ("pods", f"{len(waiting) - len(explained)} more wait for GPUs"))
    problems = len(sick) + len(waiting) + len(claims)
    if not problems:
        return _healthy(reader, nodes)
    first = _most_important(reader, sick, explained)
    if first is None:
        return Diagnosis(f"The cluster has {_count(problems)}: {rows[0][0]}: {rows[0][1]}", "", rows)
    others = (
        f" {_count(problems - 1)[0].upper()}{_count(problems - 1)[1:]} more: see the evidence." if problems > 1 else ""
    )
    return replace(first, verdict=f"{first.verdict}{others}", rows=rows)


def _healthy(reader: ClusterReader, nodes: list[Node]) -> Diagnosis:
    gpu_nodes = [node for node in nodes if node.gpu]
    if not gpu_nodes:
        return Diagnosis(
            "The cluster has no GPU node, and no pod waits for one.",
            "cluster.add_gpu_pool(aks, count=1) adds a GPU node." if reader.has_azure else "Add a node with a GPU.",
        )
    noun = "GPU node is" if len(gpu_nodes) == 1 else "GPU nodes are"
    verdict = f"{len(gpu_nodes)} {noun} ready, and no pod waits for a GPU: nothing is wrong."
    if reader.unknown:
        verdict = f"{len(gpu_nodes)} {noun} ready: nothing is known to be wrong, but not all of it could be read."
    return Diagnosis(verdict)


def _sick_nodes(reader: ClusterReader, nodes: Iterable[Node]) -> list[tuple[Node, str]]:
    """Return the nodes with which something is wrong, and what."""
    found = []
    for node in nodes:
        problem = node_problem(node, reader.problems.get(node.name, []))
        if problem is not None:
            found.append((node, problem.clause))
    return found


def _waiting_pods(reader: ClusterReader) -> list[Object]:
    """Return the pods that ask for GPUs and have no node, oldest first."""

    def fetch() -> list[Object]:
        found = reader.aks.kube.list("Pod", all_namespaces=True, field_selector="spec.nodeName=,status.phase=Pending")
        return [pod for pod in found if pod_facts.gpus(pod["spec"]) and not pod["spec"].get("nodeName")]

    pods = reader.attempt("the pods without a node", fetch) or []
    return sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))


def _claim_rows(reader: ClusterReader) -> Rows:
    """Return the NodeClaims and NodePools of node auto-provisioning that are not ready, as evidence."""
    claims = reader.custom("karpenter.sh", "nodeclaims") or []
    pools = (reader.custom("karpenter.sh", "nodepools") or []) if claims else []
    rows = []
    for claim in claims:
        problem = node_claims.claim_problem(claim)
        if problem is not None:
            rows.append((f"NodeClaim {claim['metadata']['name']}", problem[0]))
    for pool in pools:
        text = node_claims.pool_problem(pool)
        if text:
            rows.append((f"NodePool {pool['metadata']['name']}", text))
    return tuple(rows)


def _most_important(
    reader: ClusterReader, sick: list[tuple[Node, str]], explained: list[tuple[Object, Diagnosis]]
) -> Diagnosis | None:
    """Return the diagnosis of a GPU node that is sick, or else of a pod that waits, or else of another node."""
    ordered = sorted(sick, key=lambda each: not each[0].gpu)
    if ordered and (ordered[0][0].gpu or not explained):
        obj = reader.node(ordered[0][0].name)
        if obj:
            return diagnose_node(reader, obj)
    if explained:
        pod, found = explained[0]
        return replace(found, verdict=f"Pod {_path(pod)} waits for a GPU. {found.verdict}")
    return None


def _path(pod: Object) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _count(problems: int) -> str:
    return "1 problem" if problems == 1 else f"{problems} problems"
