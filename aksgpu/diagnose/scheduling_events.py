"""Read why no node takes a pod from the events of the scheduler and the cluster autoscaler. Sends nothing."""

from __future__ import annotations

import re

from aksgpu import errors

__all__ = ["DEFAULT_POOL", "add_nodes_call", "from_event", "insufficient_resource"]

_UNSCHEDULED = re.compile(
    r"0/(?P<nodes>\d{1,9}) nodes are available: (?P<causes>.*?)(?:\. (?:[^.]*, )?preemption: .*|\.?)$", re.S
)
_NOT_SCALED = re.compile(r"pod didn't trigger scale-up(?: \([^()]*\))?: (?P<causes>.*)", re.S)
_CAUSE = re.compile(r"(?<!\d)(?P<count>\d{1,9}) (?P<cause>(?:\{[^{}]*\}|[^,{])+)")
_INSUFFICIENT = re.compile(r"Insufficient (?P<resource>cpu|memory|ephemeral-storage|pods)|Too many pods")

DEFAULT_POOL = "gpunp"
"""The tutorial's GPU pool. Hints use it when the pod's pool is not known."""


def from_event(
    reason: str, message: str, *, pool: str = DEFAULT_POOL, has_azure: bool = True
) -> errors.PodPending | None:
    """Return the exception for an event that says why no node takes a pod; None for other events.

    Args:
        reason: the event's reason.
        message: the event's message.
        pool: the node pool that the hint names.
        has_azure: whether the cluster is managed through Azure, so that there are node pools.
    """
    if reason == "FailedScheduling":
        match = _UNSCHEDULED.search(message)
        if match is not None:
            return _pending(match, pool, has_azure)
    if reason == "NotTriggerScaleUp":
        match = _NOT_SCALED.search(message)
        if match is not None:
            return _not_scaled(match, pool, has_azure)
    return None


def _pending(match: re.Match[str], pool: str, has_azure: bool) -> errors.PodPending:
    """Return the exception for the scheduler's event."""
    causes = _causes(match["causes"])
    nodes = int(match["nodes"])
    message = f"no node of {nodes} takes the pod: {', '.join(causes)}"
    return errors.PodPending(message, hint=_scheduler_hint(causes, pool, has_azure), causes=causes, nodes=nodes)


def _not_scaled(match: re.Match[str], pool: str, has_azure: bool) -> errors.NoScaleUp:
    """Return the exception for the autoscaler's event."""
    causes = _causes(match["causes"])
    message = f"the autoscaler adds no node for the pod: {', '.join(causes)}"
    return errors.NoScaleUp(message, hint=_autoscaler_hint(causes, pool, has_azure), causes=causes)


def _causes(text: str) -> dict[str, int]:
    """Return the causes in an event, with the number of nodes for each."""
    return {match["cause"].strip(" ."): int(match["count"]) for match in _CAUSE.finditer(text)}


def _autoscaler_hint(causes: dict[str, int], pool: str, has_azure: bool) -> str:
    """Return what to do if the autoscaler adds no node."""
    text = ", ".join(causes)
    if "max node group size" in text or "max limit reached" in text:
        if not has_azure:
            return "Raise the maximum size of the autoscaler's node group."
        return (
            f"cluster.scale_pool(aks, {pool!r}, min_count=0, max_count=5), for example, raises the autoscaler's limit."
        )
    if "taint" not in text and "Insufficient nvidia.com/" in text:
        keep_one = (
            "The autoscaler does not know that a new node would have GPUs: keep one node until a device plugin has run "
            "there"
        )
        if not has_azure:
            return f"{keep_one}."
        return f"{keep_one}: cluster.scale_pool(aks, {pool!r}, min_count=1, max_count=5)."
    return _scheduler_hint(causes, pool, has_azure)


def _scheduler_hint(causes: dict[str, int], pool: str, has_azure: bool) -> str:
    """Return what to do about the causes that the scheduler names."""
    text = ", ".join(causes)
    if "taint" in text:
        return "jobs.apply(aks, manifest, replace=True) adds the tolerations that the GPU nodes call for."
    add_nodes = add_nodes_call(pool, nodes=1, has_azure=has_azure)
    if "Insufficient nvidia.com/" in text:
        return f"capacity.gpus(aks) shows which pods use the GPUs; wait, or {add_nodes}."
    resource = insufficient_resource(text)
    if resource:
        return f"Ask for less {resource}, wait until other pods end, or {add_nodes}."
    if "selector" in text or "affinity" in text:
        return "Correct the manifest's nodeSelector or affinity: capacity.nodes(aks) shows the nodes."
    return "capacity.nodes(aks) shows the nodes."


def insufficient_resource(message: str) -> str:
    """Return the resource other than GPUs that the scheduler calls insufficient, such as ``cpu``; empty if none is."""
    match = _INSUFFICIENT.search(message)
    if match is None:
        return ""
    return match["resource"] or "pods"


def add_nodes_call(pool: str | None, *, nodes: int, has_azure: bool) -> str:
    """Return the call that adds a node, as the end of a sentence.

    Args:
        pool: the node pool to enlarge; None if it is not known.
        nodes: how many nodes it has.
        has_azure: whether the cluster is managed through Azure, so that there are node pools.
    """
    if not has_azure:
        return "add a node to the cluster"
    if pool is None:
        return "add nodes: cluster.add_gpu_pool(aks, count=1)"
    return f"add nodes: cluster.scale_pool(aks, {pool!r}, count={nodes + 1})"
