"""Refuses responses with status 200 that are not Resource Manager's: a login page, an empty object, an error.

Without this check the SDK reads each of them as an empty list, and a subscription would appear to have no clusters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from azure.core.exceptions import DecodeError
from azure.core.pipeline.policies import ContentDecodePolicy, SansIOHTTPPolicy

from aksgpu.azure.sdk_errors import ForeignResponse

__all__ = ["ResponseCheck"]

_KNOWN_FIELDS = ("value", "id", "name", "properties", "status", "Items")
"""Every response of Azure to a GET has one of these: lists, resources, operations, prices."""


class ResponseCheck(SansIOHTTPPolicy):  # type: ignore[misc]  # the SDK is not type-checked here
    """A policy of the SDK's pipeline that checks the responses to GET requests."""

    def on_response(self, request: Any, response: Any) -> None:
        """Raise an error if a response with status 200 contains an error, or is not a response of Azure.

        Raises:
            DecodeError: the response is an error.
            ForeignResponse: the response is not Azure's.
        """
        http_response = response.http_response
        if request.http_request.method != "GET" or http_response.status_code != 200:
            return
        body = response.context.get(ContentDecodePolicy.CONTEXT_NAME)
        if body is None:
            body = _decode(http_response)
        if isinstance(body, Mapping) and "error" in body and "status" not in body:
            raise DecodeError("the response is an error with status 200", response=http_response)
        problem = _problem(body)
        if problem:
            raise ForeignResponse(problem)


def _decode(http_response: Any) -> Any:
    try:
        return json.loads(http_response.text())
    except (ValueError, RecursionError):
        return None


def _problem(body: Any) -> str:
    """Return what is wrong with a body; empty if nothing is."""
    if not isinstance(body, Mapping):
        return "it is not a JSON object"
    if not any(name in body for name in _KNOWN_FIELDS):
        return "it has none of the fields of a list or a resource"
    if "value" in body and not isinstance(body["value"], list):
        return "its value is not a list"
    return ""
