"""Rules for names that become segments of a path of Azure Resource Manager.

A name must not change the path of a request. HTTP clients remove ``.`` and ``..`` from a path, and servers decode
``%2F``, so the deletion of a pool named ``..`` would become the deletion of its cluster. Every name is checked here
before a path is built. :func:`check_path` checks each path again before it is sent.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import NamedTuple
from urllib.parse import unquote

from aksgpu.common.arguments import shown
from aksgpu.errors import InvalidInput

__all__ = [
    "CLUSTER",
    "GROUP",
    "LOCATION",
    "POOL",
    "SIZE",
    "SUBSCRIPTION",
    "Rule",
    "check",
    "check_location",
    "check_path",
    "describe_existing",
]


class Rule(NamedTuple):
    """The form that a name must have.

    Attributes:
        what: what the name is for.
        pattern: the regular expression that the whole name must match.
        text: a description of the rule.
        example: a valid name.
    """

    what: str
    pattern: re.Pattern[str]
    text: str
    example: str


SUBSCRIPTION = Rule(
    "the id of a subscription",
    re.compile(r"[0-9A-Za-z](?:[0-9A-Za-z-]{0,62}[0-9A-Za-z])?"),
    "letters, digits and '-'",
    "00000000-0000-0000-0000-000000000000",
)
GROUP = Rule(
    "the name of a resource group",
    re.compile(r"[-\w.()]{0,89}[-\w()]"),
    "1 to 90 letters, digits and '-_.()', not ending with '.'",
    "myResourceGroup",
)
CLUSTER = Rule(
    "the name of a cluster",
    re.compile(r"[a-zA-Z0-9](?:[-_a-zA-Z0-9]{0,61}[a-zA-Z0-9])?"),
    "1 to 63 letters, digits, '-' and '_', beginning and ending with a letter or digit",
    "myAKSCluster",
)
POOL = Rule(
    "the name of a node pool",
    re.compile(r"[a-z][a-z0-9]{0,11}"),
    "1 to 12 lower case letters and digits, beginning with a letter",
    "gpunp",
)
SIZE = Rule(
    "the name of a VM size",
    re.compile(r"[A-Za-z0-9](?:[-_A-Za-z0-9]{0,62}[A-Za-z0-9])?"),
    "letters, digits, '-' and '_'",
    "Standard_NC4as_T4_v3",
)
LOCATION = Rule("the name of a location", re.compile(r"[a-z0-9]{1,50}"), "letters and digits", "eastus")


def check(rule: Rule, value: object, argument: str) -> str:
    """Return the name if it follows the rule.

    Args:
        rule: the form that the name must have.
        value: the name.
        argument: name of the caller's argument, for the error.

    Raises:
        InvalidInput: the name does not follow the rule. The message has the rule, and the hint a valid name.
    """
    if isinstance(value, str) and rule.pattern.fullmatch(value):
        return value
    raise InvalidInput(
        f"`{argument}` must be {rule.what} ({rule.text}), got {shown(value)}",
        hint=f"For example: {argument}={_suggest(rule, value)!r}.",
    )


def check_location(value: object, argument: str = "location") -> str:
    """Return a location in Resource Manager's spelling: ``East US`` is ``eastus``."""
    if isinstance(value, str):
        name = "".join(value.split()).lower()
        if LOCATION.pattern.fullmatch(name):
            return name
    return check(LOCATION, value, argument)


def check_path(path: str) -> None:
    """Raise InvalidInput if a segment of a path changes the meaning of other segments.

    Args:
        path: absolute, with or without a query.

    Raises:
        InvalidInput: a segment is empty, ``.`` or ``..``, or contains an encoded slash.
    """
    plain = path.partition("?")[0].removeprefix("/")
    for segment in plain.split("/"):
        decoded = unquote(segment)
        if decoded in ("", ".", "..") or re.search(r"[/\\%?#\x00-\x1f\x7f]", decoded):
            raise InvalidInput(
                f"`path` must not have the segment {shown(segment)}, which changes the meaning of the path",
                hint="Quote a name with urllib.parse.quote(name, safe=''); '.' and '..' cannot be names.",
            )


def describe_existing(value: str, names: list[str]) -> str:
    """Return a hint that lists the existing names, with the most similar one as a suggestion."""
    listed = f"Existing names: {', '.join(names)}."
    similar = get_close_matches(value, names, n=1)
    return f"Did you mean {similar[0]!r}? {listed}" if similar else listed


def _suggest(rule: Rule, value: object) -> str:
    """Return a name that follows the rule and is similar to the value, or the rule's example."""
    if isinstance(value, str):
        plain = re.sub(r"[^A-Za-z0-9-]+", "-", value[:200]).strip("-")
        for candidate in (plain, plain.lower(), plain.lower().replace("-", "")[:12], plain[:63].strip("-")):
            if rule.pattern.fullmatch(candidate) and re.search("[A-Za-z]", candidate):
                return candidate
    return rule.example
