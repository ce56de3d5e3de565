"""Make exceptions from the API server's Status objects and from failed requests, with hints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from aksgpu.common import connection_errors
from aksgpu.errors import (
    AlreadyExists,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    KubernetesError,
    NotFound,
    Unauthorized,
    Unreachable,
)

__all__ = ["STALE_HINT", "UNREACHABLE_HINT", "from_failure", "from_response", "from_status"]

_LONGEST_TEXT = 500
"""Characters that an error shows of a response that is not a Status object."""

_NO_PATH = "404 page not found"
"""The API server's response if it does not serve a kind, or does not know a path."""

STALE_HINT = (
    "The cluster may have been deleted or created again, or the credentials have expired. "
    "Get the cluster again with aks = cluster.get(azure, name, resource_group=...). "
    "For a kubeconfig of your own, renew the credentials with cluster.get_credentials(aks, overwrite_existing=True)."
)
UNREACHABLE_HINT = (
    f"{connection_errors.CONNECT_AGAIN}, aks = cluster.get(azure, name, resource_group=...); then run the cell again. "
    "A stopped cluster is started with cluster.start(aks)."
)


def from_response(http_status: int, body: bytes) -> KubernetesError:
    """Return the exception for an error response. Its body is a Status object, or text of a proxy."""
    try:
        status = json.loads(body)
    except ValueError:
        status = None
    text = body.decode("utf-8", "replace").strip()[:_LONGEST_TEXT]
    if http_status == 404:
        incomplete = _incomplete_not_found(text, status)
        if incomplete is not None:
            return incomplete
    if not isinstance(status, dict):
        status = {"message": text}
    return from_status({**status, "code": int(status.get("code") or http_status)})


def _incomplete_not_found(text: str, status: Any) -> KubernetesError | None:
    """Return the error for a 404 that is not the API server's whole response; None if it is.

    The page of a proxy, or of another server at this address, must not look as if the object did not exist.
    """
    if text in ("", _NO_PATH) or (isinstance(status, dict) and status.get("kind") == "Status"):
        return None
    if status is None and (text.startswith("{") or _NO_PATH.startswith(text)):
        return Unreachable(f"the response with status 404 ends early: {text}", hint=UNREACHABLE_HINT)
    return KubernetesError(
        f"the response is not the API server's: status 404, {text}", status={"code": 404}, hint=STALE_HINT
    )


def from_status(status: Mapping[str, Any]) -> KubernetesError:
    """Return the exception for a Status object."""
    http_status = int(status.get("code") or 500)
    message = str(status.get("message") or f"the API server returned status {http_status}")
    kind, hint = _classify(http_status, str(status.get("reason") or ""), message)
    return kind(message, status=status, hint=hint)


def _classify(code: int, reason: str, message: str) -> tuple[type[KubernetesError], str]:
    # Server-side apply reports unknown fields as an internal error, create and update as a bad request.
    signs = ("strict decoding error", "not declared in schema", "cannot be handled as a ")
    if code == 422 or any(sign in message for sign in signs):
        return Invalid, "Correct the field that the message names; kubectl explain shows the fields that exist."
    if code == 409:
        if reason == "AlreadyExists":
            return AlreadyExists, ""
        return Conflict, "The object was changed, or another program manages the field. Read the object and try again."
    if code == 403 and reason == "Forbidden" and "exceeded quota" in message:
        return Forbidden, "The namespace's ResourceQuota is used up. Delete a Job, or ask for a higher quota."
    if code == 404 and message.startswith("namespaces "):
        return (
            NotFound,
            'Create it with aks.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ...}}).',
        )
    if code == 504 and "Too large resource version" in message:
        return KubernetesError, "The resourceVersion is newer than the server's. List again without one."
    known: dict[int, tuple[type[KubernetesError], str]] = {
        401: (Unauthorized, STALE_HINT),
        403: (Forbidden, "Ask the cluster's administrator for a role that allows this, or use another namespace."),
        404: (NotFound, ""),
        410: (Expired, "The list or watch took too long. Start it again."),
        # A load balancer returns these while the API server is restarted, upgraded or stopped. Waits continue.
        **dict.fromkeys((502, 503, 504), (Unreachable, UNREACHABLE_HINT)),
    }
    return known.get(code, (KubernetesError, ""))


def from_failure(failed: BaseException, what: str, url: str) -> Unreachable:
    """Return the exception for a request without a response.

    Raise it ``from None``: the frames of the HTTP library would hide the hint.

    Args:
        failed: the HTTP library's exception; it becomes ``.original``.
        what: a description of the server.
        url: its address.
    """
    from urllib3.exceptions import SSLError

    why = connection_errors.reason(failed)
    if connection_errors.timed_out(failed):
        why += "; it may have moved to another address"
    stale = any(isinstance(each, SSLError) for each in connection_errors.chain(failed))
    return Unreachable(
        f"no response from {what} at {urlsplit(url).netloc}: {why}",
        hint=STALE_HINT if stale else UNREACHABLE_HINT,
        refused=connection_errors.refused(failed),
        unsent=connection_errors.unsent(failed),
        permanent=connection_errors.permanent(failed),
        original=failed,
    )
