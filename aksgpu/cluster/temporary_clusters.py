"""A cluster for the length of a block. Private to :mod:`aksgpu.cluster`."""

from __future__ import annotations

import contextlib
import secrets
import time
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from aksgpu.azure import azure_arguments, resource_names, resources, throttling
from aksgpu.azure.subscription import KubeconfigTarget
from aksgpu.cluster import expiry, unmanaged
from aksgpu.cluster.cluster_model import Cluster, azure_of
from aksgpu.cluster.clusters import create
from aksgpu.cluster.leftover_resources import delete_now
from aksgpu.cluster.pool_fields import texts
from aksgpu.errors import AzureConflict, AzureError, AzureUnreachable, InvalidInput, Throttled
from aksgpu.waiting import check_timeout

if TYPE_CHECKING:
    from aksgpu.azure.subscription import Azure

# seconds between two attempts to delete
_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
_open: set[str] = set()  # tokens of the blocks that are open in this process


@contextlib.contextmanager
def temporary(
    azure: Azure,
    name: str,
    *,
    resource_group: str,
    timeout: float | None = 1800,
    progress: bool | None = None,
    **options: Any,
) -> Iterator[Cluster]:
    """A cluster for the length of a ``with`` block, deleted at its end, on exceptions and interrupts too.

        with cluster.temporary(azure, "trial", resource_group="trial", location="eastus") as aks:
            cluster.add_gpu_pool(aks)
            ...

    A cluster that an earlier block left, because its process was killed, is taken over. One made otherwise is not: it
    would be deleted; nor is one of a block that is still open in this process.

    Args:
        azure: the subscription.
        name: of the cluster.
        resource_group: its resource group; deleted too when this library made it and nothing else is in it.
        timeout: seconds to wait for the creation, and again for the deletion; None for no limit.
        progress: False for silence; None asks ``AKSGPU_PROGRESS``.
        **options: further arguments of :func:`create`.

    Raises:
        AzureConflict: a cluster of this name exists that :func:`temporary` did not make.
        AksGpuError: as for :func:`create` and :func:`delete`.
    """
    azure_arguments.check_azure(azure)
    check_timeout(timeout)
    azure_arguments.check_flag(progress, "progress", optional=True)
    resource_names.check(resource_names.CLUSTER, name, "name")
    resource_names.check(resource_names.GROUP, resource_group, "resource_group")
    if isinstance(azure, KubeconfigTarget):
        there, said = unmanaged.cluster_at(azure, name)
        warnings.warn(f"{said} It stays at the end of the block.", stacklevel=3)
        yield there
        return
    block = _Block(azure, name, resource_group, timeout, progress)
    tags = {**texts("tags", options.pop("tags", None)), **block.tags()}
    _open.add(block.token)
    try:
        try:
            aks = create(
                azure, name, resource_group=resource_group, tags=tags, timeout=timeout, progress=progress, **options
            )
        except BaseException as error:
            if not isinstance(error, InvalidInput) and not getattr(error, "differences", None):
                block.end(error)  # what was refused by itself changed nothing
            raise
        try:
            yield aks
        except BaseException as error:
            block.end(error)
            raise
        block.end()
    finally:
        _open.discard(block.token)


class _Block:
    """One block's cluster, whether it exists or not: what was there before, and its deletion."""

    def __init__(self, azure: Azure, name: str, group: str, timeout: float | None, progress: bool | None) -> None:
        self.timeout = timeout
        self.progress = progress
        self.aks = Cluster(name, resource_group=group, azure=azure, id=resources.cluster_id(azure, group, name))
        self.token = secrets.token_hex(4)
        self.own = True  # whether the tag tells which block made it
        with throttling.limit(timeout, f"looking for cluster {name}", progress):
            self.had_group = resources.find_group(azure, group) is not None
            existing = self.find()
        if existing is not None:
            self._take_over(existing.get("tags") or {})

    def _take_over(self, tags: Mapping[str, str]) -> None:
        name = self.aks.name
        if not expiry.TEMPORARY.items() <= tags.items():
            raise AzureConflict(
                f"cluster {name} exists, and would be deleted at the end of the block",
                hint="Take another name; or cluster.get(azure, name, resource_group) for a cluster that stays.",
            )
        if tags.get(expiry.BLOCK) in _open:
            raise AzureConflict(
                f"cluster {name} belongs to a block that is still open, and would be deleted at the end of this one",
                hint="Use the other block's cluster, or take another name.",
            )
        self.own = expiry.BLOCK in tags
        self.token = tags.get(expiry.BLOCK, self.token)

    def tags(self) -> dict[str, str]:
        return {**expiry.TEMPORARY, **({expiry.BLOCK: self.token} if self.own else {})}

    def find(self) -> dict[str, Any] | None:
        return resources.find_cluster(azure_of(self.aks), self.aks.resource_group, self.aks.name)

    def end(self, error: BaseException | None = None) -> None:
        """Delete it. Where that fails after an error of the block, the error goes on, with a note."""
        name = self.aks.name
        group = self.aks.resource_group
        try:
            self._delete()
        except BaseException as failure:
            note = f"cluster {name} of resource group {group} may still be there, and cost money: "
            note += f"cluster.delete(cluster.get(azure, {name!r}, {group!r})) deletes it"
            failure.add_note(note)
            if error is None or not isinstance(failure, Exception):
                raise
            error.add_note(f"{note}; its deletion failed: {failure}")

    def _delete(self) -> None:
        with throttling.limit(self.timeout, f"deleting cluster {self.aks.name}", self.progress) as call:
            pause = _PAUSE
            while True:
                try:
                    self._delete_once()
                    return
                except AzureError as refusal:
                    if not _passing(refusal) or call.left <= pause:
                        raise
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _delete_once(self) -> None:
        shown = self.find()
        if shown is None and self.had_group:
            expiry.cancel(self.aks)
            return  # nothing is left, or nothing was made: a group that was there stays
        if shown is None or self.tags().items() <= (shown.get("tags") or {}).items():
            delete_now(self.aks)


def _passing(refusal: AzureError) -> bool:
    """Whether Azure may answer otherwise in a while."""
    status = refusal.status or 0
    return isinstance(refusal, AzureUnreachable | Throttled | AzureConflict) or status in (409, 429) or status >= 500
