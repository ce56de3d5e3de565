"""The PersistentVolumeClaim controller: provides each claim with a volume according to its StorageClass.

A volume is a directory that the node agent keeps for the claim. PersistentVolume objects do not exist.
``spec.volumeName`` is the name that a provisioner would choose.
"""

from __future__ import annotations

from typing import Any

from aksgpu.local.control import fields_without_effect
from aksgpu.local.control.claim_topology import (
    DISK_PROVISIONER,
    FILE_PROVISIONER,
    PROVISIONER_ANNOTATION,
    SELECTED_NODE,
    ZONE_ANNOTATION,
    ZONE_LABEL,
    claim_keys,
    is_bound,
)
from aksgpu.local.control.controller_runtime import Cluster, Controller, is_finished
from aksgpu.local.control.informer import object_key
from aksgpu.local.objects import Object

_BOUND_ANNOTATIONS = {"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes"}
_PROTECTION_FINALIZER = "kubernetes.io/pvc-protection"
_CSI_ACCESS_MODES = {"ReadWriteMany": "MULTI_NODE_MULTI_WRITER", "ReadOnlyMany": "MULTI_NODE_READER_ONLY"}
"""The CSI names of access modes that the driver of Azure disks refuses for file systems."""
_NO_CLASS = "no persistent volumes available for this claim and no storage class is set"
_NO_CONSUMER = "waiting for first consumer to be created before binding"
_EXTERNAL = (
    "Waiting for a volume to be created either by the external provisioner '{}' or manually by the system "
    "administrator. If volume creation is delayed, please verify that the provisioner is running and correctly "
    "registered."
)


class ClaimController(Controller):
    """Binds claims, and keeps deleted claims until no pod uses them."""

    resource = "persistentvolumeclaims"
    component = "persistentvolume-controller"

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._recorded: dict[str, str] = {}
        self._pods = cluster.informer("pods")
        self._pods.on_change(self._pod_changed)
        self._nodes = cluster.informer("nodes")
        self._classes = cluster.informer("storageclasses")
        self._classes.on_change(self._class_changed)

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if old and (new is None or is_finished(new)):
            for key in claim_keys(old):
                self.queue.add(key)

    def _class_changed(self, old: Object | None, new: Object | None) -> None:
        for claim in self.informer:
            if not is_bound(claim):
                self.queue.add(object_key(claim))

    async def sync(self, key: str) -> float | None:
        """Bind one claim, or complete its deletion."""
        claim = self.informer.get(key)
        if claim is None:
            self._recorded.pop(key, None)
            return None
        meta = claim["metadata"]
        if meta.get("deletionTimestamp"):
            if not await self._is_used(claim):
                await self.cluster.remove_finalizer(self.resource, claim, _PROTECTION_FINALIZER)
            return None
        finalizers = meta.get("finalizers") or []
        if _PROTECTION_FINALIZER not in finalizers:
            # The resourceVersion makes the server refuse the patch if the finalizers have changed.
            version = {"resourceVersion": meta["resourceVersion"]}
            patch = {"metadata": {**version, "finalizers": [*finalizers, _PROTECTION_FINALIZER]}}
            claim = await self.cluster.patch(self.resource, claim, patch)
        if not claim["spec"].get("volumeName"):
            storage_class = self._check(claim)
            if storage_class is None:
                return None
            claim = await self._provision(claim, storage_class)
        await self._set_bound(claim)
        return None

    async def _is_used(self, claim: Object) -> bool:
        """Return whether a pod that has not ended uses a claim. The cache may lack such a pod, the server does not."""
        key = object_key(claim)
        if not any(_uses(pod, key) for pod in self._pods):
            await self.cluster.read_all("pods", claim["metadata"]["namespace"])
        return any(_uses(pod, key) for pod in self._pods)

    def _check(self, claim: Object) -> Object | None:
        """Return the class that can provide the claim with a volume now. If none can, record why."""
        name = claim["spec"].get("storageClassName") or ""
        if not name:
            self._record(claim, "Normal", "FailedBinding", _NO_CLASS)
            return None
        storage_class = self._classes.get(name)
        if storage_class is None:
            message = f'storageclass.storage.k8s.io "{name}" not found'
            self._record(claim, "Warning", "ProvisioningFailed", message)
            return None
        annotations = claim["metadata"].get("annotations") or {}
        if storage_class.get("volumeBindingMode") == "WaitForFirstConsumer" and SELECTED_NODE not in annotations:
            self._record(claim, "Normal", "WaitForFirstConsumer", _NO_CONSUMER)
            return None
        provisioner = storage_class["provisioner"]
        if provisioner not in (DISK_PROVISIONER, FILE_PROVISIONER):
            self._record(claim, "Normal", "ExternalProvisioning", _EXTERNAL.format(provisioner))
            return None
        ignored = fields_without_effect.of_claim(claim)
        if ignored:
            why = fields_without_effect.message(ignored)
            message = f'failed to provision volume with StorageClass "{name}": {why}'
            self._record(claim, "Warning", "ProvisioningFailed", message)
            return None
        refused = [mode for mode in claim["spec"].get("accessModes") or () if mode in _CSI_ACCESS_MODES]
        if provisioner == DISK_PROVISIONER and refused and claim["spec"].get("volumeMode") != "Block":
            message = (
                f'failed to provision volume with StorageClass "{name}": rpc error: code = InvalidArgument desc = '
                f"mountVolume is not supported for access mode: {_CSI_ACCESS_MODES[refused[0]]}"
            )
            self._record(claim, "Warning", "ProvisioningFailed", message)
            return None
        return storage_class

    def _record(self, claim: Object, kind: str, reason: str, message: str) -> None:
        """Record why a claim has no volume, unless the same reason was recorded last."""
        key = object_key(claim)
        text = f"{claim['metadata']['uid']} {message}"
        if self._recorded.get(key) != text:
            self._recorded[key] = text
            self.record_event(claim, kind, reason, message)

    async def _provision(self, claim: Object, storage_class: Object) -> Object:
        """Write the name of a new volume into the claim, with the zone of a disk."""
        provisioner = storage_class["provisioner"]
        annotations: dict[str, Any] = {**_BOUND_ANNOTATIONS, PROVISIONER_ANNOTATION: provisioner}
        zone = self._disk_zone(claim, storage_class)
        if zone is not None:
            annotations[ZONE_ANNOTATION] = zone
        name = f"pvc-{claim['metadata']['uid']}"
        self.record_event(
            claim,
            "Normal",
            "Provisioning",
            f'External provisioner is provisioning volume for claim "{object_key(claim)}"',
        )
        patch = {"metadata": {"annotations": annotations}, "spec": {"volumeName": name}}
        claim = await self.cluster.patch(self.resource, claim, patch)
        self.record_event(claim, "Normal", "ProvisioningSucceeded", f"Successfully provisioned volume {name}")
        ignored = fields_without_effect.of_volume(claim, storage_class)
        if ignored:
            self.record_event(claim, "Normal", fields_without_effect.REASON, fields_without_effect.message(ignored))
        return claim

    def _disk_zone(self, claim: Object, storage_class: Object) -> str | None:
        """Return the zone in which a new disk can be used; None for a file share or a zone-redundant disk."""
        parameters = {key.lower(): value for key, value in (storage_class.get("parameters") or {}).items()}
        sku = str(parameters.get("skuname") or parameters.get("storageaccounttype") or "")
        if storage_class["provisioner"] != DISK_PROVISIONER or sku.upper().endswith("_ZRS"):
            return None
        node = self._nodes.get((claim["metadata"].get("annotations") or {}).get(SELECTED_NODE, ""))
        nodes = [node] if node else sorted(self._nodes, key=lambda each: str(each["metadata"]["name"]))
        return str((nodes[0]["metadata"].get("labels") or {}).get(ZONE_LABEL, "")) if nodes else None

    async def _set_bound(self, claim: Object) -> None:
        spec = claim["spec"]
        size = ((spec.get("resources") or {}).get("requests") or {}).get("storage", "0")
        status = {"phase": "Bound", "accessModes": spec.get("accessModes") or [], "capacity": {"storage": size}}
        await self.cluster.update_status(self.resource, claim, status)


def _uses(pod: Object, key: str) -> bool:
    return key in claim_keys(pod) and not is_finished(pod)
