"""The table of failure texts, and the functions that recognise them.

The rows are in modules by subject: :mod:`~aksgpu.diagnose.gpu_texts`, :mod:`~aksgpu.diagnose.serving_texts`,
:mod:`~aksgpu.diagnose.mpi_texts`, :mod:`~aksgpu.diagnose.access_texts`, :mod:`~aksgpu.diagnose.program_texts`,
:mod:`~aksgpu.diagnose.start_texts` and :mod:`~aksgpu.diagnose.node_texts`. Nothing here sends a request. Azure's own
refusals are in :mod:`aksgpu.azure.error_rules`, the events of schedulers and autoscalers in
:mod:`aksgpu.diagnose.scheduling_events`.
"""

from __future__ import annotations

from aksgpu.diagnose.access_texts import ACCESS_TEXTS
from aksgpu.diagnose.failure_text import Failure, FailureText, Place, first_match
from aksgpu.diagnose.first_error import find_first_error
from aksgpu.diagnose.gpu_texts import GPU_TEXTS, MEMORY_TEXTS
from aksgpu.diagnose.mpi_texts import MPI_TEXTS
from aksgpu.diagnose.node_texts import NODE_TEXTS
from aksgpu.diagnose.program_texts import DISTRIBUTED_TEXTS, IMAGE_CONTENT_TEXTS, STORAGE_TEXTS, WRAPPER_TEXTS
from aksgpu.diagnose.serving_texts import SERVING_TEXTS
from aksgpu.diagnose.start_texts import (
    ADMISSION_TEXTS,
    IMAGE_TEXTS,
    REFUSED_TEXTS,
    START_TEXTS,
    UNMOUNTED_TEXTS,
    VOLUME_TEXTS,
)

__all__ = [
    "LOG_RULES",
    "Failure",
    "FailureText",
    "from_condition",
    "from_container",
    "from_event",
    "from_log",
    "from_pod",
]

LOG_RULES: tuple[FailureText, ...] = (
    *STORAGE_TEXTS,
    *MPI_TEXTS,
    *DISTRIBUTED_TEXTS,
    *SERVING_TEXTS,
    *MEMORY_TEXTS,
    *GPU_TEXTS,
    *ACCESS_TEXTS,
    *IMAGE_CONTENT_TEXTS,
    *WRAPPER_TEXTS,
    *ADMISSION_TEXTS,
    *START_TEXTS,
    *VOLUME_TEXTS,
    *UNMOUNTED_TEXTS,
    *IMAGE_TEXTS,
    *REFUSED_TEXTS,
    *NODE_TEXTS,
)
"""The table. The first row of a place that recognises a text counts, so more specific texts come first."""

_IMAGE_ROWS = (*(row for row in IMAGE_CONTENT_TEXTS if Place.EVENT in row.places), *IMAGE_TEXTS)
"""Rows for a container whose image is not there."""
_OTHER_ROWS = (
    *STORAGE_TEXTS,
    *DISTRIBUTED_TEXTS,
    *SERVING_TEXTS,
    *MEMORY_TEXTS,
    *GPU_TEXTS,
    *START_TEXTS,
    *ADMISSION_TEXTS,
    *VOLUME_TEXTS,
    *IMAGE_CONTENT_TEXTS,
)
"""Rows for a container that is not started, and for events."""
_VOLUME_REASONS = ("FailedMount", "FailedAttachVolume", "ProvisioningFailed", "FailedBinding")
_IMAGE_REASONS = ("ErrImagePull", "ErrImageNeverPull", "Failed", "FailedPull", "InspectFailed")


def from_log(text: str) -> Failure | None:
    """Return the failure that a log shows; None if it shows no known one.

    Args:
        text: the log, or its end.
    """
    found = find_first_error(text, LOG_RULES)
    return found.failure if found else None


def from_container(message: str, *, image: bool = False) -> Failure | None:
    """Return the failure that the message of a container shows; None if it shows no known one.

    Args:
        message: the message of a container that waits or has ended.
        image: whether the container waits for its image.
    """
    return first_match(_IMAGE_ROWS if image else _OTHER_ROWS, message, Place.CONTAINER)


def from_event(reason: str, message: str) -> Failure | None:
    """Return the failure that an event of a pod or a Job shows; None if it shows no known one.

    Args:
        reason: the event's reason, such as ``FailedMount``.
        message: the event's message.
    """
    rows: tuple[FailureText, ...] = _OTHER_ROWS
    if reason in _VOLUME_REASONS:
        rows = (*VOLUME_TEXTS, *_OTHER_ROWS, *UNMOUNTED_TEXTS)
    elif reason in _IMAGE_REASONS:
        rows = (*_IMAGE_ROWS, *_OTHER_ROWS)
    elif reason == "FailedCreate":
        rows = (*REFUSED_TEXTS, *_OTHER_ROWS)
    return first_match(rows, message, Place.EVENT)


def from_pod(reason: str, message: str) -> Failure | None:
    """Return the failure that the status of a refused or evicted pod shows; None if it shows no known one.

    Args:
        reason: the pod's reason, such as ``UnexpectedAdmissionError``.
        message: the pod's message.
    """
    return first_match(LOG_RULES, f"{reason}: {message}" if reason else message, Place.POD)


def from_condition(kind: str, reason: str, message: str) -> Failure | None:
    """Return the failure that a condition of a node shows, if its status is ``True``; None if it shows no known one.

    Args:
        kind: the condition's type, such as ``GPUMissing``.
        reason: the condition's reason.
        message: the condition's message.
    """
    return first_match(NODE_TEXTS, f"{kind}: {reason}: {message}", Place.CONDITION)


def __dir__() -> list[str]:
    return sorted(__all__)
