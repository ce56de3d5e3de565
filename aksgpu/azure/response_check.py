"""Answers of Resource Manager that are not answers: a login page, an empty object, an error with status 200.

Without this check the SDK reads each of them as an empty list, which would show a subscription without any cluster.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from azure.core.exceptions import DecodeError
from azure.core.pipeline.policies import ContentDecodePolicy, SansIOHTTPPolicy

_KNOWN = ("value", "id", "name", "properties", "status", "Items")
"""Fields of which Azure's answers to a GET have at least one: lists, resources, operations, prices."""


class ResponseCheck(SansIOHTTPPolicy):  # type: ignore[misc]  # azure.core has no types here
    """A policy of the SDK's pipeline that refuses what is not an answer to a GET."""

    def on_response(self, request: Any, response: Any) -> None:
        """Raise DecodeError for an answer with status 200 that has none of the fields of an answer."""
        answer = response.http_response
        if request.http_request.method != "GET" or answer.status_code != 200:
            return
        body = response.context.get(ContentDecodePolicy.CONTEXT_NAME)
        if body is None:
            body = _decoded(answer)
        problem = _problem(body)
        if problem:
            raise DecodeError(f"the answer is not Azure's: {problem}", response=answer)


def _decoded(answer: Any) -> Any:
    try:
        return json.loads(answer.text())
    except (ValueError, RecursionError):
        return None


def _problem(body: Any) -> str:
    if not isinstance(body, Mapping):
        return "it is not a JSON object"
    if "error" in body and "status" not in body:
        return "it is an error with status 200"
    if not any(name in body for name in _KNOWN):
        return "it has none of the fields of a list or a resource"
    if "value" in body and not isinstance(body["value"], list):
        return "its value is not a list"
    return ""
