"""Objects as the rows that kubectl prints: Table, and PartialObjectMetadata.

Which columns a kind has, and what its cells say, is in :mod:`aksgpu.local.api.columns`. Here is what is alike for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from aksgpu.local.api.columns import COLUMNS, DEFAULT, About, Table
from aksgpu.local.api.schema import definitions

Object = dict[str, Any]
META = "meta.k8s.io/v1"


def partial(obj: Mapping[str, Any]) -> Object:
    """The object's metadata alone."""
    return {"kind": "PartialObjectMetadata", "apiVersion": META, "metadata": obj["metadata"]}


def partial_list(objects: Iterable[Mapping[str, Any]], metadata: Object) -> Object:
    """A list of metadata alone."""
    items = [partial(obj) for obj in objects]
    return {"kind": "PartialObjectMetadataList", "apiVersion": META, "metadata": metadata, "items": items}


def table(
    plural: str,
    objects: Iterable[Object],
    metadata: Object,
    *,
    include: str = "Metadata",
    headers: bool = True,
    api_version: str = META,
) -> Object:
    """A Table of ``objects``.

    Args:
        plural: their resource.
        objects: one row each.
        metadata: of the list, or what a single object says of itself.
        include: ``None``, ``Metadata`` or ``Object``: what a row carries beside its cells.
        headers: False for the later events of a watch, which leave the columns out.
        api_version: of the Table, as the client asked for it.
    """
    layout = COLUMNS.get(plural, DEFAULT)
    now = datetime.now(UTC)
    return {
        "kind": "Table",
        "apiVersion": api_version,
        "metadata": metadata,
        "columnDefinitions": _definitions(layout) if headers else None,
        "rows": [_row(layout, obj, now, include) for obj in objects],
    }


def _definitions(layout: Table) -> list[Object]:
    return [
        {
            "name": column.name,
            "type": column.type,
            "format": "name" if column.name == "Name" else "",
            "description": _describe(column.about),
            "priority": column.priority,
        }
        for column in layout.columns
    ]


def _describe(about: About) -> str:
    if isinstance(about, str):
        return about
    definition, field = about
    return str(definitions()[definition]["properties"][field].get("description", ""))


def _row(layout: Table, obj: Object, now: datetime, include: str) -> Object:
    row: Object = {"cells": layout.cells(obj, now)}
    if layout.conditions is not None and (conditions := layout.conditions(obj)):
        row["conditions"] = conditions
    if include == "Object":
        row["object"] = obj
    elif include == "Metadata":
        row["object"] = partial(obj)
    return row
