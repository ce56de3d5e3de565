"""The one interface through which everything inside the laptop reads and writes Kubernetes objects.

Controllers, the scheduler, the node agent and Resource Manager know only :class:`Objects`. The API server's registry
implements it in process; a client of any API server could over HTTP, and in the tests one does.

Objects are plain dicts. What is returned or delivered is shared: treat it as frozen and copy before changing it.
A resource is named by its plural, such as ``pods`` or ``jobs``; every plural on the laptop is unique.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

Object = dict[str, Any]

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


class WatchEvent(NamedTuple):
    """One event of a watch."""

    type: str
    """``ADDED``, ``MODIFIED``, ``DELETED`` or ``BOOKMARK``."""
    object: Object


class Request(NamedTuple):
    """What is asked of one object."""

    verb: str
    """``get``, ``create``, ``update``, ``patch`` or ``delete``."""
    resource: str
    name: str | None
    namespace: str | None
    body: Any = None
    subresource: str | None = None
    content_type: str = "application/json"


class Objects(ABC):
    """Reads and writes Kubernetes objects. Errors are :class:`aksgpu.local.status_error.StatusError`."""

    @abstractmethod
    async def call(self, request: Request) -> Object:
        """One request about one object, as the methods below put it."""

    @abstractmethod
    async def list(
        self, resource: str, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> tuple[list[Object], str]:
        """All objects that match (every namespace when None), and the resourceVersion to watch from."""

    @abstractmethod
    def watch(
        self, resource: str, namespace: str | None = None, *, resource_version: str, field_selector: str = ""
    ) -> AsyncIterator[WatchEvent]:
        """Changes after ``resource_version``, for ever; raises Expired (410) when that is too old."""

    async def get(self, resource: str, name: str, namespace: str | None = None) -> Object:
        """The object; raises NotFound."""
        return await self.call(Request("get", resource, name, namespace))

    async def create(
        self,
        resource: str,
        obj: Object,
        namespace: str | None = None,
        *,
        name: str | None = None,
        subresource: str | None = None,
    ) -> Object:
        """Create the object, or post to a subresource of ``name`` (``pods`` has ``binding`` and ``eviction``)."""
        return await self.call(Request("create", resource, name, namespace, obj, subresource))

    async def update(self, resource: str, obj: Object, *, subresource: str | None = None) -> Object:
        """Replace the object, or only its ``status``; raises Conflict when its resourceVersion is stale."""
        meta = obj["metadata"]
        return await self.call(Request("update", resource, meta["name"], meta.get("namespace"), obj, subresource))

    async def patch(
        self,
        resource: str,
        name: str,
        patch: Any,
        namespace: str | None = None,
        *,
        content_type: str = MERGE_PATCH,
        subresource: str | None = None,
    ) -> Object:
        """Patch the object, or only its ``status``."""
        return await self.call(Request("patch", resource, name, namespace, patch, subresource, content_type))

    async def delete(
        self,
        resource: str,
        name: str,
        namespace: str | None = None,
        *,
        propagation_policy: str | None = None,
        grace_period_seconds: int | None = None,
        uid: str | None = None,
    ) -> Object:
        """Delete the object as the API does: finalizers and a pod's grace period are respected."""
        given = {
            "propagationPolicy": propagation_policy,
            "gracePeriodSeconds": grace_period_seconds,
            "preconditions": {"uid": uid} if uid else None,
        }
        options = {key: value for key, value in given.items() if value is not None}
        return await self.call(Request("delete", resource, name, namespace, options))
