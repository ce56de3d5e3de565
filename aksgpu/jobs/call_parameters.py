"""The arguments of a call as text for people: kept in an annotation, and compared between runs."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["SECRET_NAME", "hide_secrets", "parameters", "script_parameters", "split_options"]

_SECRET = (
    r"token(?!s|iz)|(?<![a-z])keys?(?![a-z])|api_?key|access_?key|secret|passw|passphrase|credential|auth(?!or(?!iz))"
    r"|connection_?string"
)
SECRET_NAME = re.compile(_SECRET, re.IGNORECASE)
"""Names whose values are not shown or saved. ``max_tokens``, ``tokenizer`` and ``author`` are not such names."""
_ASSIGNMENT = re.compile(
    r"(?<![\w-])([\w-]{1,100}=(?!=)|-{1,2}\w[\w-]{0,100}\s{1,8}(?![-\s]))(\"[^\"]*\"|'[^']*'|[^\s;&|]+)"
)
"""``NAME=value`` or ``--name value`` inside a text, such as a shell command."""
_HIDDEN = "***"
_LONGEST_TEXT = 100
"""Characters of a text. A longer one is not kept."""
_LONGEST = 4000
"""Characters of all arguments together."""


def parameters(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Return the arguments that are numbers, short texts, booleans or None, as JSON by the parameters' names.

    Defaults are included. Other arguments, and those whose names are like a secret's, are left out.
    """
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return "{}"
    bound.apply_defaults()
    found: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        is_short_text = isinstance(value, str) and len(value) <= _LONGEST_TEXT
        if (is_short_text or value is None or type(value) in (bool, int, float)) and not SECRET_NAME.search(name):
            found[name] = value
    text = json.dumps(found)
    return text if len(text) <= _LONGEST else "{}"


def script_parameters(words: Sequence[str]) -> str:
    """Return the arguments of a script as JSON: its options by their names, and the other words as ``arguments``.

    Long texts, and options whose names are like a secret's, are left out.
    """
    options, rest = split_options(words)
    found = {
        name: value for name, value in options.items() if len(value) <= _LONGEST_TEXT and not SECRET_NAME.search(name)
    }
    shown = [word for word in rest if len(word) <= _LONGEST_TEXT and not SECRET_NAME.search(word)]
    if shown:
        found["arguments"] = " ".join(shown)
    text = json.dumps(found)
    return text if len(text) <= _LONGEST else "{}"


def hide_secrets(words: Sequence[str]) -> list[str]:
    """Return the words of a command line, with ``***`` in place of values whose names are like a secret's.

    These are the values of options (``--token=x``, ``--token x``), and of variables and options inside a word, such as
    the text of ``sh -c``.
    """
    shown: list[str] = []
    follows_secret = False
    for word in words:
        if follows_secret and not word.startswith("-"):
            shown.append(_HIDDEN)
        else:
            shown.append(_ASSIGNMENT.sub(_hide, word))
        follows_secret = word.startswith("-") and "=" not in word and bool(SECRET_NAME.search(word))
    return shown


def _hide(assignment: re.Match[str]) -> str:
    name = assignment[1]
    return f"{name}{_HIDDEN}" if SECRET_NAME.search(name) else assignment[0]


def split_options(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Split the words of a command line into its options, by their names, and the other words.

    The value of an option is the text after its ``=``, or the next word if that is not an option, or else ``given``.
    """
    options: dict[str, str] = {}
    rest: list[str] = []
    remaining = list(words)
    while remaining:
        word = remaining.pop(0)
        if not word.startswith("--") or word == "--":
            rest.append(word)
            continue
        name, has_value, value = word.partition("=")
        if not has_value:
            takes_value = bool(remaining) and not remaining[0].startswith("--")
            value = remaining.pop(0) if takes_value else "given"
        options[name] = value
    return options, rest
