"""The table that ``spacy train`` prints: one row for each evaluation."""

from __future__ import annotations

import re

from aksgpu.metrics.formats.model import Context, Format, Row

__all__ = ["FORMATS", "read_row"]

_HEADER = re.compile(r"\s{0,8}E\s{2,8}#\s{2,12}(?P<names>\S.{0,2000}?)\s{2,8}SCORE")
_RULE = re.compile(r"\s{0,8}---\s{2,8}------\s{2,8}-[- ]{1,2000}")
_ROW = re.compile(r"\s{0,8}(?P<epoch>\d{1,9})\s{1,8}(?P<step>\d{1,12})\s{2,20}(?P<values>\d[\d.\s]{1,2000})")
_GAP = re.compile(r"\s{2,40}")
_COLUMN_LIMIT = 100
"""Columns of a table."""


def read_row(text: str, context: Context) -> list[Row] | None:
    """Read a line of the table."""
    header = _HEADER.fullmatch(text)
    if header:
        context.header = (*_GAP.split(header["names"], _COLUMN_LIMIT), "SCORE")
        context.header_kind = "spacy"
        return []
    if context.header_kind != "spacy":
        return None
    if _RULE.fullmatch(text):
        return []
    found = _ROW.fullmatch(text)
    if not found:
        return None
    cells = found["values"].split()
    if len(cells) != len(context.header):
        return None
    context.epoch = float(found["epoch"])
    values = dict(zip(context.header, map(float, cells), strict=True))
    percent = tuple(name for name in values if name != "SCORE" and not name.startswith("LOSS ") and "SPEED" not in name)
    return [Row(values, step=int(found["step"]), epoch=context.epoch, is_percent=percent)]


FORMATS = (
    Format(
        "spacy", ("LOSS ", "---", "."), read_row, "E    #       LOSS TOK2VEC  LOSS NER  ENTS_F  ENTS_P  ENTS_R  SCORE"
    ),
)
