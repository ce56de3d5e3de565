"""Check that a response is what a request expects. A proxy may respond with its own text, Status or JSON object."""

from __future__ import annotations

from aksgpu.common.kubernetes_objects import Object
from aksgpu.errors import KubernetesError, Unreachable
from aksgpu.kube.decoding import decode
from aksgpu.kube.status_errors import UNREACHABLE_HINT

__all__ = ["checked_field", "checked_list", "checked_object", "decoded"]


def decoded(content: bytes, request: str) -> Object:
    """Return the JSON object of a response.

    Args:
        content: the whole body.
        request: the method and path, for errors.

    Raises:
        Unreachable: the body is incomplete.
        KubernetesError: the body is not a JSON object.
    """
    try:
        response = decode(content)
    except ValueError as wrong:
        if not content or content.startswith(b"{"):
            message = f"{request}: the response ends early, after {len(content)} bytes"
            raise Unreachable(message, hint=UNREACHABLE_HINT) from None
        raise KubernetesError(f"{request}: the response is not JSON") from wrong
    if not isinstance(response, dict):
        raise KubernetesError(f"{request}: the response is not a JSON object")
    return response


def checked_object(response: Object, request: str) -> Object:
    """Return a response that must be a Kubernetes object."""
    if response.get("kind") == "Status" or not isinstance(response.get("metadata"), dict):
        raise KubernetesError(f"{request}: the response is not a Kubernetes object")
    return response


def checked_list(response: Object, request: str) -> Object:
    """Return a response that must be a list of Kubernetes objects. Go may write an empty list as null."""
    items = response.get("items", "")
    if items is None:
        items = []
    metadata = response.get("metadata")
    if not isinstance(items, list) or not isinstance(metadata, dict):
        raise KubernetesError(f"{request}: the response is not a list of Kubernetes objects")
    return {**response, "items": items}


def checked_field(response: Object, field: str, request: str) -> list[Object]:
    """Return a field of a response that must be a list of objects, as in the lists of API groups and resources."""
    found = response.get(field)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise KubernetesError(f"{request}: the response has no list of {field}")
    return found
