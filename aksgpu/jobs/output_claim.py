"""The claim of ``Executor(out=)``: the Job's files on it, and the result that is kept there."""

from __future__ import annotations

import contextvars
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from aksgpu.azure.throttling import limit
from aksgpu.cluster.cluster_model import Cluster
from aksgpu.cluster.node_pool_model import NodePool, read_pools
from aksgpu.common.frames import frame
from aksgpu.common.notices import warn
from aksgpu.errors import AksGpuError, InvalidInput, NotFound, ResultLost
from aksgpu.jobs.executor_options import ExecutorOptions
from aksgpu.kube.client import HasKube, Object
from aksgpu.payload import records
from aksgpu.payload.job_annotations import OUTPUT
from aksgpu.payload.records import BadRecord, Record
from aksgpu.storage.claims import require
from aksgpu.storage.downloads import LISTED, download, ls

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "claim_for_output",
    "list_output",
    "read_kept_outcome",
    "require_claims",
    "require_output",
    "warn_of_lost_results",
]

_READING_POOLS = 10.0
"""Seconds that reading the node pools may take."""
_READING_RESULT = 3600.0
"""Seconds that reading a result from the claim may take."""
_checked: set[tuple[str, str]] = set()
"""Clusters for which the warning was considered in this process, by name and resource group."""


def claim_for_output(job: Object) -> str:
    """Return the name of the Job's claim for output; empty if it has none."""
    return str((job["metadata"].get("annotations") or {}).get(OUTPUT) or "")


def require_output(job: Object) -> str:
    """Return the name of the Job's claim for output.

    Raises:
        InvalidInput: it has none.
    """
    claim = claim_for_output(job)
    if not claim:
        raise InvalidInput(
            f"job {job['metadata']['name']!r} must have a claim for output, and it was submitted without one",
            hint='Submit it with Executor(aks, out="runs"). The function writes to the directory $AKSGPU_OUT.',
        )
    return claim


def require_claims(aks: HasKube, options: ExecutorOptions, namespace: str) -> None:
    """Check that the claims of an Executor exist. A pod without its claim would wait forever.

    Raises:
        NotFound: one does not.
    """
    for claim in sorted({*options.volumes.values(), options.out} - {""}):
        require(aks, claim, namespace)


def list_output(aks: HasKube, claim: str, job: str, namespace: str, progress: bool | None) -> pd.DataFrame:
    """Return the table of the files in a Job's directory on its claim; empty if the directory does not exist yet."""
    try:
        found = ls(aks, claim, job, recursive=True, namespace=namespace, progress=progress)
    except NotFound:
        require(aks, claim, namespace)
        return frame([], LISTED)
    found["path"] = found["path"].str.removeprefix(f"{job}/")
    return found


# The result


def read_kept_outcome(aks: HasKube, job: Object, key: bytes) -> Record | None:
    """Return the outcome that the runner has written to the claim for output; None if there is none.

    Args:
        aks: the cluster.
        job: the Job object.
        key: the key of the Job's HMACs.

    Raises:
        ResultLost: there is an outcome, and it cannot be read completely.
    """
    claim = claim_for_output(job)
    if not claim:
        return None
    metadata = job["metadata"]
    path = f".aksgpu/{metadata['name']}/{records.output_file(key)}"
    with tempfile.TemporaryDirectory(prefix="aksgpu-") as directory:
        file = Path(directory) / "outcome"

        def read() -> None:
            download(
                aks,
                claim,
                path,
                to=file,
                namespace=metadata["namespace"],
                timeout=_READING_RESULT,
                progress=False,
            )

        try:
            # The caller's patience is for the end of the Job. Its result is read completely, however long that takes.
            contextvars.Context().run(read)
            return records.from_file(file.read_bytes(), key)
        except NotFound:
            return None
        except BadRecord as error:
            raise ResultLost(
                f"the result of job {metadata['name']} on claim {claim!r} cannot be read: {error}",
                hint="Run the function again.",
            ) from error


# The warning


def warn_of_lost_results(aks: HasKube, options: ExecutorOptions) -> None:
    """Warn once if results can be lost with their nodes: a GPU pool scales down, and there is no claim for output."""
    if options.out or not options.gpus or not isinstance(aks, Cluster) or not aks.has_azure:
        return
    identity = (aks.name, aks.resource_group)
    if identity in _checked:
        return
    _checked.add(identity)
    try:
        with limit(_READING_POOLS, "reading node pools"):
            shrinking = [pool for pool in read_pools(aks) if _shrinks(pool)]
    except AksGpuError:
        return
    if shrinking:
        pool = shrinking[0]
        warn(
            f"Pool {pool.name} shrinks to {pool.min_count} nodes when it is idle, about 10 minutes after its last Job. "
            "A result that has not been read by then is lost with its node. A claim keeps it: "
            'storage.create(aks, "runs"), then Executor(aks, out="runs").'
        )


def _shrinks(pool: NodePool) -> bool:
    return bool(pool.gpu_model) and pool.min_count is not None and pool.min_count < max(pool.count, 1)
