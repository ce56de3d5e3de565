"""Label and field selectors, both as query strings and as LabelSelector objects."""

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
    r"\s*+(?:"
    r"!\s*+(?P<absent>[^\s!=<>,()]++)"
    r"|(?P<key>[^\s!=<>,()]++)\s*+(?:(?P<op>==|=|!=|>|<)\s*+(?P<value>[^\s!=,()]*+)"
    r"|(?<=\s)(?P<set>in|notin)\s*+\((?P<values>[^()]*+)\))?"
    r")\s*+(?:,|$)"
)


def labels_match(selector: Mapping[str, Any], labels: Labels) -> bool:
    """Return whether a LabelSelector object selects these labels. An empty selector selects everything."""
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    for requirement in selector.get("matchExpressions", ()):
        value = labels.get(requirement.get("key", ""))
        if not requirement_matches(requirement.get("operator", ""), value, requirement.get("values", ())):
            return False
    return True


def requirement_matches(operator: str, value: str | None, values: Any) -> bool:
    """Return whether a label's value meets one requirement of a selector or of node affinity.

    ``value`` is None if the label does not exist.
    """
    if operator == "In":
        return value is not None and value in values
    if operator == "NotIn":
        return value is None or value not in values
    if operator == "Exists":
        return value is not None
    if operator == "DoesNotExist":
        return value is None
    try:
        number = int(value or "")
        bound = int(values[0])
    except (ValueError, IndexError):
        return False
    if operator == "Gt":
        return number > bound
    return operator == "Lt" and number < bound


def object_filter(kind: Kind, label_selector: str, field_selector: str) -> ObjectFilter | None:
    """Return both selectors of a request as one predicate on objects, or None if they select everything."""
    labels = parse_labels(label_selector)
    fields = parse_fields(field_selector, kind)
    if labels is None:
        return fields

    def matches(obj: Mapping[str, Any]) -> bool:
        if not labels(obj["metadata"].get("labels") or {}):
            return False
        return fields is None or fields(obj)

    return matches


@lru_cache(maxsize=512)
def parse_labels(text: str) -> Matcher | None:
    """Return a label selector as a predicate on labels, or None if it selects everything.

    Raises BadRequest if ``text`` is not a label selector.
    """
    tests: list[tuple[str, str, tuple[str, ...]]] = []
    position = 0
    while position < len(text):
        match = _TERM.match(text, position)
        if match is None or match.end() == position:
            raise bad_request(f"unable to parse requirement: found {text[position:]!r}, expected: identifier")
        position = match.end()
        tests.append(_requirement(match))
    if tests and text.rstrip().endswith(","):
        raise bad_request("found '', expected: identifier after ','")
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
    problems = [f'<nil>: Invalid value: "{key}": {why}' for why in name_formats.qualified_name_problems(key)]
    for index, value in enumerate(values):
        if operator in ("Gt", "Lt") and not _is_integer(value):
            why = "for 'Gt', 'Lt' operators, the value must be an integer"
            problems.append(f'values[{index}]: Invalid value: "{value}": {why}')
        for why in name_formats.label_value_problems(value):
            problems.append(f'values[{index}][{key}]: Invalid value: "{value}": {why}')
    if problems:
        raise bad_request(f"unable to parse requirement: {problems[0]}")
    return key, operator, values


def _is_integer(text: str) -> bool:
    return re.fullmatch(r"[-+]?[0-9]+", text) is not None


_DEFAULT_FIELD_VALUES = {"spec.unschedulable": "false", "spec.hostNetwork": "false", "status.succeeded": "0"}
"""Values of fields that do not exist, as field selectors compare them."""


@lru_cache(maxsize=512)
def parse_fields(text: str, kind: Kind) -> ObjectFilter | None:
    """Return a field selector as a predicate on objects, or None if it selects everything.

    Raises BadRequest if the kind cannot be selected by one of the fields.
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
            if kind.fields:
                raise bad_request(f"field label not supported: {path}")
            known = '"metadata.name", "metadata.namespace"'
            raise bad_request(f'"{path}" is not a known field selector: only {known}')
        tests.append((path.replace("status.successful", "status.succeeded"), equal, value))
    if not tests:
        return None
    return lambda obj: all((field_value(obj, path) == value) is equal for path, equal, value in tests)


def field_value(obj: Mapping[str, Any], path: str) -> str:
    """Return the text that a field selector compares; empty if the field does not exist."""
    if path == "source":
        return get_path(obj, "source.component") or obj.get("reportingComponent") or ""
    value = get_path(obj, path)
    if value is None:
        return _DEFAULT_FIELD_VALUES.get(path, "")
    return str(value).lower() if isinstance(value, bool) else str(value)


def get_path(obj: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path such as ``status.phase``, or None if it does not exist."""
    value: Any = obj
    for key in path.split("."):
        value = value.get(key)
        if value is None:
            return None
    return value
