"""What names, labels and quantities may look like, in the API server's own words."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from aksgpu.local.api import quantity

_ENDS = "must start and end with an alphanumeric character"
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_SERVICE = "[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_ENV = "[-._a-zA-Z][-._a-zA-Z0-9]*"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"

Problems = list[str]
"""Why a value is not allowed; empty when it is."""


def _rule(pattern: str, limit: int, text: str) -> Callable[[str], Problems]:
    compiled = re.compile(pattern, re.ASCII)

    def check(value: str) -> Problems:
        found = [f"must be no more than {limit} bytes"] if len(value.encode()) > limit else []
        return found if compiled.fullmatch(value) else [*found, text]

    return check


subdomain = _rule(
    _SUBDOMAIN,
    253,
    f"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and {_ENDS} "
    f"(e.g. 'example.com', regex used for validation is '{_SUBDOMAIN}')",
)
label = _rule(
    _LABEL,
    63,
    f"a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and {_ENDS} "
    f"(e.g. 'my-name',  or '123-abc', regex used for validation is '{_LABEL}')",
)
_service = _rule(
    _SERVICE,
    63,
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    f"'{_SERVICE}')",
)
env_name = _rule(
    _ENV,
    4096,
    "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not "
    "start with a digit (e.g. 'my.env-name',  or 'MY_ENV.NAME',  or 'MyEnvName1', regex used for validation is "
    f"'{_ENV}')",
)
config_key = _rule(
    _CONFIG_KEY,
    253,
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' "
    f"(e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '{_CONFIG_KEY}')",
)
_name_part = _rule(
    _QUALIFIED,
    63,
    f"name part must consist of alphanumeric characters, '-', '_' or '.', and {_ENDS} "
    f"(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{_QUALIFIED}')",
)
label_value = _rule(
    f"({_QUALIFIED})?",
    63,
    f"a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and {_ENDS} "
    f"(e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '({_QUALIFIED})?')",
)


def path_segment(value: str) -> Problems:
    """Names of RBAC objects: anything that fits between two slashes."""
    if value in (".", ".."):
        return [f"may not be '{value}'"]
    return [f"may not contain '{each}'" for each in "/%" if each in value]


RULES: dict[str, Callable[[str], Problems]] = {
    "subdomain": subdomain,
    "label": label,
    "service": _service,
    "path": path_segment,
}
"""By :attr:`aksgpu.local.api.kinds.Kind.name_rule`."""


def qualified(value: str) -> Problems:
    """A label key, an annotation key, a resource name: a name, perhaps after a domain and a slash."""
    prefix, slash, name = value.rpartition("/")
    if slash and (not prefix or "/" in prefix):
        return [
            f"a qualified name must consist of alphanumeric characters, '-', '_' or '.', and {_ENDS} (e.g. 'MyName',  "
            f"or 'my.name',  or '123-abc', regex used for validation is '{_QUALIFIED}') with an optional DNS subdomain "
            "prefix and '/' (e.g. 'example.com/MyName')"
        ]
    problems = [f"prefix part {problem}" for problem in subdomain(prefix)] if slash else []
    return problems + _name_part(name)


def amount(value: Any) -> Problems:
    """A quantity that may not be negative."""
    return ["must be greater than or equal to 0"] if quantity.parse(value) < 0 else []
