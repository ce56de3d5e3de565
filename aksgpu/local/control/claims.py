"""Persistent volume claims: each is bound at once, to a directory that the node agent keeps for it.

There are no PersistentVolume objects: ``spec.volumeName`` names one as a real provisioner would.
"""

from __future__ import annotations

from aksgpu.local.control.runtime import Controller
from aksgpu.local.objects import Object

_BOUND = {"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes"}


class ClaimController(Controller):
    """Binds claims."""

    resource = "persistentvolumeclaims"

    async def sync(self, key: str) -> float | None:
        """Bind one claim."""
        claim = self.informer.get(key)
        if claim is None or claim["metadata"].get("deletionTimestamp"):
            return None
        if not claim["spec"].get("volumeName"):
            name = f"pvc-{claim['metadata']['uid']}"
            patch = {"metadata": {"annotations": _BOUND}, "spec": {"volumeName": name}}
            claim = await self.cluster.patch(self.resource, key, patch)
        if (claim.get("status") or {}).get("phase") != "Bound":
            await self.cluster.update(self.resource, {**claim, "status": _status(claim)}, subresource="status")
        return None


def _status(claim: Object) -> Object:
    spec = claim["spec"]
    size = ((spec.get("resources") or {}).get("requests") or {}).get("storage", "0")
    return {"phase": "Bound", "accessModes": spec.get("accessModes") or [], "capacity": {"storage": size}}
