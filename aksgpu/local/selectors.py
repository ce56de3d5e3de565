"""Label and field selectors, in the two forms the API has: strings in a query, and LabelSelector objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from aksgpu.local import name_formats
from aksgpu.local.kinds import Kind
from aksgpu.local.status_error import bad_request

Labels = Mapping[str, str]
Matcher = Callable[[Labels], bool]
ObjectFilter = Callable[[Mapping[str, Any]], bool]

_TERM = re.compile(
    r"\s*(?:"
    r"!\s*(?P<absent>[^\s!=<>,()]+)"
    r"|(?P<key>[^\s!=<>,()]+)\s*(?:(?P<op>==|=|!=|>|<)\s*(?P<value>[^\s!=,()]*)"
    r"|\s(?P<set>in|notin)\s*\(\s*(?P<values>[^()]*?)\s*\))?"
    r")\s*(?:,|$)"
)


def labels_match(selector: Mapping[str, Any], labels: Labels) -> bool:
    """Whether a LabelSelector object selects these labels; an empty one selects everything."""
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        requirement_matches(each.get("operator", ""), labels.get(each.get("key", "")), each.get("values", ()))
        for each in selector.get("matchExpressions", ())
    )


def requirement_matches(operator: str, value: str | None, values: Any) -> bool:
    """One requirement of a selector or of node affinity; ``value`` is None where the label is absent."""
    if operator == "In":
        return value is not None and value in values
    if operator == "NotIn":
        return value is None or value not in values
    if operator == "Exists":
        return value is not None
    if operator == "DoesNotExist":
        return value is None
    try:
        have = int(value or "")
        bound = int(values[0])
    except (ValueError, IndexError):
        return False
    return have > bound if operator == "Gt" else operator == "Lt" and have < bound


def object_filter(kind: Kind, label_selector: str, field_selector: str) -> ObjectFilter | None:
    """Both selectors of a request as one function of an object; None when everything is wanted."""
    labels = parse_labels(label_selector)
    fields = parse_fields(field_selector, kind)
    if labels is None:
        return fields
    return lambda obj: labels(obj["metadata"].get("labels") or {}) and (fields is None or fields(obj))


@lru_cache(maxsize=512)
def parse_labels(text: str) -> Matcher | None:
    """A label selector string as a function of an object's labels; None for one that selects everything.

    Raises BadRequest when the text is no selector.
    """
    tests: list[tuple[str, str, tuple[str, ...]]] = []
    position = 0
    while position < len(text):
        match = _TERM.match(text, position)
        if match is None or match.end() == position:
            raise bad_request(f"unable to parse requirement: found {text[position:]!r}, expected: identifier")
        position = match.end()
        tests.append(_requirement(match))
    if not tests:
        return None
    return lambda labels: all(requirement_matches(op, labels.get(key), values) for key, op, values in tests)


def _requirement(match: re.Match[str]) -> tuple[str, str, tuple[str, ...]]:
    key = match["absent"] or match["key"]
    values = tuple[str, ...]()
    operator = "DoesNotExist" if match["absent"] else "Exists"
    if match["set"]:
        operator = "In" if match["set"] == "in" else "NotIn"
        values = tuple(value.strip() for value in match["values"].split(","))
    elif match["op"]:
        operator = {"!=": "NotIn", ">": "Gt", "<": "Lt"}.get(match["op"], "In")
        values = (match["value"],)
    wrong = [f'<nil>: Invalid value: "{key}": {why}' for why in name_formats.qualified_name_problems(key)]
    for index, value in enumerate(values):
        wrong += [
            f'values[{index}][{key}]: Invalid value: "{value}": {why}'
            for why in name_formats.label_value_problems(value)
        ]
    if wrong:
        raise bad_request(f"unable to parse requirement: {wrong[0]}")
    return key, operator, values


_ABSENT = {"spec.unschedulable": "false", "spec.hostNetwork": "false", "status.succeeded": "0"}


@lru_cache(maxsize=512)
def parse_fields(text: str, kind: Kind) -> ObjectFilter | None:
    """A field selector string as a function of an object; None for one that selects everything.

    Raises BadRequest for a field that this kind cannot be selected by.
    """
    tests: list[tuple[str, bool, str]] = []
    for term in filter(None, re.split(r"(?<!\\),", text)):
        match = re.fullmatch(r"([^!=]+)(==|=|!=)(.*)", term, re.DOTALL)
        if match is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{term}'")
        path = match[1]
        equal = match[2] != "!="
        value = re.sub(r"\\([\\,=])", r"\1", match[3])
        if path not in ("metadata.name", "metadata.namespace", *kind.fields):
            known = '"metadata.name", "metadata.namespace"'
            only = f'"{path}" is not a known field selector: only {known}'
            raise bad_request(f"field label not supported: {path}" if kind.fields else only)
        tests.append((path.replace("status.successful", "status.succeeded"), equal, value))
    if not tests:
        return None
    return lambda obj: all((field_value(obj, path) == value) is equal for path, equal, value in tests)


def field_value(obj: Mapping[str, Any], path: str) -> str:
    """What a field selector compares: the field as text, empty where absent."""
    if path == "source":
        return get_path(obj, "source.component") or obj.get("reportingComponent") or ""
    value = get_path(obj, path)
    if value is None:
        return _ABSENT.get(path, "")
    return str(value).lower() if isinstance(value, bool) else str(value)


def get_path(obj: Mapping[str, Any], path: str) -> Any:
    """The value at a path such as ``status.phase``; None where there is none."""
    value: Any = obj
    for key in path.split("."):
        if (value := value.get(key)) is None:
            break
    return value
