"""The PersistentVolumeClaim controller: binds each claim at once, to a directory that the node agent keeps for it.

There are no PersistentVolume objects. ``spec.volumeName`` is the name that a provisioner would choose.
"""

from __future__ import annotations

from aksgpu.local.control.controller_runtime import Cluster, Controller, is_finished
from aksgpu.local.objects import Object

_BOUND_ANNOTATIONS = {"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes"}
_PROTECTION_FINALIZER = "kubernetes.io/pvc-protection"


class ClaimController(Controller):
    """Binds claims, and keeps deleted claims until no pod uses them."""

    resource = "persistentvolumeclaims"

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._pods = cluster.informer("pods")
        self._pods.on_change(self._pod_changed)

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if old and (new is None or is_finished(new)):
            for key in _claim_keys(old):
                self.queue.add(key)

    async def sync(self, key: str) -> float | None:
        """Bind one claim, or complete its deletion."""
        claim = self.informer.get(key)
        if claim is None:
            return None
        meta = claim["metadata"]
        spec = claim["spec"]
        if meta.get("deletionTimestamp"):
            if not any(key in _claim_keys(pod) for pod in self._pods if not is_finished(pod)):
                await self.cluster.remove_finalizer(self.resource, claim, _PROTECTION_FINALIZER)
            return None
        if not spec.get("volumeName"):
            patch = {
                "metadata": {
                    "annotations": _BOUND_ANNOTATIONS,
                    "finalizers": [*(meta.get("finalizers") or ()), _PROTECTION_FINALIZER],
                },
                "spec": {"volumeName": f"pvc-{meta['uid']}"},
            }
            claim = await self.cluster.patch(self.resource, claim, patch)
        size = ((spec.get("resources") or {}).get("requests") or {}).get("storage", "0")
        status = {"phase": "Bound", "accessModes": spec.get("accessModes") or [], "capacity": {"storage": size}}
        await self.cluster.update_status(self.resource, claim, status)
        return None


def _claim_keys(pod: Object) -> set[str]:
    namespace = pod["metadata"]["namespace"]
    keys: set[str] = set()
    for volume in pod["spec"].get("volumes") or ():
        claim = volume.get("persistentVolumeClaim")
        if claim:
            keys.add(f"{namespace}/{claim['claimName']}")
    return keys
