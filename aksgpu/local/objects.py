"""The interface through which the laptop's parts read and write Kubernetes objects.

Controllers, the scheduler, the node agent and Resource Manager use only :class:`Objects`. The API server's registry
implements it in the same process. The tests also implement it over HTTP.

Objects are plain dicts. Returned objects are shared, so copy an object before you change it. The name of a resource is
its plural, such as ``pods`` or ``jobs``. Plurals are unique on the laptop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from aksgpu.common.kubernetes_objects import Object as Object

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
    """One request about one object."""

    verb: str
    """``get``, ``create``, ``update``, ``patch`` or ``delete``."""
    resource: str
    name: str | None
    namespace: str | None
    body: Any = None
    subresource: str | None = None
    content_type: str = "application/json"


class Objects(ABC):
    """Reads and writes Kubernetes objects.

    Errors are raised as :class:`aksgpu.local.status_error.StatusError`.
    """

    @abstractmethod
    async def call(self, request: Request) -> Object:
        """Send one request. The other methods call this one."""

    @abstractmethod
    async def list(
        self, resource: str, namespace: str | None = None, *, field_selector: str = ""
    ) -> tuple[list[Object], str]:
        """Return all objects that match, and the resourceVersion to watch from.

        ``namespace=None`` means all namespaces.
        """

    @abstractmethod
    def watch(self, resource: str, namespace: str | None = None, *, resource_version: str) -> AsyncIterator[WatchEvent]:
        """Yield the changes after ``resource_version``, without end.

        Raises Expired (410) if that version is too old.
        """

    async def get(self, resource: str, name: str, namespace: str | None = None) -> Object:
        """Return an object; raises NotFound if it does not exist."""
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
        """Create an object, or post to a subresource of the object ``name``.

        Pods have the subresources ``binding`` and ``eviction``.
        """
        return await self.call(Request("create", resource, name, namespace, obj, subresource))

    async def update(self, resource: str, obj: Object, *, subresource: str | None = None) -> Object:
        """Replace an object, or only its ``status``.

        Raises Conflict if the object's resourceVersion is not the current one.
        """
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
        """Patch an object, or only its ``status``."""
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
        """Delete an object as the API does: finalizers and a pod's grace period are respected.

        Raises Conflict if ``uid`` is given and the object has another one.
        """
        options = {
            "propagationPolicy": propagation_policy,
            "gracePeriodSeconds": grace_period_seconds,
            "preconditions": {"uid": uid} if uid else None,
        }
        body = {key: value for key, value in options.items() if value is not None}
        return await self.call(Request("delete", resource, name, namespace, body))
