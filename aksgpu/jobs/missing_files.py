"""The note for an exception of a pod that did not find a file that exists on this machine."""

from __future__ import annotations

from pathlib import Path

__all__ = ["missing_file_note"]

_NUMPY_END = " not found."
"""End of numpy's text about a file that it does not find."""


def missing_file_note(text: str) -> str:
    """Return what to do about a file that the pod did not have and this machine has; empty in all other cases.

    Args:
        text: the exception in one line, as Python prints it.
    """
    name = _file_of(text.strip())
    try:
        exists = bool(name) and Path(name).exists()
    except (OSError, ValueError):
        return ""
    if not exists:
        return ""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return (
            f"{name} exists on this machine, but not in the pod. Put it on a claim, or name it in include= by a "
            "relative path."
        )
    return f"{name} exists on this machine, but not in the pod. include=[{name!r}] sends it to the pod."


def _file_of(text: str) -> str:
    """Return the file that the text of a FileNotFoundError names; empty if it names none.

    Python's own text ends with the name in quotes; that of ``numpy.loadtxt`` is ``NAME not found.``
    """
    _, is_missing_file, message = text.partition("FileNotFoundError: ")
    if not is_missing_file:
        return ""
    if message.endswith(_NUMPY_END):
        return message.removesuffix(_NUMPY_END)
    quote = text[-1:]
    if quote not in ("'", '"'):
        return ""
    _, colon, name = text[:-1].rpartition(f": {quote}")
    return name if colon else ""
