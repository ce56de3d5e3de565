"""The message of an ended container, which it writes to ``terminationMessagePath`` or, if it failed, to its log.

The limits are those of the kubelet. A message that is too long is truncated without a notice.
"""

from __future__ import annotations

from pathlib import Path

from aksgpu.local.node import container_logs
from aksgpu.local.objects import Object

FILE_BYTES = 4096
"""Bytes that are read from the end of the file."""
LOG_BYTES = 2048
"""Bytes that are read from the end of the log."""
LOG_LINES = 80
"""Lines that are read from the end of the log."""
POD_BYTES = 12 * 1024
"""Bytes for all containers of a pod. Each container gets an equal share."""
FILE_NAME = "termination-log"
"""The file on this machine, in the directory of the container's run."""


async def read(container: Object, directory: Path, log: Path, *, failed: bool) -> str:
    """Return the message of a run that has ended.

    Args:
        container: the container in the pod's spec.
        directory: the directory of the run.
        log: the path of the run's log, without the number of a segment.
        failed: whether the exit code is not 0.
    """
    message = b""
    if container.get("terminationMessagePath"):
        try:
            message = _read_end(directory / FILE_NAME)
        except OSError as error:
            return f"Error on reading termination log {directory / FILE_NAME}: {error.strerror or error}"
    if not message and failed and container.get("terminationMessagePolicy") == "FallbackToLogsOnError":
        chunks = [chunk async for chunk in container_logs.read(log, lambda: True, tail_lines=LOG_LINES)]
        message = b"".join(chunks)[-LOG_BYTES:]
    return message.decode(errors="replace")


def _read_end(path: Path) -> bytes:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - FILE_BYTES))
        return file.read(FILE_BYTES)


def truncate(status: Object, containers: int) -> Object:
    """Return a container's status with its messages truncated to its share of the pod's limit.

    Args:
        status: the status.
        containers: the number of all containers in the pod's spec.
    """
    share = POD_BYTES // containers
    changed = {}
    for field in ("state", "lastState"):
        ended = status[field].get("terminated") or {}
        message = ended.get("message", "").encode()
        if len(message) > share:
            changed[field] = {"terminated": {**ended, "message": message[:share].decode(errors="replace")}}
    return {**status, **changed}
