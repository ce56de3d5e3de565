"""Rules for names that become segments of a request's path.

A name must never change the path of a request. HTTP clients remove ``.`` and ``..`` from a path, and servers decode
``%2F``, so a delete of a ConfigMap named ``.`` would become a delete of every ConfigMap. Every segment is therefore
checked here before a request is built. The rules are those of Kubernetes' own validation, by kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import quote, unquote

from aksgpu.common.arguments import shown
from aksgpu.errors import InvalidInput

__all__ = [
    "LABEL",
    "PATH_SEGMENT",
    "SUBDOMAIN",
    "Rule",
    "check_api_version",
    "check_container",
    "check_kind",
    "check_name",
    "check_namespace",
    "check_path",
    "check_path_segment",
    "check_plural",
    "check_rule",
    "check_subresource",
    "join",
    "proposed",
]


class Rule(NamedTuple):
    """The rule for a name.

    Attributes:
        pattern: the regular expression that the whole name must match.
        longest: maximum number of characters.
        text: a description of the rule.
    """

    pattern: re.Pattern[str]
    longest: int
    text: str


_LABEL_PATTERN = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"

SUBDOMAIN = Rule(
    re.compile(rf"{_LABEL_PATTERN}(?:\.{_LABEL_PATTERN})*"),
    253,
    "lower case letters, digits, '-' and '.', at most 253 characters, beginning and ending with a letter or digit",
)
LABEL = Rule(
    re.compile(_LABEL_PATTERN),
    63,
    "lower case letters, digits and '-', at most 63 characters, beginning and ending with a letter or digit",
)
PATH_SEGMENT = Rule(
    re.compile(r"(?!\.{1,2}\Z)[^/%\s\x00-\x1f\x7f-\x9f\ud800-\udfff]+"),
    253,
    "printable characters without '/', '%' and spaces, at most 253, and neither '.' nor '..'",
)

_RULES: dict[str, Rule] = {
    "Namespace": LABEL,
    "Service": LABEL,
    "Role": PATH_SEGMENT,
    "RoleBinding": PATH_SEGMENT,
    "ClusterRole": PATH_SEGMENT,
    "ClusterRoleBinding": PATH_SEGMENT,
}
"""Rules of the kinds whose names are not subdomains.

All other kinds have subdomains as names. API servers require this of custom resources too.
"""

_KIND = re.compile(r"[A-Za-z][A-Za-z0-9]{0,62}")
_VERSION = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")


def check_name(kind: str, value: object, argument: str = "name") -> str:
    """Return the name of an object if it is valid for the kind.

    Args:
        kind: such as ``Job``.
        value: the name.
        argument: the caller's argument, for the error.

    Raises:
        InvalidInput: the name is not valid; the message says what a valid name is, and the hint proposes one.
    """
    return check_rule(_RULES.get(kind, SUBDOMAIN), value, argument, f"the name of a {kind}")


def check_namespace(value: object, argument: str = "namespace") -> str:
    """Return the name of a namespace if it is valid; otherwise raise InvalidInput."""
    return check_rule(LABEL, value, argument, "the name of a namespace", example="default")


def check_container(value: object) -> str:
    """Return the name of a container if it is valid; otherwise raise InvalidInput."""
    return check_rule(LABEL, value, "container", "the name of a container")


def check_subresource(value: object) -> str:
    """Return a subresource such as ``status`` if it is valid; otherwise raise InvalidInput."""
    return check_rule(LABEL, value, "subresource", "a subresource such as 'status'")


def check_plural(value: object) -> str:
    """Return a resource's plural such as ``jobs`` if it is valid; otherwise raise InvalidInput."""
    return check_rule(LABEL, value, "plural", "a resource such as 'jobs'")


def check_kind(value: object) -> str:
    """Return a kind such as ``Job`` if it is valid; otherwise raise InvalidInput."""
    if isinstance(value, str) and _KIND.fullmatch(value):
        return value
    raise InvalidInput(
        f"`kind` must be a Kubernetes kind (letters and digits), got {shown(value)}",
        hint="A kind is written as in a manifest, such as 'Job' or 'ConfigMap'.",
    )


def check_api_version(value: object) -> str:
    """Return an API version such as ``batch/v1`` if it is valid; otherwise raise InvalidInput."""
    if isinstance(value, str):
        group, slash, version = value.rpartition("/")
        group_is_valid = len(group) <= SUBDOMAIN.longest and SUBDOMAIN.pattern.fullmatch(group)
        if _VERSION.fullmatch(version) and (not slash or group_is_valid):
            return value
    raise InvalidInput(
        f"`apiVersion` must be 'VERSION' or 'GROUP/VERSION', got {shown(value)}",
        hint="For a Job it is 'batch/v1', for a Pod 'v1'.",
    )


def check_path_segment(value: object) -> str:
    """Return text that is one segment of a path, for any kind; otherwise raise InvalidInput."""
    return check_rule(PATH_SEGMENT, value, "name", "one segment of a path")


def join(segments: Iterable[str]) -> str:
    """Return the path of checked segments. Each is quoted."""
    return "/" + "/".join(quote(segment, safe="") for segment in segments)


def check_path(path: object, method: str = "GET") -> str:
    """Return a raw request path if no part of it changes the meaning of another part.

    Args:
        path: absolute, without a query, such as ``/apis/batch/v1``.
        method: only a GET may have a path that ends with a slash: for a DELETE it would mean the whole collection.

    Raises:
        InvalidInput: the path has an empty segment, ``.`` or ``..``, an encoded slash, a query or a space.
    """
    hint = "Pass query parameters as `params`; quote a name with urllib.parse.quote(name, safe='')."
    wrong = InvalidInput(f"`path` must be an absolute path without a query, got {shown(path)}", hint=hint)
    if not isinstance(path, str) or not path.startswith("/") or not path.isascii() or re.search(r"[\s?#\\]", path):
        raise wrong
    segments = path[1:].split("/")
    if segments[-1] == "" and method.upper() == "GET":
        segments.pop()
    for segment in segments:
        if not _is_plain_segment(segment):
            raise InvalidInput(
                f"`path` must not have the segment {shown(segment)}, which changes the meaning of the path: "
                f"{shown(path)}",
                hint="A segment must not be empty, '.' or '..', and must not contain an encoded '/', '.' or '%'.",
            )
    return path


def proposed(value: object, longest: int = LABEL.longest) -> str:
    """Return a valid name that resembles the value; empty if there is none."""
    if not isinstance(value, str):
        return ""
    words = re.sub(r"[^a-z0-9]+", "-", value[: 4 * longest].lower())
    return words.strip("-")[:longest].strip("-")


def check_rule(rule: Rule, value: object, argument: str, what: str, *, example: str = "training-1") -> str:
    """Return a name if it follows a rule.

    Args:
        rule: the rule.
        value: the name.
        argument: the caller's argument, for the error.
        what: what the name is for, such as ``the name of a Job``.
        example: a valid name, for a value that no valid name resembles.

    Raises:
        InvalidInput: the name is not valid; the message has the rule, and the hint a valid name.
    """
    if isinstance(value, str) and len(value) <= rule.longest and rule.pattern.fullmatch(value):
        return value
    better = proposed(value, min(rule.longest, LABEL.longest))
    raise InvalidInput(
        f"`{argument}` must be {what} ({rule.text}), got {shown(value)}",
        hint=f"For example {argument}={better or example!r}.",
    )


def _is_plain_segment(segment: str) -> bool:
    decoded = unquote(segment)
    if decoded in ("", ".", ".."):
        return False
    return not re.search(r"[/%\\\x00-\x1f\x7f]", decoded)
