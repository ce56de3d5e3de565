"""Converts objects to Table and PartialObjectMetadata, which kubectl prints.

The columns of a resource are in ``data/columns.yaml``, which explains its notation. A resource without columns there
has the columns name and creation time, as in Kubernetes for kinds without a printer. Cells that are not the value of a
single field are computed in :mod:`aksgpu.local.api.table_cells`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple

from aksgpu.local import api_data
from aksgpu.local.api import table_cells
from aksgpu.local.api.schema import REF, definitions
from aksgpu.local.kinds import get_kind
from aksgpu.local.objects import Object
from aksgpu.local.selectors import get_path

META_VERSION = "meta.k8s.io/v1"
_FINISHED = {
    "Succeeded": [
        {
            "type": "Completed",
            "status": "True",
            "reason": "Succeeded",
            "message": "The pod has completed successfully.",
        }
    ],
    "Failed": [{"type": "Completed", "status": "True", "reason": "Failed", "message": "The pod failed."}],
}
"""The conditions of a finished pod's row, by phase. Clients may use them to hide the row."""


class Column(NamedTuple):
    """One column: its definition in a Table, and the function that returns a cell."""

    definition: Object
    cell: Callable[[Object, datetime], Any]


def partial_metadata(obj: Object) -> Object:
    """Return only an object's metadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": META_VERSION, "metadata": obj["metadata"]}


def table(
    plural: str, objects: Iterable[Object], metadata: Object, *, include: str = "Metadata", headers: bool = True
) -> Object:
    """Return a Table of objects.

    Args:
        plural: The objects' resource.
        objects: The objects, one per row.
        metadata: The metadata of the list, or of a single object.
        include: What a row contains besides its cells: ``None``, ``Metadata`` or ``Object``.
        headers: False for the later events of a watch, which have no column definitions.
    """
    now = datetime.now(UTC)
    table_columns = columns(plural)
    rows: list[Object] = []
    for obj in objects:
        row: Object = {"cells": [column.cell(obj, now) for column in table_columns]}
        phase = (obj.get("status") or {}).get("phase", "")
        if phase in _FINISHED:
            row["conditions"] = _FINISHED[phase]
        if include != "None":
            row["object"] = obj if include == "Object" else partial_metadata(obj)
        rows.append(row)
    definitions = [column.definition for column in table_columns] if headers else None
    return {
        "kind": "Table",
        "apiVersion": META_VERSION,
        "metadata": metadata,
        "columnDefinitions": definitions,
        "rows": rows,
    }


@cache
def columns(plural: str) -> list[Column]:
    """Return the columns of a resource."""
    rows = api_data.load("columns.yaml")
    return [_column(row, get_kind(plural).definition) for row in rows.get(plural) or rows["default"]]


def _column(row: Object, schema: str) -> Column:
    kind = row.get("type", "string")
    path = row.get("path", "")
    definition = {
        "name": row["name"],
        "type": kind,
        "format": "name" if row["name"] == "Name" else "",
        "description": row.get("description") or _description(schema, path),
        "priority": int(row.get("wide", False)),
    }
    if "whole" in row:
        return Column(definition, getattr(table_cells, row["whole"]))
    convert = getattr(table_cells, row["convert"]) if "convert" in row else None
    default = row.get("default", {"integer": 0, "boolean": False}.get(kind, ""))

    def cell(obj: Object, now: datetime) -> Any:
        value = get_path(obj, path)
        if "join" in row:
            return ",".join(each.get(row["join"], "") for each in value or ())
        if convert is not None:
            return convert(value, now)
        return value or default

    return Column(definition, cell)


def _description(schema: str, path: str) -> str:
    """Return the published description of the field at a path."""
    field: Object = {"$ref": schema}
    for key in path.split("."):
        fields = definitions()[field["$ref"].removeprefix(REF)]["properties"] if "$ref" in field else {}
        field = fields.get(key, field)
    return str(field.get("description", ""))
