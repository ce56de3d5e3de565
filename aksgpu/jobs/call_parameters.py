"""The arguments of a call as text for people: kept in an annotation, and compared between runs."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aksgpu.jobs.secret_texts import HIDDEN, SECRET_NAME, hide_in_text, hide_secrets

__all__ = ["parameters", "script_parameters", "split_options"]

_LONGEST_TEXT = 100
"""Characters of a text. A longer one is not kept."""
_LONGEST = 4000
"""Characters of all arguments together."""


def parameters(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Return the arguments that are numbers, short texts, booleans or None, as JSON by the parameters' names.

    Defaults are included. Other arguments, and those that look like secrets, are left out.
    """
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return "{}"
    bound.apply_defaults()
    found: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        is_short_text = isinstance(value, str) and len(value) <= _LONGEST_TEXT and hide_in_text(value) == value
        if (is_short_text or value is None or type(value) in (bool, int, float)) and not SECRET_NAME.search(name):
            found[name] = value
    text = json.dumps(found)
    return text if len(text) <= _LONGEST else "{}"


def script_parameters(words: Sequence[str]) -> str:
    """Return the arguments of a script as JSON: its options by their names, and the other words as ``arguments``.

    Long texts, and what looks like a secret, are left out.
    """
    options, rest = split_options(hide_secrets(words))
    found = {name: value for name, value in options.items() if _is_kept(value) and not SECRET_NAME.search(name)}
    shown = [word for word in rest if _is_kept(word) and not SECRET_NAME.search(word)]
    if shown:
        found["arguments"] = " ".join(shown)
    text = json.dumps(found)
    return text if len(text) <= _LONGEST else "{}"


def _is_kept(text: str) -> bool:
    return len(text) <= _LONGEST_TEXT and HIDDEN not in text


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
