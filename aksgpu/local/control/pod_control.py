"""What Job and DaemonSet controllers share: they make pods from a template, find them again, and delete them."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, ClassVar

from aksgpu.local.control.controller_runtime import Cluster, Controller, run_all
from aksgpu.local.objects import Object
from aksgpu.local.status_error import StatusError


def controller_of(obj: Object) -> dict[str, Any]:
    """The owner reference of the controller that manages this object; empty when there is none."""
    return next((owner for owner in obj["metadata"].get("ownerReferences") or () if owner.get("controller")), {})


def reference_to(owner: Object) -> dict[str, Any]:
    """The owner reference by which this object controls another."""
    meta = owner["metadata"]
    what = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": meta["name"], "uid": meta["uid"]}
    return what | {"controller": True, "blockOwnerDeletion": True}


def from_template(owner: Object) -> Object:
    """A pod as the template of its owner says, with nothing in it that the template shares."""
    meta = owner["metadata"]
    template = copy.deepcopy(owner["spec"]["template"])
    given = template.get("metadata") or {}
    kept = {name: given[name] for name in ("labels", "annotations", "finalizers") if given.get(name)}
    reference = reference_to(owner)
    head = {"generateName": f"{meta['name']}-", "namespace": meta["namespace"], "ownerReferences": [reference]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": kept | head, "spec": template["spec"]}


class PodController(Controller):
    """A controller whose objects own pods; a key is looked at when its object or one of the pods changes."""

    kind: ClassVar[str]
    """Of the objects that own the pods."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self.pods = self.follow("pods", self.owner_key).index(self.owner_key)

    def owner_key(self, pod: Object) -> str:
        """The key of the object that a pod belongs to; empty when it is of another kind."""
        owner = controller_of(pod)
        return f"{pod['metadata']['namespace']}/{owner['name']}" if owner.get("kind") == self.kind else ""

    async def make(self, owner: Object, pod: Object) -> Object:
        """Create a pod, and say so."""
        try:
            made = await self.cluster.create("pods", pod)
        except StatusError as error:
            self.record_event(owner, "Warning", "FailedCreate", f"Error creating: {error}")
            raise
        self.record_event(owner, "Normal", "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")
        return made

    async def remove(self, owner: Object, pods: Iterable[Object]) -> None:
        """Delete pods, and say so."""
        await run_all(self._remove(owner, pod) for pod in pods)

    async def _remove(self, owner: Object, pod: Object) -> None:
        await self.cluster.delete("pods", pod)
        self.record_event(owner, "Normal", "SuccessfulDelete", f"Deleted pod: {pod['metadata']['name']}")
