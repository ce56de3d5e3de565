"""A cluster for the length of a block. Private to :mod:`aksgpu.cluster`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from aksgpu._azure import expiry, resources
from aksgpu._azure.clusters import create
from aksgpu._azure.handle import Cluster
from aksgpu._azure.leftovers import delete
from aksgpu.errors import AzureConflict

if TYPE_CHECKING:
    from aksgpu.azure import Azure


@contextlib.contextmanager
def temporary(
    azure: Azure, name: str, *, resource_group: str, timeout: float = 1800, progress: bool | None = None, **options: Any
) -> Iterator[Cluster]:
    """A cluster for the length of a ``with`` block, deleted at its end, on exceptions and interrupts too.

        with cluster.temporary(azure, "trial", resource_group="trial", location="eastus") as aks:
            cluster.add_gpu_pool(aks)
            ...

    A cluster that an earlier block left, because its process was killed, is taken over. One made otherwise is not: it
    would be deleted.

    Args:
        azure: the subscription.
        name: of the cluster.
        resource_group: its resource group; deleted too when this library made it and nothing else is in it.
        timeout: seconds to wait for the creation, and again for the deletion.
        progress: False for silence; None asks ``AKSGPU_PROGRESS``.
        **options: further arguments of :func:`create`.

    Raises:
        AzureConflict: a cluster of this name exists that :func:`temporary` did not make.
        AksGpuError: as for :func:`create` and :func:`delete`.
    """
    existing = resources.find_cluster(azure, resource_group, name)
    if existing is not None and not expiry.TEMPORARY.items() <= (existing.get("tags") or {}).items():
        raise AzureConflict(
            f"cluster {name} exists, and would be deleted at the end of the block",
            hint="Take another name; or cluster.get(azure, name, resource_group) for a cluster that stays.",
        )
    options["tags"] = {**options.get("tags", {}), **expiry.TEMPORARY}
    handle = Cluster(
        name, resource_group=resource_group, azure=azure, id=resources.cluster_id(azure, resource_group, name)
    )
    try:
        yield create(azure, name, resource_group=resource_group, timeout=timeout, progress=progress, **options)
    finally:
        delete(handle, timeout=timeout, progress=progress)
