"""Copy a file from the web to a claim, in the cluster."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

from aksgpu.errors import InvalidInput
from aksgpu.kube.client import HasKube
from aksgpu.kube.cluster_argument import check_cluster
from aksgpu.progress import Progress
from aksgpu.storage import storage_arguments
from aksgpu.storage.helper_channel import Channel
from aksgpu.storage.helper_pod import HelperPod, transfer
from aksgpu.storage.transfer_progress import Meter, Transfer, resumable
from aksgpu.waiting import Timeout, Timer, check_timeout

__all__ = ["fetch"]


def fetch(
    aks: HasKube,
    name: str,
    url: str,
    *,
    to: str | None = None,
    sha256: str | None = None,
    namespace: str | None = None,
    timeout: Timeout = None,
    progress: bool | None = None,
) -> Transfer:
    """Copy a file from the web to a claim. The data does not pass through this machine.

    The helper pod reads the URL, so it must be reachable from the cluster. For a file in Azure Blob Storage, pass its
    URL with a signature (SAS). The URL is not stored in the cluster. A broken download continues where it stopped if
    the server supports that. A file that exists in the claim is replaced when the new one is complete.

    Args:
        aks: the cluster.
        name: name of the claim.
        url: the address, which begins with ``https://`` or ``http://``.
        to: path of the file in the claim. None uses the last part of the URL. With ``/`` at the end, it is a directory
            that gets the file under that name.
        sha256: the SHA-256 that the file must have, as hexadecimal digits; None accepts any.
        namespace: the claim's namespace; None uses the context's namespace.
        timeout: seconds, or text such as ``"2h"``; None means no limit.
        progress: False shows no progress; None uses the environment variable ``AKSGPU_PROGRESS``.

    Returns:
        What was copied.

    Raises:
        InvalidInput: an argument is not valid.
        NotFound: the claim does not exist.
        StorageFull: the claim has too little space left.
        StorageError: the server refuses the URL, or the checksum differs.
        Forbidden: you may not create Jobs or run programs in pods. The ``edit`` role of a namespace may.
        Unreachable: the server or the cluster could not be reached for five minutes.
        WaitTimeout: time ran out. The next call continues.

    Example:
        >>> storage.fetch(aks, "data", "https://example.com/images.tar")  # doctest: +SKIP
    """
    check_cluster(aks)
    storage_arguments.claim_name(name)
    address = storage_arguments.url(url)
    target = _target(address, to)
    checksum = storage_arguments.checksum(sha256)
    check_timeout(timeout)
    space = storage_arguments.namespace(namespace)
    timer = Timer(timeout)
    request = {"t": "fetch", "url": address, "path": target, "sha256": checksum}
    helper = HelperPod(aks, name, namespace=space, timer=timer, read_only=False, progress=progress)
    with resumable(f"fetching to {name}"), helper, Progress(f"fetching to {name}", show=progress) as bar:
        meter = Meter(bar)

        def work(channel: Channel) -> dict[str, Any]:
            meter.start()
            channel.send(request)
            while True:
                header, _ = channel.receive()
                if header["t"] == "end":
                    return header
                meter.total = header["total"]
                meter.moved = header["done"]
                meter.show()

        end = transfer(helper, work, lambda: meter.moved, timer)
    return Transfer(target, 1, end["size"], end["size"], meter.seconds)


def _target(url: str, to: str | None) -> str:
    """Return the path in the claim that the file gets."""
    own = unquote(urlsplit(url).path.rpartition("/")[2])
    if to is not None and not to.endswith("/"):
        path = storage_arguments.claim_path(to, "to")
        if path:
            return path
    if not own or own in (".", "..") or "/" in own or "\0" in own:
        raise InvalidInput(
            "`to` must be given, because the URL ends without a file name", hint="For example to='a.tar'."
        )
    directory = storage_arguments.claim_path(to or "", "to")
    return f"{directory}/{own}" if directory else own
