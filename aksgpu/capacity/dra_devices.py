"""GPUs that Kubernetes allocates through dynamic resource allocation (DRA): the ResourceSlices of their drivers.

Such GPUs are not resources of the node. A driver lists them as devices in ResourceSlices, and ResourceClaims name the
devices that pods use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aksgpu.errors import Forbidden, NotFound
from aksgpu.kube.client import HasKube, Object

__all__ = ["DeviceUse", "read_devices"]

_VERSIONS = ("v1", "v1beta2", "v1beta1")
"""Versions of the API, newest first. Kubernetes 1.34 has v1."""
_GPU_DRIVERS = ("gpu.nvidia.com", "gpu.amd.com", "gpu.intel.com")
"""Drivers whose devices are GPUs or parts of GPUs."""
_NOT_SCHEDULED = ("NoSchedule", "NoExecute")
"""Effects of a taint of a device that keep pods away."""


@dataclass
class DeviceUse:
    """The GPUs of one driver on one node.

    Attributes:
        count: number of devices.
        usable: number of devices without a taint that keeps pods away.
        model: model of the GPUs; empty if the driver does not say it.
        users: number of devices by pod (``namespace/name``); None if you may not list the claims.
    """

    count: int = 0
    usable: int = 0
    model: str = ""
    users: dict[str, int] | None = field(default_factory=dict)


def read_devices(aks: HasKube) -> dict[str, dict[str, DeviceUse]]:
    """Return the GPUs of dynamic resource allocation by node and driver; empty if the cluster has none.

    A user who may not list ResourceSlices sees none: they exist for administrators.
    """
    for version in _VERSIONS:
        root = f"/apis/resource.k8s.io/{version}"
        try:
            slices = aks.kube.request("GET", f"{root}/resourceslices").get("items") or ()
        except NotFound:
            continue
        except Forbidden:
            return {}
        found = _devices(slices)
        if found:
            _add_users(found, slices, _claims(aks, root))
        return found
    return {}


def _claims(aks: HasKube, root: str) -> list[Object] | None:
    """Return the claims of all namespaces; None if you may not list them."""
    try:
        return list(aks.kube.request("GET", f"{root}/resourceclaims").get("items") or ())
    except Forbidden:
        return None


def _newest(slices: Iterable[Object]) -> list[Mapping[str, Any]]:
    """Return the specs of the GPU slices that are in force: those of the newest generation of each pool."""
    specs = [each.get("spec") or {} for each in slices]
    specs = [spec for spec in specs if spec.get("driver") in _GPU_DRIVERS and spec.get("nodeName")]
    newest: dict[tuple[str, str], int] = {}
    for spec in specs:
        key = spec["driver"], _pool(spec)
        newest[key] = max(newest.get(key, 0), _generation(spec))
    return [spec for spec in specs if _generation(spec) == newest[spec["driver"], _pool(spec)]]


def _pool(spec: Mapping[str, Any]) -> str:
    return str((spec.get("pool") or {}).get("name") or spec.get("nodeName"))


def _generation(spec: Mapping[str, Any]) -> int:
    return int((spec.get("pool") or {}).get("generation") or 0)


def _devices(slices: Iterable[Object]) -> dict[str, dict[str, DeviceUse]]:
    found: dict[str, dict[str, DeviceUse]] = {}
    for spec in _newest(slices):
        use = found.setdefault(spec["nodeName"], {}).setdefault(spec["driver"], DeviceUse())
        for device in spec.get("devices") or ():
            facts = device.get("basic") or device  # v1beta1 has the facts one level below
            use.count += 1
            tainted = any(taint.get("effect") in _NOT_SCHEDULED for taint in facts.get("taints") or ())
            use.usable += not tainted
            name = (facts.get("attributes") or {}).get("productName") or {}
            use.model = use.model or str(name.get("string") or "")
    return found


def _add_users(
    found: Mapping[str, Mapping[str, DeviceUse]], slices: Iterable[Object], claims: list[Object] | None
) -> None:
    """Add the pods that use the devices."""
    if claims is None:
        for drivers in found.values():
            for use in drivers.values():
                use.users = None
        return
    nodes = {(spec["driver"], _pool(spec)): spec["nodeName"] for spec in _newest(slices)}
    for claim in claims:
        status = claim.get("status") or {}
        results = ((status.get("allocation") or {}).get("devices") or {}).get("results") or ()
        owner = _owner(claim)
        taken = Counter((result.get("driver"), result.get("pool")) for result in results)
        for (driver, pool), count in taken.items():
            node = nodes.get((str(driver), str(pool)))
            users = found[node][str(driver)].users if node else None
            if users is not None:
                users[owner] = users.get(owner, 0) + count


def _owner(claim: Object) -> str:
    """Return ``namespace/name`` of the pod for which a claim is reserved, or of the claim if it is for no pod yet."""
    metadata = claim["metadata"]
    reserved = (claim.get("status") or {}).get("reservedFor") or ()
    names = [consumer.get("name") for consumer in reserved if consumer.get("resource") == "pods"]
    return f"{metadata['namespace']}/{names[0] if names else metadata['name']}"
