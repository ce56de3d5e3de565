"""Who owns which field: metadata.managedFields, and server-side apply, which decides by it.

Every write by another verb takes the fields that it changed (:func:`after_update`). Apply merges an object into the
live one, refuses to change what others own unless forced, and removes what its manager applied before and left out
now (:func:`apply`).
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
    "f:" + name
    for name in (
        "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "generation", "managedFields", "name",
        "namespace", "resourceVersion", "selfLink", "uid",
    )
)  # fmt: skip


@dataclass(frozen=True)
class ManagedFieldsEntry:
    """One entry of managedFields. Its FieldsV1 are read only when somebody asks: most writes touch few owners."""

    entry: dict[str, Any]

    @cached_property
    def fields(self) -> Fields:
        """What it owns."""
        return field_sets.load(self.entry.get("fieldsV1"))

    @property
    def identity(self) -> tuple[str, str, str]:
        """Two entries with the same identity are one."""
        manager, operation, subresource = (self.entry.get(key, "") for key in ("manager", "operation", "subresource"))
        return manager, operation, subresource

    def without(self, fields: Fields) -> ManagedFieldsEntry:
        """The entry less some fields."""
        raw = self.entry.get("fieldsV1", {})
        if raw.keys().isdisjoint(path[0] for path in fields) or self.fields.isdisjoint(fields):
            return self
        return ManagedFieldsEntry({**self.entry, "fieldsV1": field_sets.dump(self.fields - fields)})

    def describe(self) -> str:
        """The entry as the text of a conflict names it."""
        manager, operation, subresource = self.identity
        describe = f'"{manager}"' + (f' with subresource "{subresource}"' if subresource else "")
        if operation != "Update":
            return describe
        time = self.entry.get("time")
        return f"{describe} using {self.entry.get('apiVersion', '')}" + (f" at {time}" if time else "")


def managed_fields_entries(obj: dict[str, Any]) -> list[ManagedFieldsEntry]:
    """The managedFields of an object."""
    return [ManagedFieldsEntry(each) for each in obj["metadata"].get("managedFields", ())]


def _new_entry(kind: Kind, identity: tuple[str, str, str], time: str, fields: Fields) -> ManagedFieldsEntry:
    manager, operation, subresource = identity
    entry: dict[str, Any] = {"manager": manager, "operation": operation, "apiVersion": kind.api_version}
    if time:  # only what a client wrote itself has none
        entry["time"] = time
    entry |= {"fieldsType": "FieldsV1", "fieldsV1": field_sets.dump(fields)}
    return ManagedFieldsEntry({**entry, "subresource": subresource} if subresource else entry)


def client_managed_fields(given: Any, before: Any) -> Any:
    """The managedFields that a client's write leaves: its own where they can be read, else those from before.

    A list with one empty entry is how a client says that nobody is to own anything.
    """
    if given == [{}]:
        return []
    readable = given and all(
        each.get("operation") in ("Apply", "Update")
        and each.get("fieldsType") == "FieldsV1"
        and "apiVersion" in each
        and isinstance(each.get("fieldsV1", {}), dict)
        for each in given
    )
    return given if readable else before


def dump(entries: list[ManagedFieldsEntry]) -> list[dict[str, Any]]:
    """The entries as managedFields has them: appliers first, then by time and name."""

    def order(entry: dict[str, Any]) -> list[str]:
        return [entry.get(key, "") for key in ("operation", "time", "manager", "subresource")]

    return sorted((each.entry for each in entries if each.entry.get("fieldsV1")), key=order)


def _managed_only(fields: Fields, kind: Kind, subresource: str) -> Fields:
    """Fields that have owners: not an object's identity, and not the other part of one with a status."""
    ignored = {"f:apiVersion", "f:kind"}
    if subresource == "status":
        ignored.add("f:spec")
    elif "status" in kind.subresources:
        ignored.add("f:status")
    return {
        path
        for path in fields
        if path
        and path[0] not in ignored
        and not (path[0] == "f:metadata" and (len(path) < 2 or path[1] in _UNMANAGED))
    }


def managed_fields_after_update(
    kind: Kind, old: dict[str, Any] | None, new: dict[str, Any], manager: str, subresource: str
) -> list[dict[str, Any]]:
    """The managedFields of ``new``, which ``manager`` made from ``old`` or anew by a verb other than apply."""
    node = schema.schema_for(kind)
    old = schema.zero_value(node) if old is None else old
    changed, removed = field_sets.compare(node, old, new)
    changed = _managed_only(changed, kind, subresource)
    removed = _managed_only(removed, kind, subresource)
    if not changed and not removed:
        return list(old["metadata"].get("managedFields", ()))
    identity = (manager, "Update", subresource)
    mine: Fields = set()
    result: list[ManagedFieldsEntry] = []
    for owner in managed_fields_entries(old):
        if owner.identity == identity:
            mine = owner.fields
        else:
            result.append(owner.without(changed | removed))
    return dump([*result, _new_entry(kind, identity, now(), (mine | changed) - removed)])


def apply(
    kind: Kind, live: dict[str, Any], applied: dict[str, Any], manager: str, subresource: str, *, force: bool
) -> dict[str, Any]:
    """The live object with ``applied`` merged in and its managedFields brought up to date; raises Conflict."""
    node = schema.schema_for(kind)
    time = now()
    fields = _managed_only(field_sets.all_fields(node, applied, applied=True), kind, subresource)
    merged: dict[str, Any] = merge(node, live, applied)
    # A field that is applied with the value it has is shared, not fought over.
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
    conflicts = [(owner, path) for owner in others for path in sorted(owner.fields & changed)]
    if conflicts and not force:
        raise _conflict(conflicts)
    others = [owner.without(changed) for owner in others]
    abandoned = (before - fields).difference(*(owner.fields for owner in others))
    # A container that this manager leaves stays for what others own in it.
    owned = fields.union(*(owner.fields for owner in others))
    kept = {path[:depth] for path in owned for depth in range(1, len(path) + 1)}
    merged = prune(node, merged, abandoned, keep=kept)
    merged["metadata"] = {
        **merged["metadata"],
        "managedFields": dump([*others, _new_entry(kind, identity, time, fields)]),
    }
    return merged


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
    """The live value with the applied one put over it, part by part where parts have owners of their own."""
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
    """All items of a list in the order in which they are applied; each other stays after the one it came after."""
    names = list(applied)
    result = list[str]()
    done = 0
    place = {name: index for index, name in enumerate(names)}
    common = (name for name in names if name in live)
    following = next(common, None)
    for name in live:
        if name not in place:
            result.append(name)
        elif name == following:
            result += names[done : place[name] + 1]
            done = place[name] + 1
            following = next(common, None)
    return result + names[done:]


def prune(node: SchemaNode, value: Any, gone: Fields, *, keep: Fields, path: Path = ()) -> Any:
    """The value without the fields in ``gone``, which are below ``path``; what is in ``keep`` stays all the same."""
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
