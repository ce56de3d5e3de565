"""Code that the Job and DaemonSet controllers share: creates pods from a template, finds them and deletes them."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, ClassVar

from aksgpu.local.control.controller_runtime import Cluster, Controller, run_all
from aksgpu.local.objects import Object
from aksgpu.local.status_error import StatusError


def controller_of(obj: Object) -> dict[str, Any]:
    """Return the owner reference of an object's controller, or an empty dict if it has none."""
    for owner in obj["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            return dict(owner)
    return {}


def reference_to(owner: Object) -> dict[str, Any]:
    """Return the owner reference by which ``owner`` controls another object."""
    meta = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def from_template(owner: Object) -> Object:
    """Return a new pod from the template of its owner. It shares nothing with the template."""
    meta = owner["metadata"]
    template = copy.deepcopy(owner["spec"]["template"])
    template_meta = template.get("metadata") or {}
    metadata: Object = {}
    for name in ("labels", "annotations", "finalizers"):
        if template_meta.get(name):
            metadata[name] = template_meta[name]
    metadata["generateName"] = f"{meta['name']}-"
    metadata["namespace"] = meta["namespace"]
    metadata["ownerReferences"] = [reference_to(owner)]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


class PodController(Controller):
    """A controller whose objects own pods. An object is synced when it or one of its pods changes."""

    kind: ClassVar[str]
    """The kind of the objects that own the pods."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self.pods = self.follow("pods", self.owner_key).index(self.owner_key)

    def owner_key(self, pod: Object) -> str:
        """Return the key of the object that owns a pod; empty if the owner is of another kind."""
        owner = controller_of(pod)
        return f"{pod['metadata']['namespace']}/{owner['name']}" if owner.get("kind") == self.kind else ""

    async def create_pod(self, owner: Object, pod: Object) -> Object:
        """Create a pod and record an event."""
        try:
            created = await self.cluster.create("pods", pod)
        except StatusError as error:
            self.record_event(owner, "Warning", "FailedCreate", f"Error creating: {error}")
            raise
        self.record_event(owner, "Normal", "SuccessfulCreate", f"Created pod: {created['metadata']['name']}")
        return created

    async def delete_pods(self, owner: Object, pods: Iterable[Object]) -> None:
        """Delete pods and record an event for each."""
        await run_all(self._delete_pod(owner, pod) for pod in pods)

    async def _delete_pod(self, owner: Object, pod: Object) -> None:
        await self.cluster.delete("pods", pod)
        self.record_event(owner, "Normal", "SuccessfulDelete", f"Deleted pod: {pod['metadata']['name']}")
