"""OData ``$filter`` expressions of ``eq``, ``ne``, ``contains``, ``and`` and ``or``."""

from __future__ import annotations

import re
from typing import NamedTuple

from aksgpu.local.arm.arm_errors import refuse_if
from aksgpu.local.arm.arm_store import Document

_TERM = re.compile(
    r"(?:^|\s{1,8}(and|or)\s{1,8})(?:(\w{1,64})\s{1,8}(eq|ne)\s{1,8}'([^']*)'|contains\((\w{1,64}),\s{0,8}'([^']*)'\))"
)
_FILTER = re.compile(f"(?:{_TERM.pattern})+")
_ALIASES = {"pricetype": "type", "resourcetype": "type"}


class _Comparison(NamedTuple):
    """One term of a filter. ``operator`` is empty for ``contains``."""

    field: str
    operator: str
    value: str

    def matches(self, row: Document) -> bool:
        actual = str(row[self.field])
        if not self.operator:
            return self.value in actual
        equal = actual.lower() == self.value.lower()
        return equal if self.operator == "eq" else not equal


def filter_rows(rows: list[Document], text: str, refusal: str = "bad_filter") -> list[Document]:
    """Return the rows that match a filter.

    Args:
        rows: documents that all have the same fields.
        text: the ``$filter`` expression; empty matches every row.
        refusal: the name in ``refusals.yaml`` of the error for an expression that cannot be evaluated.

    Raises:
        ArmError: the expression uses other operators, or names a field that the rows do not have.
    """
    text = text.strip()
    if not text:
        return rows
    refuse_if(_FILTER.fullmatch(text) is None, refusal, filter=text)
    fields = dict(_ALIASES)
    if rows:
        fields |= {field.lower(): field for field in rows[0]}
    alternatives: list[list[_Comparison]] = [[]]
    for joined, compared_field, operator, compared, contained_field, contained in _TERM.findall(text):
        field = fields.get((compared_field or contained_field).lower(), "")
        refuse_if(rows and field not in rows[0], refusal, filter=text)
        if joined == "or":
            alternatives.append([])
        alternatives[-1].append(_Comparison(field, operator, compared or contained))
    return [row for row in rows if any(all(term.matches(row) for term in terms) for terms in alternatives)]
