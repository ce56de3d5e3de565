"""Secrets in texts that are saved, such as command lines: finds them and hides them.

A value is taken for a secret if its name is like that of one, or by its own form, such as a password in a URL. Where
the end of a value is not clear, more is hidden than necessary.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["HIDDEN", "SECRET_NAME", "hide_in_text", "hide_secrets"]

HIDDEN = "***"
"""What is shown in place of a secret."""

_SECRET = (
    r"token(?!s|iz)|(?<![a-z])keys?(?![a-z])|(?:api|access|account|private|encryption)_?key|secret"
    r"|passw|passphrase|(?<![a-z])pass(?![a-z])|[_-]pwd(?![a-z])|credential|auth(?!or(?!iz))"
    r"|connection_?string|(?<![a-z])sig(?![a-z])"
)
SECRET_NAME = re.compile(_SECRET, re.IGNORECASE)
"""Names whose values are not shown or saved. ``max_tokens``, ``tokenizer`` and ``author`` are not such names."""

_NAME = re.compile(r"[\w-]{1,100}")
"""The name of an option, a variable, a header or a key."""
_FIRST_ASSIGNMENT = re.compile(r"([\w.+-]{1,100}=)(?!=)")
"""``NAME=`` or ``--name=`` at the beginning of a word."""
_TEXT_OPTION = re.compile(r"-[a-z]{0,5}c")
"""The option of a shell, or of Python, before the text of a program."""

_WORD = r"(?:\\\"[^\"]{0,2000}\"|\"(?:\\.|[^\"\\]){0,2000}\"?|'[^']{0,2000}'?|\\.|[^\s;&|\"'\\])+"
"""One word of a shell, which may consist of several quoted parts."""
_VALUE = re.compile(rf"(['\"]?\]?\s{{0,8}}(?:[:+]?=(?!=)\s{{0,8}}|:-))({_WORD})", re.DOTALL)
"""``=value`` after a variable or an option, also in Python and as the default of a shell's variable."""
_OPTION_VALUE = re.compile(rf"(\s{{1,8}}(?![-\s]))({_WORD})", re.DOTALL)
"""A value after an option."""
_KEY_VALUE = re.compile(
    r"(\\?['\"]\s{0,8}[:,]\s{0,8})(\\?\"(?:\\.|[^\"\\]){0,2000}\"?|'[^']{0,2000}'?|[^\s,}\]]{1,2000})", re.DOTALL
)
"""``": "value"`` after a key, in JSON and in Python."""
_HEADER_VALUE = re.compile(r"(:\s{0,8})([^\"'\n]{1,2000}|\"[^\"]{0,2000}\"?|'[^']{0,2000}'?)")
"""``: value`` after the name of a header, or in YAML."""
_BEFORE_HEADER = ("", '"', "'", "\n", "=")
"""What may come before the name of a header."""

_FORMS = re.compile(
    r"(?<=://)[^\s/@'\"]{1,500}(?=@)"  # user and password of a URL
    r"|(?<=Bearer )[\w.~+/=-]{8,2000}"
    r"|(?<![A-Za-z0-9])(?:hf_|gh[opsru]_|github_pat_|glpat-|sk-|xox[abprs]-|AKIA|npm_|pypi-|dckr_pat_|eyJ)[\w.-]{16,2000}"
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[^-]{0,10000}"
)
"""Values that are secrets whatever their names are."""


def hide_secrets(words: Sequence[str]) -> list[str]:
    """Return the words of a command line, with ``***`` in place of secrets.

    These are the values of options (``--token=x``, ``--token x``), and secrets inside a word, such as the text of
    ``sh -c``.
    """
    shown: list[str] = []
    previous = ""
    for word in words:
        shown.append(_hide_in_word(word, previous))
        previous = word
    return shown


def _hide_in_word(word: str, previous: str) -> str:
    is_option = previous.startswith("-") and "=" not in previous
    if is_option and SECRET_NAME.search(previous) and not word.startswith("-"):
        return HIDDEN
    first = _FIRST_ASSIGNMENT.match(word)
    if first and SECRET_NAME.search(first[1]) and not _TEXT_OPTION.fullmatch(previous):
        return first[1] + HIDDEN
    return hide_in_text(word)


def hide_in_text(text: str) -> str:
    """Return a text, such as a shell command, a URL or JSON, with ``***`` in place of secrets."""
    parts: list[str] = []
    end = 0
    for name in _NAME.finditer(text):
        if name.start() < end or not SECRET_NAME.search(name[0]):
            continue
        value = _value(text, name)
        if value is not None:
            parts += [text[end : value.start(2)], HIDDEN]
            end = value.end()
    parts.append(text[end:])
    return _FORMS.sub(HIDDEN, "".join(parts))


def _value(text: str, name: re.Match[str]) -> re.Match[str] | None:
    """Return the value after a name, or None. Group 1 of the match separates them, and group 2 is the value."""
    found = _VALUE.match(text, name.end()) or _KEY_VALUE.match(text, name.end())
    if found is None and name[0].startswith("-"):
        found = _OPTION_VALUE.match(text, name.end())
    before = text[max(name.start() - 1, 0) : name.start()]
    if found is None and before in _BEFORE_HEADER:
        found = _HEADER_VALUE.match(text, name.end())
    return found
