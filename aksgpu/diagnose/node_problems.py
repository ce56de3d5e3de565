"""Which conditions of a node report a problem, as AKS' node problem detector and the kubelet set them."""

from __future__ import annotations

from dataclasses import dataclass

from aksgpu.diagnose.failure_text import Failure
from aksgpu.diagnose.gpu_failures import from_condition
from aksgpu.diagnose.node_texts import LOOK_AT_NODE
from aksgpu.errors import GpuStackError
from aksgpu.kube.client import Object
from aksgpu.kube.node_health import concerns_gpus

__all__ = ["NodeProblem", "problems_of", "unknown_conditions"]


@dataclass(frozen=True)
class NodeProblem:
    """A condition of a node that reports a problem.

    Attributes:
        condition: its type, such as ``GPUMissing``.
        text: its reason and message.
        failure: what it means, from the table of failures if that has the condition.
    """

    condition: str
    text: str
    failure: Failure

    @property
    def about_gpus(self) -> bool:
        """Whether it is about the node's GPUs."""
        return concerns_gpus(self.condition)


def problems_of(node: Object) -> list[NodeProblem]:
    """Return the problems that a Node object's conditions report. Whether it is ready is not one of them."""
    found = []
    for condition in (node.get("status") or {}).get("conditions") or ():
        if condition.get("status") != "True" or condition["type"] == "Ready":
            continue
        reason = condition.get("reason") or ""
        message = condition.get("message") or ""
        failure = _failure(condition["type"], reason, message)
        if failure is not None:
            found.append(NodeProblem(condition["type"], f"{reason}: {message}", failure))
    return found


def unknown_conditions(node: Object) -> list[str]:
    """Return the types of conditions that the node problem detector has not determined yet, or no longer."""
    conditions = (node.get("status") or {}).get("conditions") or ()
    unknown = [condition["type"] for condition in conditions if condition.get("status") == "Unknown"]
    return [kind for kind in unknown if _failure(kind, "", "") is not None]


def _failure(kind: str, reason: str, message: str) -> Failure | None:
    """Return what a condition with the status True means; None if it reports no problem."""
    known = from_condition(kind, reason, message)
    if known is not None or not concerns_gpus(kind):
        return known
    verdict = f"the node reports a problem of its GPUs ({kind})"
    return Failure(GpuStackError, verdict, LOOK_AT_NODE, "an unknown condition of the node's GPUs")
