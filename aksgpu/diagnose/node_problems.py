"""Which conditions of a node report a problem, as AKS' node problem detector and the kubelet set them."""

from __future__ import annotations

from dataclasses import dataclass

from aksgpu.diagnose.failure_text import Failure, Place, first_match
from aksgpu.diagnose.node_texts import NODE_TEXTS
from aksgpu.errors import GpuStackError
from aksgpu.kube.client import Object

__all__ = ["NodeProblem", "problems_of", "unknown_conditions"]


@dataclass(frozen=True)
class NodeProblem:
    """A condition of a node that reports a problem.

    Attributes:
        condition: its type, such as ``GPUMissing``.
        text: its reason and message.
        failure: the row of the table of failures.
    """

    condition: str
    text: str
    failure: Failure

    @property
    def about_gpus(self) -> bool:
        """Whether it is about the node's GPUs."""
        return issubclass(self.failure.kind, GpuStackError)


def problems_of(node: Object) -> list[NodeProblem]:
    """Return the problems that a Node object's conditions report. Whether it is ready is not one of them."""
    found = []
    for condition in (node.get("status") or {}).get("conditions") or ():
        if condition.get("status") != "True" or condition["type"] == "Ready":
            continue
        text = f"{condition.get('reason') or ''}: {condition.get('message') or ''}"
        failure = first_match(NODE_TEXTS, f"{condition['type']}: {text}", Place.CONDITION)
        if failure is not None:
            found.append(NodeProblem(condition["type"], text, failure))
    return found


def unknown_conditions(node: Object) -> list[str]:
    """Return the types of conditions that the node problem detector has not determined yet, or no longer."""
    conditions = (node.get("status") or {}).get("conditions") or ()
    unknown = [condition for condition in conditions if condition.get("status") == "Unknown"]
    return [
        condition["type"]
        for condition in unknown
        if first_match(NODE_TEXTS, f"{condition['type']}: : ", Place.CONDITION) is not None
    ]
