"""Read why no node takes a pod from the events of the scheduler and of the autoscalers. Sends nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aksgpu import errors
from aksgpu.diagnose import scheduling_texts
from aksgpu.diagnose.cures import Cure, fill

__all__ = ["DEFAULT_POOL", "EventReading", "add_nodes_call", "from_event", "read_event"]

_UNSCHEDULED = re.compile(r"0/(?P<nodes>\d{1,9}) nodes are available(?::|\b)\s*(?P<causes>.*)", re.S)
_NO_NODES = "no nodes available to schedule pods"
_PREEMPTION = "preemption:"
"""Where the causes end."""
_ABOUT_CLAIMS = ("no new claims to deallocate", "still not schedulable", "deallocation of ResourceClaim completed")
"""Texts about device claims that Kubernetes 1.34 and later write before the causes."""
_NOT_SCALED = re.compile(r"pod didn't trigger scale-up(?: \([^()]*\))?:?(?P<causes>.*)", re.S)
_KARPENTER = re.compile(
    r"(?:Failed to schedule pod|Could not schedule pod|no nodepools found)[,:]?\s*(?P<causes>.*)", re.S
)
_CAUSE = re.compile(r"(?<![\d.])(?P<count>\d{1,9}) (?P<cause>(?:\{[^{}]*\}|[^,{])+)")
_BINDING = re.compile(r"binding volumes: (?:timed out|context deadline|failed|pv \")|persistentvolumeclaim \"")

_OTHER_RESOURCE = re.compile(r"Insufficient (?:cpu|memory|ephemeral-storage)")
_NO_GPU = ("Insufficient nvidia.com/gpu", "Insufficient amd.com/gpu")

DEFAULT_POOL = "gpunp"
"""The tutorial's GPU pool. Hints use it when the pod's pool is not known."""


@dataclass(frozen=True)
class EventReading:
    """What an event says about a pod that has no node.

    Attributes:
        error: the exception that represents it, with a hint.
        name: the name of the cause that matters.
        cure: what helps.
    """

    error: errors.PodPending
    name: str
    cure: Cure


def from_event(
    reason: str,
    message: str,
    *,
    pool: str = DEFAULT_POOL,
    has_azure: bool = True,
    tolerations: Iterable[Mapping[str, Any]] = (),
) -> errors.PodPending | None:
    """Return the exception for an event that says why no node takes a pod; None for other events.

    Args:
        reason: the event's reason.
        message: the event's message.
        pool: the node pool that the hint names.
        has_azure: whether the cluster is managed through Azure, so that there are node pools.
        tolerations: the pod's tolerations. Taints that they match are not the cause.
    """
    reading = read_event(reason, message, pool=pool, has_azure=has_azure, tolerations=tolerations)
    return None if reading is None else reading.error


def read_event(
    reason: str,
    message: str,
    *,
    pool: str = DEFAULT_POOL,
    has_azure: bool = True,
    tolerations: Iterable[Mapping[str, Any]] = (),
) -> EventReading | None:
    """Return what an event says about a pod that has no node; None for other events. The arguments are those above."""
    not_scaled = _NOT_SCALED.search(message) if reason == "NotTriggerScaleUp" else None
    if not_scaled is None and reason in ("FailedScheduling", "NodePoolNotFound", "NoCompatibleNodePools"):
        not_scaled = _KARPENTER.search(message)
    if not_scaled is not None:
        causes = not_scaled["causes"].strip(" .:\n")
        name, cure = scheduling_texts.advice(causes, autoscaler=True, tolerations=tolerations)
        counted = _causes(causes) if reason == "NotTriggerScaleUp" else {}
        reasons = ", ".join(counted) or causes
        text = f": {reasons}" if reasons else ", and gives no reason"
        hint = fill(cure.advice_for(has_azure), {"POOL": pool})
        error = errors.NoScaleUp(f"the autoscaler adds no node for the pod{text}", hint=hint, causes=counted)
        return EventReading(error, name, cure)
    if reason in ("FailedScheduling", "Unschedulable"):
        return _read_unscheduled(message, pool, has_azure, tolerations)
    return None


def _read_unscheduled(
    message: str, pool: str, has_azure: bool, tolerations: Iterable[Mapping[str, Any]]
) -> EventReading | None:
    """Return what an event of a scheduler says; None if it is about something else, such as a node that changed."""
    match = _UNSCHEDULED.search(message)
    nodes = int(match["nodes"]) if match else None
    if match is not None:
        causes = _without_preemption(match["causes"])
    elif _NO_NODES in message:
        nodes = 0
        causes = "the cluster has no nodes"
    elif _BINDING.search(message):
        causes = message.strip(" .\n")
    else:
        return None
    name, cure = scheduling_texts.advice(_of_gpu_nodes(causes, nodes), tolerations=tolerations)
    counted = _causes(causes) or ({causes: nodes} if causes and nodes else {})
    takes = "no node takes the pod" if nodes is None else f"no node of {nodes} takes the pod"
    text = f"{takes}: {', '.join(counted) or causes}" if causes else takes
    hint = fill(cure.advice_for(has_azure), {"POOL": pool})
    error = errors.PodPending(text, hint=hint, causes=counted, nodes=nodes)
    return EventReading(error, name, cure)


def _of_gpu_nodes(causes: str, nodes: int | None) -> str:
    """Return the causes of the nodes that have a free GPU, if each node has one cause and some lack another resource.

    Of three nodes with ``1 Insufficient memory, 2 Insufficient nvidia.com/gpu``, the one that lacks memory has a GPU.

    Args:
        causes: the causes in an event.
        nodes: how many nodes there are.
    """
    counted = _causes(causes)
    lacks_other = any(_OTHER_RESOURCE.fullmatch(cause) for cause in counted)
    if not lacks_other or sum(counted.values()) != nodes:
        return causes
    return ", ".join(f"{count} {cause}" for cause, count in counted.items() if cause not in _NO_GPU)


def _without_preemption(text: str) -> str:
    """Return the causes without the parts about preemption and about claims of devices."""
    causes = text.partition(_PREEMPTION)[0].strip(" .,\n")
    for words in _ABOUT_CLAIMS:
        causes = causes.removesuffix(words).strip(" .,\n")
    return causes


def _causes(text: str) -> dict[str, int]:
    """Return the causes in an event, with the number of nodes for each."""
    return {" ".join(match["cause"].split()).strip(" ."): int(match["count"]) for match in _CAUSE.finditer(text)}


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
