"""Field ownership: metadata.managedFields, and server-side apply, which is based on it.

Every other write makes its manager the owner of the fields that it changed (:func:`managed_fields_after_update`). Apply
merges an object into the live one. It refuses to change fields that others own unless it is forced. It removes fields
that its manager applied before and no longer applies (:func:`apply`).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from aksgpu.common.times import now
from aksgpu.local.api import field_sets, schema
from aksgpu.local.api.field_sets import Fields, Path
from aksgpu.local.api.schema import SchemaNode
from aksgpu.local.kinds import Kind
from aksgpu.local.status_error import StatusError

_UNMANAGED = frozenset(
    {
        "f:creationTimestamp",
        "f:deletionGracePeriodSeconds",
        "f:deletionTimestamp",
        "f:generation",
        "f:managedFields",
        "f:name",
        "f:namespace",
        "f:resourceVersion",
        "f:selfLink",
        "f:uid",
    }
)
"""Fields of metadata that have no owner."""


@dataclass(frozen=True)
class ManagedFieldsEntry:
    """One entry of managedFields. Its FieldsV1 is parsed on demand, because most writes concern few owners."""

    entry: dict[str, Any]

    @cached_property
    def fields(self) -> Fields:
        """The fields that the manager owns."""
        return field_sets.load(self.entry.get("fieldsV1"))

    @property
    def identity(self) -> tuple[str, str, str]:
        """Manager, operation and subresource. There is one entry per identity."""
        manager, operation, subresource = (self.entry.get(key, "") for key in ("manager", "operation", "subresource"))
        return manager, operation, subresource

    def without(self, fields: Fields) -> ManagedFieldsEntry:
        """Return the entry without some fields."""
        raw = self.entry.get("fieldsV1", {})
        if raw.keys().isdisjoint(path[0] for path in fields) or self.fields.isdisjoint(fields):
            return self
        return ManagedFieldsEntry({**self.entry, "fieldsV1": field_sets.dump(self.fields - fields)})

    def describe(self) -> str:
        """Return the text that names the entry in a conflict."""
        manager, operation, subresource = self.identity
        text = f'"{manager}"'
        if subresource:
            text += f' with subresource "{subresource}"'
        if operation != "Update":
            return text
        return f"{text} using {self.entry.get('apiVersion', '')}"


def managed_fields_entries(obj: dict[str, Any]) -> list[ManagedFieldsEntry]:
    """Return the managedFields of an object."""
    return [ManagedFieldsEntry(each) for each in obj["metadata"].get("managedFields", ())]


def _new_entry(kind: Kind, identity: tuple[str, str, str], time: str, fields: Fields) -> ManagedFieldsEntry:
    return ManagedFieldsEntry(_entry(kind, identity, time, field_sets.dump(fields)))


def _entry(kind: Kind, identity: tuple[str, str, str], time: str, fields_v1: dict[str, Any]) -> dict[str, Any]:
    """Return an entry of managedFields."""
    manager, operation, subresource = identity
    entry: dict[str, Any] = {"manager": manager, "operation": operation, "apiVersion": kind.api_version}
    if time:  # An entry that a client wrote may have no time.
        entry["time"] = time
    entry |= {"fieldsType": "FieldsV1", "fieldsV1": fields_v1}
    return {**entry, "subresource": subresource} if subresource else entry


def client_managed_fields(given: Any, before: Any) -> Any:
    """Return the managedFields that a client has set, or the old ones if those are invalid.

    A list with one empty entry removes all owners.
    """
    if given == [{}]:
        return []
    is_valid = given and all(
        each.get("operation") in ("Apply", "Update")
        and each.get("fieldsType") == "FieldsV1"
        and "apiVersion" in each
        and isinstance(each.get("fieldsV1", {}), dict)
        for each in given
    )
    return given if is_valid else before


def dump(entries: list[ManagedFieldsEntry]) -> list[dict[str, Any]]:
    """Return the entries in the order of managedFields: applies first, then by time and name."""

    def order(entry: dict[str, Any]) -> list[str]:
        return [entry.get(key, "") for key in ("operation", "time", "manager", "subresource")]

    return sorted((each.entry for each in entries if each.entry.get("fieldsV1")), key=order)


def _managed_only(fields: Fields, kind: Kind, subresource: str) -> Fields:
    """Return the fields that can have owners.

    The object's identity has no owner. If the kind has a status, neither has the part that is not being written.
    """
    ignored = _unowned_parts(kind, subresource)
    return {
        path
        for path in fields
        if path
        and path[0] not in ignored
        and not (path[0] == "f:metadata" and (len(path) < 2 or path[1] in _UNMANAGED))
    }


def _unowned_parts(kind: Kind, subresource: str) -> set[str]:
    """Return the parts of an object that have no owner when an object or a subresource is written."""
    unowned = {"f:apiVersion", "f:kind"}
    if subresource == "status":
        unowned.add("f:spec")
    elif "status" in kind.subresources:
        unowned.add("f:status")
    return unowned


def managed_fields_after_update(
    kind: Kind, old: dict[str, Any] | None, new: dict[str, Any], manager: str, subresource: str
) -> list[dict[str, Any]]:
    """Return the managedFields of ``new``, which ``manager`` wrote over ``old`` with a verb other than apply."""
    if old is None:
        return _managed_fields_of_new(kind, new, manager, subresource)
    node = schema.schema_for(kind)
    all_changed, all_removed = field_sets.compare(node, old, new)
    changed = _managed_only(all_changed, kind, subresource)
    removed = _managed_only(all_removed, kind, subresource)
    if not changed and not removed:
        return list(old["metadata"].get("managedFields", ()))
    identity = (manager, "Update", subresource)
    own: Fields = set()
    others: list[ManagedFieldsEntry] = []
    for entry in managed_fields_entries(old):
        if entry.identity == identity:
            own = entry.fields
        else:
            others.append(entry.without(changed | removed))
    return dump([*others, _new_entry(kind, identity, now(), (own | changed) - removed)])


def _managed_fields_of_new(kind: Kind, new: dict[str, Any], manager: str, subresource: str) -> list[dict[str, Any]]:
    """Return the managedFields of an object that ``manager`` has created."""
    node = schema.schema_for(kind)
    fields = field_sets.changes(node, schema.zero_value(node), new) or {}
    for name in _unowned_parts(kind, subresource):
        fields.pop(name, None)
    if "f:metadata" in fields:
        metadata = fields["f:metadata"]
        fields["f:metadata"] = {name: metadata[name] for name in metadata if name != "." and name not in _UNMANAGED}
        if not fields["f:metadata"]:
            del fields["f:metadata"]
    if not fields:
        return []
    return [_entry(kind, (manager, "Update", subresource), now(), fields)]


def apply(
    kind: Kind, live: dict[str, Any], applied: dict[str, Any], manager: str, subresource: str, *, force: bool
) -> dict[str, Any]:
    """Return the live object with ``applied`` merged into it, with updated managedFields; raises Conflict."""
    node = schema.schema_for(kind)
    time = now()
    fields = _managed_only(field_sets.all_fields(node, applied, applied=True), kind, subresource)
    merged: dict[str, Any] = merge(node, live, applied)
    # Applying the current value of a field causes no conflict, and both managers own the field.
    changed = _managed_only(field_sets.compare(node, live, merged)[0], kind, subresource)
    identity = (manager, "Apply", subresource)
    before: Fields = set()
    others: list[ManagedFieldsEntry] = []
    for owner in managed_fields_entries(live):
        if owner.identity == identity:
            before = owner.fields
            if before == fields:
                time = owner.entry.get("time", "")
        else:
            others.append(owner)
    conflicts = [(owner, path) for owner in others for path in sorted(owner.fields & changed, key=_conflict_order)]
    if conflicts and not force:
        raise _conflict(conflicts)
    others = [owner.without(changed) for owner in others]
    abandoned = (before - fields).difference(*(owner.fields for owner in others))
    # A field that this manager no longer applies stays if others own something inside it.
    owned = fields.union(*(owner.fields for owner in others))
    kept = {path[:depth] for path in owned for depth in range(1, len(path) + 1)}
    merged = prune(node, merged, abandoned, keep=kept)
    merged["metadata"] = {
        **merged["metadata"],
        "managedFields": dump([*others, _new_entry(kind, identity, time, fields)]),
    }
    return merged


def _conflict_order(path: Path) -> list[tuple[bool, Any]]:
    """Return the sort key of a path. Kubernetes lists the fields of a level before what is inside of others."""
    return [(index < len(path) - 1, element) for index, element in enumerate(path)]


def _conflict(conflicts: list[tuple[ManagedFieldsEntry, Path]]) -> StatusError:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f"conflict with {owner.describe()}",
            "field": field_sets.format_path(path),
        }
        for owner, path in conflicts
    ]
    if len(causes) == 1:
        listed = f"{causes[0]['message']}: {causes[0]['field']}"
    else:
        lines: list[str] = []
        for message in sorted({cause["message"] for cause in causes}):
            lines.append(message.replace("conflict with", "conflicts with") + ":")
            lines += [f"- {cause['field']}" for cause in causes if cause["message"] == message]
        listed = "\n".join(lines)
    plural = "" if len(causes) == 1 else "s"
    message = f"Apply failed with {len(causes)} conflict{plural}: {listed}"
    return StatusError(409, "Conflict", message, {"causes": causes})


def merge(node: SchemaNode, live: Any, applied: Any) -> Any:
    """Return the live value with the applied one merged into it, part by part where parts can have different owners."""
    parts = field_sets.children(node, applied)
    if parts is None or not isinstance(live, type(applied)):
        return applied
    if node.type == "array":
        items = {field_sets.path_element(node, each): each for each in live}
        new = {name: merge(part, items[name], each) if name in items else each for name, part, each in parts}
        return [new[name] if name in new else items[name] for name in _merge_order(items, new)]
    result = dict(live)
    for name, part, each in parts:
        key = name[2:]
        result[key] = merge(part, live[key], each) if live.get(key) is not None else each
    return result


def _merge_order(live: dict[str, Any], applied: dict[str, Any]) -> list[str]:
    """Return the keys of a merged list in the applied order. Other items stay after the item they followed."""
    names = list(applied)
    result = list[str]()
    done = 0
    positions = {name: index for index, name in enumerate(names)}
    common = (name for name in names if name in live)
    next_common = next(common, None)
    for name in live:
        if name not in positions:
            result.append(name)
        elif name == next_common:
            result += names[done : positions[name] + 1]
            done = positions[name] + 1
            next_common = next(common, None)
    return result + names[done:]


def prune(node: SchemaNode, value: Any, gone: Fields, *, keep: Fields, path: Path = ()) -> Any:
    """Return the value without the fields in ``gone``, all of them below ``path``, except those in ``keep``."""
    parts = field_sets.children(node, value) if gone else None
    if parts is None:
        return value
    below: defaultdict[str, Fields] = defaultdict(set)
    for each in gone:
        below[each[len(path)]].add(each)
    kept: list[tuple[str, Any]] = []
    for name, part, each in parts:
        here = (*path, name)
        inner = below[name]
        if here in inner and here not in keep:
            continue
        inner.discard(here)
        pruned = prune(part, each, inner, keep=keep, path=here)
        if pruned or pruned == each or here in keep:
            kept.append((name, pruned))
    if node.type == "array":
        return [each for _, each in kept]
    return {name[2:]: each for name, each in kept}
