"""Formats of names, labels and other strings, checked with the API server's error texts.

The formats themselves are in ``api/data/rules.yaml``.
"""

from __future__ import annotations

import re
from functools import lru_cache

from aksgpu.local import api_data

_LONGEST_REMEMBERED = 320
"""Characters of a value whose check is remembered. A label's key has at most 317."""


def format_problems(form: str, value: str) -> list[str]:
    """Return the reasons why a value does not match a format; empty if it does."""
    if len(value) > _LONGEST_REMEMBERED:
        return _check(form, value)
    return list(_checked_before(form, value))


@lru_cache(maxsize=8192)
def _checked_before(form: str, value: str) -> tuple[str, ...]:
    """Return the same. Objects of a cluster have the same label keys and many equal values."""
    return tuple(_check(form, value))


def _check(form: str, value: str) -> list[str]:
    if form == "qualified-name":
        return qualified_name_problems(value)
    if form == "annotation":
        return qualified_name_problems(value.lower())
    rule = api_data.load("rules.yaml")["formats"][form]
    problems: list[str] = []
    if len(value.encode()) > rule["maxLength"]:
        problems.append(f"must be no more than {rule['maxLength']} bytes")
    if not re.fullmatch(rule["pattern"], value, re.ASCII):
        problems.append(rule["text"].replace("{pattern}", rule["pattern"]).replace("{value}", value))
    if form == "config-key":
        problems += _parent_directory_problems(value)
    return problems


def _parent_directory_problems(key: str) -> list[str]:
    """Return the problem of a ConfigMap's or Secret's key whose file would be outside its volume; empty if none."""
    if key in (".", ".."):
        return [f"must not be '{key}'"]
    return ["must not start with '..'"] if key.startswith("..") else []


def label_value_problems(value: str) -> list[str]:
    """Return the problems of the value of a label."""
    return format_problems("label-value", value)


def qualified_name_problems(value: str) -> list[str]:
    """Return the problems of a label key or resource name, which has an optional prefix: a domain and a slash."""
    prefix, slash, name = value.rpartition("/")
    if slash and (not prefix or "/" in prefix):
        text = format_problems("name-part", "")[0].replace("name part", "a qualified name", 1)
        return [f"{text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"]
    problems: list[str] = []
    if slash:
        problems += [f"prefix part {problem}" for problem in format_problems("subdomain", prefix)]
    return problems + format_problems("name-part", name)


def is_extended_resource(resource: str) -> bool:
    """Return whether a resource is an extended one, such as ``nvidia.com/gpu``, which comes in whole units."""
    prefix, slash, _ = resource.partition("/")
    return bool(slash) and not (prefix == "kubernetes.io" or prefix.endswith(".kubernetes.io"))
