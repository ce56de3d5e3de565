"""Claims of storage: create, list and delete them."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aksgpu.common import quantities
from aksgpu.common.arguments import flag, integer
from aksgpu.common.frames import frame
from aksgpu.common.kubernetes_objects import Object
from aksgpu.common.notices import warn
from aksgpu.errors import AlreadyExists, Conflict, NotFound
from aksgpu.kube import path_names, pod_facts
from aksgpu.kube.client import HasKube
from aksgpu.kube.cluster_argument import check_cluster
from aksgpu.storage import storage_arguments
from aksgpu.storage.claim_classes import StorageClass, choose, read_classes, usd_per_day
from aksgpu.waiting import Timeout, check_timeout, wait_until

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CREATED_BY", "Claim", "claim_of", "create", "delete", "list", "pods_using", "require"]

CREATED_BY = "aksgpu.dev/storage"
"""Label of claims and helper Jobs that this package made."""
_GIB = 2**30
_MOST_GIB = 100 * 1024
"""GiB of the largest file share."""
_COLUMNS = {
    "claim": "string",
    "size_gb": "Float64",
    "shared": "boolean",
    "storage_class": "string",
    "state": "string",
    "pods": "Int64",
    "usd_per_day": "Float64",
}
_INTERVAL = 0.2
"""Seconds between two checks whether a claim is gone."""
_SHARED_MODES = {"ReadWriteMany", "ReadOnlyMany"}


@dataclass(frozen=True)
class Claim:
    """A claim as it was when it was read.

    Attributes:
        name: name of the claim. ``Executor(volumes={"/data": name})`` mounts it.
        namespace: its namespace.
        size_gb: its size in GiB.
        shared: whether pods on several nodes can use it at the same time.
        storage_class: the class that provides its volume; empty if it has none.
        state: ``Bound``, or ``Pending``: the volume is made when it is first used.
        usd_per_day: an estimate of its cost in US dollars per day, at the list prices of East US; None if not known.
    """

    name: str
    namespace: str
    size_gb: float
    shared: bool
    storage_class: str
    state: str
    usd_per_day: float | None = None

    def __repr__(self) -> str:
        kind = "shared" if self.shared else "one node at a time"
        cost = "" if self.usd_per_day is None else f", about ${self.usd_per_day:.2f} a day"
        return f"Claim({self.name}: {self.size_gb:g} GiB, {kind}, {self.storage_class or 'no class'}{cost})"


def claim_of(obj: Object, classes: builtins.list[StorageClass]) -> Claim:
    """Return the facts about a PersistentVolumeClaim."""
    metadata = obj["metadata"]
    spec = obj["spec"]
    name = spec.get("storageClassName") or ""
    requested = ((spec.get("resources") or {}).get("requests") or {}).get("storage", "0")
    size = float(quantities.parse(requested)) / _GIB
    known: Mapping[str, StorageClass] = {each.name: each for each in classes}
    return Claim(
        metadata["name"],
        metadata["namespace"],
        round(size, 3),
        bool(_SHARED_MODES & set(spec.get("accessModes") or ())),
        name,
        "Terminating" if metadata.get("deletionTimestamp") else str((obj.get("status") or {}).get("phase", "Pending")),
        usd_per_day(known.get(name), size),
    )


def create(
    aks: HasKube,
    name: str,
    *,
    size_gb: int = 64,
    shared: bool = True,
    storage_class: str | None = None,
    namespace: str | None = None,
) -> Claim:
    """Create a claim: storage for files that stays when pods and nodes are gone. An existing equal claim is returned.

    Args:
        aks: the cluster.
        name: name of the claim.
        size_gb: size in GiB.
        shared: True for a file share, which any number of pods use at the same time (``azurefile-csi``). False for a
            disk, which is faster with many small files, and which one node uses at a time (``managed-csi``).
        storage_class: another class of the cluster. None chooses one.
        namespace: the namespace; None uses the context's namespace.

    Returns:
        The claim. Its volume may be made only when it is first used.

    Raises:
        InvalidInput: an argument is not valid, or no class of the cluster serves the claim.
        AlreadyExists: a different claim with this name exists.
        Forbidden: you may not create claims, or a quota does not allow it.

    Example:
        >>> storage.create(aks, "data", size_gb=128)  # doctest: +SKIP
    """
    check_cluster(aks)
    storage_arguments.claim_name(name)
    size = integer("size_gb", size_gb, 1, _MOST_GIB)
    flag("shared", shared)
    if storage_class is not None:
        path_names.check_name("StorageClass", storage_class, "storage_class")
    space = storage_arguments.namespace(namespace) or aks.kube.namespace
    classes, are_known = read_classes(aks)
    existing = aks.kube.find("PersistentVolumeClaim", name, space)
    if existing is None:
        chosen = choose(classes, shared=shared, name=storage_class)
        if not are_known:
            warn(f"You may not read the cluster's storage classes. AKS' documented class {chosen.name!r} is assumed.")
        try:
            return claim_of(aks.kube.create(_manifest(name, space, size, shared, chosen.name)), classes)
        except AlreadyExists:
            existing = aks.kube.get("PersistentVolumeClaim", name, space)
    return _same(claim_of(existing, classes), size, shared, storage_class)


def _manifest(name: str, namespace: str, size: int, shared: bool, storage_class: str) -> Object:
    mode = "ReadWriteMany" if shared else "ReadWriteOnce"
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace, "labels": {CREATED_BY: "claim"}},
        "spec": {
            "accessModes": [mode],
            "storageClassName": storage_class,
            "resources": {"requests": {"storage": f"{size}Gi"}},
        },
    }


def _same(claim: Claim, size: int, shared: bool, storage_class: str | None) -> Claim:
    """Return a claim that exists, if it is what was asked for.

    Raises:
        AlreadyExists: it differs.
        Conflict: it is being deleted.
    """
    if claim.state == "Terminating":
        raise Conflict(
            f"claim {claim.name!r} is being deleted",
            hint=f"Wait until it is gone: storage.delete(aks, {claim.name!r}, namespace={claim.namespace!r}).",
        )
    differences = []
    if claim.size_gb != size:
        differences.append(f"size_gb={claim.size_gb:g}, not {size}")
    if claim.shared != shared:
        differences.append(f"shared={claim.shared}, not {shared}")
    if storage_class not in (None, claim.storage_class):
        differences.append(f"storage_class={claim.storage_class!r}, not {storage_class!r}")
    if differences:
        raise AlreadyExists(
            f"claim {claim.name!r} exists with {'; '.join(differences)}",
            hint="Use it as it is, or create a claim with another name.",
        )
    return claim


def require(aks: HasKube, name: str, namespace: str | None) -> Object:
    """Return a claim that must exist.

    Raises:
        NotFound: there is none; the hint says how to create it.
    """
    space = namespace or aks.kube.namespace
    found = aks.kube.find("PersistentVolumeClaim", name, space)
    if found is not None:
        return found
    existing = sorted(each["metadata"]["name"] for each in aks.kube.list("PersistentVolumeClaim", space))
    others = f"The namespace has: {', '.join(existing)}." if existing else "The namespace has no claims."
    raise NotFound(
        f"namespace {space!r} has no claim {name!r}",
        hint=f"Create it: storage.create(aks, {name!r}, namespace={space!r}). {others}",
    )


def list(aks: HasKube, *, namespace: str | None = None) -> pd.DataFrame:
    """Return the claims of a namespace.

    Args:
        aks: the cluster.
        namespace: the namespace; None uses the context's namespace.

    Returns:
        One row for each claim, in the order of names:

        - claim (string): its name.
        - size_gb (Float64): its size in GiB.
        - shared (boolean): whether pods on several nodes can use it at the same time.
        - storage_class (string): its class; NA if it has none.
        - state (string): ``Bound``; ``Pending`` before its first use; ``Lost`` or ``Terminating``.
        - pods (Int64): pods that use it now.
        - usd_per_day (Float64): an estimate of its cost in US dollars per day, at the list prices of East US; NA if not
          known. A standard file share costs what is stored on it: the price is that of a full one.

    Raises:
        InvalidInput: an argument is not valid.
        Forbidden: you may not list claims or pods.
    """
    check_cluster(aks)
    space = storage_arguments.namespace(namespace) or aks.kube.namespace
    classes, _ = read_classes(aks)
    objects = aks.kube.list("PersistentVolumeClaim", space)
    pods = aks.kube.list("Pod", space)
    rows = []
    for obj in sorted(objects, key=lambda each: str(each["metadata"]["name"])):
        claim = claim_of(obj, classes)
        rows.append(
            {
                "claim": claim.name,
                "size_gb": claim.size_gb,
                "shared": claim.shared,
                "storage_class": claim.storage_class or None,
                "state": claim.state,
                "pods": len(_using(pods, claim.name)),
                "usd_per_day": claim.usd_per_day,
            }
        )
    return frame(rows, _COLUMNS)


def pods_using(aks: HasKube, name: str, namespace: str) -> builtins.list[Object]:
    """Return the pods that use a claim and have not ended."""
    return _using(aks.kube.list("Pod", namespace), name)


def _using(pods: builtins.list[Object], name: str) -> builtins.list[Object]:
    return [pod for pod in pods if not pod_facts.ended(pod) and name in _claims_of(pod)]


def _claims_of(pod: Object) -> set[str]:
    volumes = pod["spec"].get("volumes") or ()
    return {each["persistentVolumeClaim"]["claimName"] for each in volumes if each.get("persistentVolumeClaim")}


def delete(
    aks: HasKube,
    name: str,
    *,
    namespace: str | None = None,
    timeout: Timeout = 300,
    progress: bool | None = None,
) -> None:
    """Delete a claim with all its files, and wait until it is gone. Does nothing if it does not exist.

    Args:
        aks: the cluster.
        name: name of the claim.
        namespace: the namespace; None uses the context's namespace.
        timeout: seconds, or text such as ``"10m"``; None means no limit.
        progress: False shows no progress; None uses the environment variable ``AKSGPU_PROGRESS``.

    Raises:
        InvalidInput: an argument is not valid.
        Conflict: pods use the claim. Nothing was deleted.
        WaitTimeout: time ran out. The error says what still uses it.
        Forbidden: you may not delete claims.
    """
    check_cluster(aks)
    storage_arguments.claim_name(name)
    check_timeout(timeout)
    space = storage_arguments.namespace(namespace) or aks.kube.namespace
    found = aks.kube.find("PersistentVolumeClaim", name, space)
    if found is None:
        return
    users = [pod["metadata"]["name"] for pod in pods_using(aks, name, space)]
    if users and not found["metadata"].get("deletionTimestamp"):
        raise Conflict(
            f"claim {name!r} is used by {', '.join(sorted(users)[:5])}, and was not deleted",
            hint="Delete the Jobs of these pods first, or wait until they have ended.",
        )
    uid = found["metadata"]["uid"]
    if not found["metadata"].get("deletionTimestamp"):
        try:
            aks.kube.delete("PersistentVolumeClaim", name, space)
        except NotFound:
            return

    def poll() -> tuple[bool | None, str]:
        current = aks.kube.find("PersistentVolumeClaim", name, space)
        if current is None or current["metadata"]["uid"] != uid:
            return True, ""
        pods = [pod["metadata"]["name"] for pod in pods_using(aks, name, space)]
        return None, f"used by {', '.join(sorted(pods)[:5])}" if pods else "its volume is being deleted"

    wait_until(
        poll,
        f"deleting claim {name}",
        timeout=timeout,
        interval=_INTERVAL,
        progress=progress,
        on_interrupt=f"The deletion continues; storage.delete(aks, {name!r}) waits again.",
    )
