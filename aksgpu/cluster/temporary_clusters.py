"""Clusters that exist for the duration of a ``with`` block."""

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
from aksgpu.cluster.leftover_resources import delete_within_call
from aksgpu.common.arguments import flag
from aksgpu.errors import AzureConflict, AzureError, AzureUnreachable, InvalidInput, Throttled
from aksgpu.waiting import Timeout, check_timeout

if TYPE_CHECKING:
    from aksgpu.azure.subscription import Azure

__all__ = ["temporary"]

_PAUSE = 1.0
"""Seconds between the first two attempts to delete the cluster; the pause doubles after each attempt."""

_LONGEST_PAUSE = 30.0
"""Longest pause in seconds between two attempts."""

_TOKEN_BYTES = 4
"""Random bytes in the id of a block."""

_open_blocks: set[str] = set()
"""Ids of the blocks that are open in this process."""


@contextlib.contextmanager
def temporary(
    azure: Azure,
    name: str,
    *,
    resource_group: str,
    timeout: Timeout = 1800,
    progress: bool | None = None,
    **options: Any,
) -> Iterator[Cluster]:
    """Create a cluster for a ``with`` block, and delete it at the end, even after an exception or an interrupt.

        with cluster.temporary(azure, "trial", resource_group="trial", location="eastus") as aks:
            cluster.add_gpu_pool(aks)
            ...

    A cluster that an earlier block left behind, because its process was killed, is used again. Any other existing
    cluster is refused, because it would be deleted. This includes the cluster of a block that is still open in this
    process.

    Args:
        azure: the subscription.
        name: name of the cluster.
        resource_group: its resource group, which is deleted too if this library created it and nothing else is in it.
        timeout: seconds, or text such as ``"30m"``, for the creation, and again for the deletion; None for no limit.
        progress: False hides the progress bar; None reads ``AKSGPU_PROGRESS``.
        **options: other arguments of :func:`create`.

    Raises:
        AzureConflict: a cluster of this name exists that :func:`temporary` did not create.
        AksGpuError: the errors of :func:`create` and :func:`delete`.
    """
    azure_arguments.check_azure(azure)
    check_timeout(timeout)
    flag("progress", progress, optional=True)
    resource_names.check(resource_names.CLUSTER, name, "name")
    resource_names.check(resource_names.GROUP, resource_group, "resource_group")
    if isinstance(azure, KubeconfigTarget):
        existing, warning = unmanaged.cluster_at(azure, name)
        warnings.warn(f"{warning} It stays at the end of the block.", stacklevel=3)
        yield existing
        return
    tags = azure_arguments.check_text_mapping(options.pop("tags", None), "tags")
    block = _Block(azure, name, resource_group, timeout, progress)
    with block.is_open():
        try:
            aks = create(
                azure,
                name,
                resource_group=resource_group,
                tags=tags | block.tags(),
                timeout=timeout,
                progress=progress,
                **options,
            )
        except BaseException as error:
            # After a refusal by the library itself, nothing has changed.
            is_refused = isinstance(error, InvalidInput) or (isinstance(error, AzureConflict) and error.differences)
            if not is_refused:
                block.end(error)
            raise
        try:
            yield aks
        except BaseException as error:
            block.end(error)
            raise
        block.end()


class _Block:
    """The cluster of one block, which may not exist, and its deletion.

    Attributes:
        is_tagged: whether the cluster's tag has the id of its block.
    """

    def __init__(self, azure: Azure, name: str, group: str, timeout: Timeout, progress: bool | None) -> None:
        self.timeout = timeout
        self.progress = progress
        self.aks = Cluster(name, resource_group=group, azure=azure, id=resources.cluster_id(azure, group, name))
        self.token = secrets.token_hex(_TOKEN_BYTES)
        self.is_tagged = True
        with throttling.limit(timeout, f"reading cluster {name}", progress):
            self.had_group = resources.find_group(azure, group) is not None
            existing = self.find()
        if existing is not None:
            self._adopt(existing.get("tags") or {})

    def _adopt(self, tags: Mapping[str, str]) -> None:
        """Use an existing cluster, if an earlier block left it behind."""
        name = self.aks.name
        if not expiry.TEMPORARY.items() <= tags.items():
            raise AzureConflict(
                f"cluster {name} exists, and would be deleted at the end of the block",
                hint="Choose another name, or cluster.get(azure, name, resource_group=...) for a cluster that stays.",
            )
        if tags.get(expiry.BLOCK) in _open_blocks:
            raise AzureConflict(
                f"cluster {name} belongs to a block that is still open, and would be deleted at the end of this one",
                hint="Use the cluster of the other block, or choose another name.",
            )
        self.is_tagged = expiry.BLOCK in tags
        self.token = tags.get(expiry.BLOCK, self.token)

    @contextlib.contextmanager
    def is_open(self) -> Iterator[None]:
        """Mark the block as open."""
        _open_blocks.add(self.token)
        try:
            yield
        finally:
            _open_blocks.discard(self.token)

    def tags(self) -> dict[str, str]:
        """Return the tags of the block's cluster."""
        tags = dict(expiry.TEMPORARY)
        if self.is_tagged:
            tags[expiry.BLOCK] = self.token
        return tags

    def find(self) -> dict[str, Any] | None:
        return resources.find_cluster(azure_of(self.aks), self.aks.resource_group, self.aks.name)

    def end(self, error: BaseException | None = None) -> None:
        """Delete the cluster. If that fails after an error of the block, add a note to that error."""
        name = self.aks.name
        group = self.aks.resource_group
        try:
            self._delete()
        except BaseException as failure:
            note = (
                f"cluster {name} of resource group {group} may still exist, and cost money. "
                f"cluster.delete(cluster.get(azure, {name!r}, resource_group={group!r})) deletes it"
            )
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
                    if not _is_transient(refusal) or call.left <= pause:
                        raise
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _delete_once(self) -> None:
        found = self.find()
        if found is None and self.had_group:
            expiry.cancel(self.aks)
            return  # the cluster does not exist, and a group that existed before stays
        if found is None or self.tags().items() <= (found.get("tags") or {}).items():
            delete_within_call(self.aks)


def _is_transient(refusal: AzureError) -> bool:
    """Return whether the same request may succeed later."""
    http_status = refusal.http_status or 0
    if isinstance(refusal, AzureUnreachable | Throttled | AzureConflict):
        return True
    return http_status in (409, 429) or http_status >= 500
