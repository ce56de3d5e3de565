"""Writes: turns the object that a client sent into the object that the store keeps.

Each write reads the old object and changes the memory without awaiting anything, so no other write can happen in
between. The caller then waits for the disk. The order of the steps is that of the API server: decoding, defaults,
managed fields, the kind's strategy, admission, validation, storage.
"""

from __future__ import annotations

import copy
import secrets
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aksgpu.common.times import now
from aksgpu.local.api import admission, deletion, deprecations, quota, schema, server_side_apply, strategy
from aksgpu.local.api.status_causes import Causes
from aksgpu.local.api.store import Entry, Key, Store, encode
from aksgpu.local.api.validation import validate, validate_update
from aksgpu.local.kinds import DELETE_OPTIONS, Kind, Type
from aksgpu.local.objects import Object
from aksgpu.local.status_error import StatusError, already_exists, bad_request, conflict, not_found

STALE_MESSAGE = "the object has been modified; please apply your changes to the latest version and try again"
_SUFFIX_CHARACTERS = "bcdfghjklmnpqrstvwxz2456789"
"""Characters of generated name suffixes. There are no vowels, so that the suffixes contain no words."""
_SERVER_FIELDS = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
"""Metadata that only the server sets."""
_EVICTION_CONDITION = {
    "type": "DisruptionTarget",
    "reason": "EvictionByEvictionAPI",
    "message": "Eviction API: evicting",
}

Change = Callable[[Object], Object]
"""Function from the old object to the new one."""


@dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """Options of a write request."""

    manager: str = "aksgpu"
    """The field manager for metadata.managedFields."""
    field_validation: str = "Strict"
    """How unknown and duplicate fields are handled: ``Strict``, ``Warn`` or ``Ignore``."""
    dry_run: bool = False
    force: bool = False
    """Whether server-side apply takes ownership of fields that other managers own."""
    warnings: list[str] = field(default_factory=list)
    """Warnings for the response; the write adds to them."""

    def report_field_problems(self, kind: Type, problems: list[str]) -> None:
        """Raise BadRequest or add warnings for unknown or duplicate fields, as the client requested."""
        if problems and self.field_validation == "Strict":
            raise kind.decode_error(f"strict decoding error: {', '.join(problems)}")
        if self.field_validation == "Warn":
            self.warnings.extend(problems)


def decode(
    kind: Type, obj: Object, options: WriteOptions, *, defaults: bool = True, previous: Object | None = None
) -> tuple[Object, Causes]:
    """Decode an object as its type, and return it with the problems of its fields.

    The result is a copy, except that it shares parts with ``previous`` that have not changed.
    """
    given_kind = obj.get("kind") or kind.kind
    if given_kind != kind.kind:
        why = f"converting ({kind.version}.{given_kind}) to ({kind.package}.{kind.kind}): unknown conversion"
        raise kind.decode_error(why, given_kind)
    version = obj.get("apiVersion") or kind.api_version
    if version != kind.api_version:
        expected = f"the expected API version ({kind.api_version})"
        raise bad_request(f"the API version in the data ({version}) does not match {expected}")
    decoder = schema.Decoder(with_defaults=defaults, previous=previous)
    try:
        result = decoder.decode(schema.schema_for(kind), obj)
    except schema.DecodeError as error:
        raise kind.decode_error(str(error)) from None
    options.report_field_problems(kind, [f'unknown field "{path}"' for path in decoder.unknown])
    result |= {"kind": kind.kind, "apiVersion": kind.api_version}
    return result, decoder.causes


class Writer:
    """Writes objects of every kind to a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(
        self, kind: Kind, body: Object, namespace: str, options: WriteOptions, *, managed: list[Object] | None = None
    ) -> Entry:
        """Create an object.

        Server-side apply passes the managed fields that it has computed as ``managed``.
        """
        obj, causes = decode(kind, body, options)
        metadata = obj["metadata"]
        if _is_version(metadata.get("resourceVersion")):
            raise _version_given()
        for name in (*_SERVER_FIELDS, "managedFields", "resourceVersion", "selfLink"):
            metadata.pop(name, None)
        _set_namespace(kind, metadata, namespace)
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = self._generate(kind, metadata)
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
        if kind.generation:
            metadata["generation"] = 1
        if managed is None:
            self._update_managed_fields(kind, None, obj, options, "")
        else:
            metadata["managedFields"] = managed
        if "status" in kind.subresources and kind.plural != "nodes":
            obj["status"] = schema.new_status(kind)
        strategy.prepare_create(kind.plural, obj)
        admission.admit_namespace(self._store, kind, obj)
        if kind.plural == "pods":
            admission.admit_pod(self._store, kind, obj)
        name = metadata.get("name", "")
        validate(kind, obj, causes).raise_if_any(kind, name)
        options.warnings.extend(deprecations.warnings(kind, obj))
        if self._store.get(kind.plural, (metadata.get("namespace", ""), name)) is not None:
            raise already_exists(kind.plural, name, kind.group)
        quota.admit(self._store, kind, obj)
        return encode(kind, obj, 0) if options.dry_run else self._store.write(kind, obj)

    def update(
        self, kind: Kind, key: Key, change: Change, subresource: str, options: WriteOptions, *, applied: bool = False
    ) -> Entry:
        """Replace an object with the result of ``change``, which is called with the old object.

        With ``applied``, server-side apply has already set the managed fields.
        """
        entry = self._get_entry(kind, key)
        old = entry.obj
        body = change(old)
        new_managed = body["metadata"]["managedFields"] if applied else None
        old_managed = old["metadata"].get("managedFields")
        metadata = body.get("metadata")
        if isinstance(metadata, dict) and metadata.get("managedFields") == old_managed:
            # They are unchanged, so they are not decoded again.
            body = {**body, "metadata": {**metadata, "managedFields": None}}
        obj, causes = decode(kind, body, options, previous=old)
        managed = obj["metadata"].pop("managedFields", old_managed)
        if managed is not old_managed:
            managed = server_side_apply.client_managed_fields(managed, old_managed)
        self._check_identity(kind, key, obj, old)
        obj = _keep_other_parts(kind, obj, old, subresource)
        _keep_server_fields(obj, old)
        if new_managed:
            obj["metadata"]["managedFields"] = new_managed
        elif not applied:
            # A client may change the managed fields itself, as kubectl does before its first server-side apply.
            base = old
            if managed is not old_managed:
                base = {**old, "metadata": {**old["metadata"], "managedFields": managed}}
            self._update_managed_fields(kind, base, obj, options, subresource)
        if not subresource:
            strategy.prepare_update(kind.plural, obj, old)
            validate_update(kind, obj, old, causes).raise_if_any(kind, key[1])
            options.warnings.extend(deprecations.warnings(kind, obj))
        if obj == old:
            return entry
        if kind.generation and obj["spec"] != old["spec"]:
            obj["metadata"]["generation"] += 1
        if options.dry_run:
            return encode(kind, obj, entry.rv)
        return self._store.write(kind, obj, delete=deletion.is_complete(kind, obj))

    def apply(self, kind: Kind, key: Key, body: Object, subresource: str, options: WriteOptions) -> tuple[Entry, bool]:
        """Apply an object on the server. The second value is whether the object was created."""
        if not body.get("apiVersion"):
            why = f"Specified patch version: , expected: {kind.api_version}"
            raise bad_request(f"Incorrect version specified in apply patch. {why}")
        if not body.get("kind"):
            raise bad_request(f"invalid object type: {kind.group}/{kind.version}, Kind=")
        applied, _ = decode(kind, body, options, defaults=False)
        metadata = applied.setdefault("metadata", {})
        if metadata.get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        for name in [*_SERVER_FIELDS, "managedFields"]:
            metadata.pop(name, None)
        self._check_identity(kind, key, applied, None)
        live = self._store.get(kind.plural, key)
        if live is None and (subresource or metadata.get("resourceVersion")):
            raise not_found(kind.plural, key[1], kind.group)

        def merge(old: Object) -> Object:
            return server_side_apply.apply(kind, old, applied, options.manager, subresource, force=options.force)

        if live is not None:
            return self.update(kind, key, merge, subresource, options, applied=True), False
        new = merge({"metadata": {}})
        managed = new["metadata"].pop("managedFields")
        return self.create(kind, new, key[0], options, managed=managed), True

    def delete(
        self,
        kind: Kind,
        key: Key,
        body: Mapping[str, Any],
        options: WriteOptions,
        *,
        condition: Object | None = None,
    ) -> tuple[Entry, bool]:
        """Delete an object or mark it for deletion. The second value is whether the object is gone.

        ``condition`` is added to the status of a pod. It gives the reason for the deletion.
        """
        entry = self._get_entry(kind, key)
        if body:  # Every group and version has DeleteOptions.
            body, _ = decode(DELETE_OPTIONS, {**body, "apiVersion": None}, options)
        deletion.check_delete_options(kind, entry.obj, body)
        obj = _with_condition(entry.obj, condition) if condition else entry.obj
        marked = deletion.start_deletion(kind, obj, body, options.warnings)
        gone = marked is None or deletion.is_complete(kind, marked)
        if options.dry_run:
            return entry, gone
        if marked is not None and marked != entry.obj:
            entry = self._store.write(kind, marked)
        if not gone:
            return entry, False
        # The store writes the new resourceVersion into the metadata.
        deleted = {**entry.obj, "metadata": {**entry.obj["metadata"]}}
        removed = self._store.write(kind, deleted, delete=True)
        return removed if marked is None else entry, True

    def review(self, kind: Kind, body: Object, options: WriteOptions) -> Entry:
        """Return the completed object of a kind that is not stored. It keeps the status in the body."""
        obj, _ = decode(kind, {key: value for key, value in body.items() if key != "status"}, options)
        self._update_managed_fields(kind, None, obj, options, "")
        obj["status"] = body.get("status") or {"allowed": True}
        return encode(kind, obj, 0)

    def bind(self, kind: Kind, key: Key, binding: Object, options: WriteOptions) -> None:
        """Assign a pod to a node."""
        entry = self._get_entry(kind, key)
        causes = Causes()
        name = key[1]
        node = self.decode_subresource(kind, key, "binding", binding, options).get("target", {}).get("name")
        if not node:
            causes.required("target.name")
        causes.raise_if_any(kind.subresources["binding"], name)
        pod = {**entry.obj, "metadata": copy.deepcopy(entry.obj["metadata"])}
        if pod["spec"].get("nodeName"):
            raise conflict("pods/binding", name, f'pod {name} is already assigned to node "{pod["spec"]["nodeName"]}"')
        if "deletionTimestamp" in pod["metadata"]:
            raise conflict("pods/binding", name, f"pod {name} is being deleted, cannot be assigned to a host")
        pod["spec"] = {**pod["spec"], "nodeName": node}
        if not options.dry_run:
            self._store.write(kind, _with_condition(pod, {"type": "PodScheduled"}))

    def evict(self, kind: Kind, key: Key, eviction: Object, options: WriteOptions) -> None:
        """Delete a pod and set its condition DisruptionTarget."""
        delete_options = self.decode_subresource(kind, key, "eviction", eviction, options).get("deleteOptions", {})
        self.delete(kind, key, delete_options, options, condition=_EVICTION_CONDITION)

    def decode_subresource(self, kind: Kind, key: Key, name: str, body: Object, options: WriteOptions) -> Object:
        """Decode the body of a subresource that has its own type. Its name must be the one in the URL."""
        obj = {"metadata": {}, **decode(kind.subresources[name], body, options)[0]}
        self._check_identity(kind, key, obj, None)
        return obj

    def _get_entry(self, kind: Kind, key: Key) -> Entry:
        entry = self._store.get(kind.plural, key)
        if entry is None:
            raise not_found(kind.plural, key[1], kind.group)
        return entry

    def _generate(self, kind: Kind, metadata: Object) -> str:
        base = metadata["generateName"][:58]
        while True:
            name = base + "".join(secrets.choice(_SUFFIX_CHARACTERS) for _ in range(5))
            if self._store.get(kind.plural, (metadata.get("namespace", ""), name)) is None:
                return str(name)

    def _update_managed_fields(
        self, kind: Kind, old: Object | None, obj: Object, options: WriteOptions, subresource: str
    ) -> None:
        managed = server_side_apply.managed_fields_after_update(kind, old, obj, options.manager, subresource)
        if managed:
            obj["metadata"]["managedFields"] = managed

    def _check_identity(self, kind: Kind, key: Key, obj: Object, old: Object | None) -> None:
        """Raise unless a body has the name in the URL and, if it has a resourceVersion, the stored one."""
        metadata = obj["metadata"]
        name = metadata.setdefault("name", key[1])
        if name != key[1]:
            raise bad_request(f"the name of the object ({name}) does not match the name on the URL ({key[1]})")
        _set_namespace(kind, metadata, key[0])
        if old is None:
            return
        stored = old["metadata"]
        version = metadata.get("resourceVersion")
        if version not in (None, "", "0") and version != stored["resourceVersion"]:
            raise conflict(kind.plural, name, STALE_MESSAGE, kind.group)
        deletion.check_precondition(kind, stored, "uid", "UID", metadata.get("uid"))


def _is_version(text: str | None) -> bool:
    """Return whether this is the version of an object. Kubernetes ignores 0 and anything that is not a number."""
    return bool(text) and str(text).isascii() and str(text).isdigit() and int(str(text)) > 0


def _version_given() -> StatusError:
    """Return the error for an object to create that has a version. A real server has no reason for it either."""
    error = StatusError(500, "", "resourceVersion should not be set on objects to be created")
    del error.status["reason"]
    return error


def _with_condition(pod: Object, condition: Object) -> Object:
    """Return the pod with a condition set to True, or the pod itself if the condition is already True."""
    conditions = pod["status"].get("conditions", ())
    if any(each["type"] == condition["type"] and each["status"] == "True" for each in conditions):
        return pod
    new = {**condition, "status": "True", "lastProbeTime": None, "lastTransitionTime": now()}
    others = [each for each in conditions if each["type"] != condition["type"]]
    return {**pod, "status": {**pod["status"], "conditions": [*others, new]}}


def _set_namespace(kind: Kind, metadata: Object, namespace: str) -> None:
    """Set the namespace to that of the URL; raises BadRequest if the object names another one."""
    if not kind.namespaced:
        metadata.pop("namespace", None)
        return
    given = metadata.get("namespace")
    if given and namespace and given != namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    metadata["namespace"] = namespace or given or "default"


def _keep_server_fields(obj: Object, old: Object) -> None:
    """Copy the metadata that only the server sets from the old object, in place."""
    metadata = {name: value for name, value in obj["metadata"].items() if name not in _SERVER_FIELDS}
    for name in (*_SERVER_FIELDS, "resourceVersion"):
        if name in old["metadata"]:
            metadata[name] = old["metadata"][name]
    obj["metadata"] = metadata


def _keep_other_parts(kind: Kind, obj: Object, old: Object, subresource: str) -> Object:
    """Return ``obj`` with the old values of everything that this write must not change.

    That is the status when the object itself is written, and everything outside a subresource when that is written.
    """
    if subresource == "status":
        combined = {**old, "metadata": obj["metadata"], "status": obj.get("status", {})}
        if "ownerReferences" in old["metadata"]:
            combined["metadata"]["ownerReferences"] = old["metadata"]["ownerReferences"]
        return combined
    if subresource == "finalize":
        return {**old, "metadata": obj["metadata"], "spec": obj["spec"]}
    if "status" in kind.subresources and "status" in old:
        obj["status"] = old["status"]
    return obj
