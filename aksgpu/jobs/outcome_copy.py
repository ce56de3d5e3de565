"""The copy of a run's outcome in Secrets of its Job, which outlive the pod and its node.

A long outcome is split. The first part is written last, so that it exists only if all of them do.
"""

from __future__ import annotations

import base64
import contextlib

from aksgpu.errors import AlreadyExists, KubernetesError, NotFound
from aksgpu.jobs.executor_manifest import owned_secret
from aksgpu.kube.client import HasKube, Object
from aksgpu.waiting import deadline

__all__ = ["keep_copy", "read_copy"]

_PART_BYTES = 900 * 1024
"""Bytes of a Secret's data. Kubernetes allows 1 MiB for the whole object."""
_KEEPING_SECONDS = 30.0
"""Seconds that writing the copy may take. The caller has the outcome already."""


def keep_copy(aks: HasKube, job: Object, text: str) -> None:
    """Copy the text of an outcome into Secrets that the Job owns, if it is not there yet.

    A copy that cannot be written, for example because of a quota, is left out: it only serves later readers.

    Args:
        aks: the cluster.
        job: the Job object.
        text: the record as text.
    """
    metadata = job["metadata"]
    content = text.encode()
    parts = [content[start : start + _PART_BYTES] for start in range(0, len(content), _PART_BYTES)]
    with contextlib.suppress(KubernetesError), deadline(_KEEPING_SECONDS):
        if _find(aks, job, 0) is not None:
            return
        for number in reversed(range(len(parts))):
            data = {"outcome": parts[number], "parts": str(len(parts)).encode()}
            # Another kernel may copy the same outcome at the same time.
            with contextlib.suppress(AlreadyExists):
                aks.kube.create(owned_secret(_name(metadata["name"], number), data, job))


def read_copy(aks: HasKube, job: Object) -> str:
    """Return the text of the copied outcome; empty if there is none."""
    first = _find(aks, job, 0)
    if first is None:
        return ""
    found = [first["outcome"]]
    for number in range(1, int(first["parts"])):
        part = _find(aks, job, number)
        if part is None:
            return ""
        found.append(part["outcome"])
    return b"".join(found).decode()


def _name(job: str, number: int) -> str:
    return f"{job}-outcome-{number}"


def _find(aks: HasKube, job: Object, number: int) -> dict[str, bytes] | None:
    """Return the data of a part; None if there is none, or if it belongs to an earlier Job of the same name."""
    metadata = job["metadata"]
    try:
        secret = aks.kube.get("Secret", _name(metadata["name"], number), metadata["namespace"])
    except NotFound:
        return None
    owners = secret["metadata"].get("ownerReferences") or ()
    if not any(owner["uid"] == metadata["uid"] for owner in owners):
        return None
    return {key: base64.b64decode(value) for key, value in secret["data"].items()}
