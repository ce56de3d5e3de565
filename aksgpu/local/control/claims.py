"""Persistent volume claims: each is bound at once, to a directory that the node agent keeps for it.

There are no PersistentVolume objects: ``spec.volumeName`` names one as a real provisioner would.
"""

from __future__ import annotations

from collections.abc import Iterator

from aksgpu.local.control.runtime import Cluster, Controller, finished
from aksgpu.local.objects import Object

_BOUND = {"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes"}
_IN_USE = "kubernetes.io/pvc-protection"


class ClaimController(Controller):
    """Binds claims, and keeps those that are deleted until no pod uses them any more."""

    resource = "persistentvolumeclaims"

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._pods = cluster.informer("pods")
        self._pods.on_change(self._pod_changed)

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if old and (new is None or finished(new)):
            for key in _claims(old):
                self.queue.add(key)

    async def sync(self, key: str) -> float | None:
        """Bind one claim, or let it go."""
        claim = self.informer.get(key)
        if claim is None:
            return None
        meta = claim["metadata"]
        if meta.get("deletionTimestamp"):
            kept = [each for each in meta.get("finalizers") or () if each != _IN_USE]
            used = any(key in _claims(pod) for pod in self._pods if not finished(pod))
            if not used and kept != meta.get("finalizers"):
                await self.cluster.patch(self.resource, key, {"metadata": {"finalizers": kept}})
            return None
        if not claim["spec"].get("volumeName"):
            finalizers = [*(meta.get("finalizers") or ()), _IN_USE]
            metadata = {"annotations": _BOUND, "finalizers": finalizers}
            patch = {"metadata": metadata, "spec": {"volumeName": f"pvc-{meta['uid']}"}}
            claim = await self.cluster.patch(self.resource, key, patch)
        if (claim.get("status") or {}).get("phase") != "Bound":
            await self.cluster.update(self.resource, {**claim, "status": _status(claim)}, subresource="status")
        return None


def _claims(pod: Object) -> Iterator[str]:
    for volume in pod["spec"].get("volumes") or ():
        if claim := volume.get("persistentVolumeClaim"):
            yield f"{pod['metadata'].get('namespace', '')}/{claim['claimName']}"


def _status(claim: Object) -> Object:
    spec = claim["spec"]
    size = ((spec.get("resources") or {}).get("requests") or {}).get("storage", "0")
    return {"phase": "Bound", "accessModes": spec.get("accessModes") or [], "capacity": {"storage": size}}
