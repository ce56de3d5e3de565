"""Read a manifest in any form as a list of dicts. Sends nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aksgpu.common.yaml_loader import MAX_BYTES, json_value, load_all
from aksgpu.errors import InvalidInput

__all__ = ["Manifest", "documents"]

Manifest = Mapping[str, Any] | Sequence[Mapping[str, Any]] | str | Path
"""An object as a dict, several objects in a list, YAML text, or the path of a YAML file."""

_EXPECTED = "Give an object as a dict, several objects in a list, YAML text, or the path of a YAML file."


def documents(manifest: Manifest) -> list[dict[str, Any]]:
    """Return the Kubernetes objects of a manifest, as copies that hold JSON values only.

    Args:
        manifest: an object, a list of objects, the path of a YAML file, or YAML text. YAML may have several documents.
            A ``kind: List`` is replaced by its items.

    Raises:
        InvalidInput: the file does not exist, it is not YAML, it exceeds a limit of :mod:`aksgpu.common.yaml_loader`,
            or it does not hold objects.
    """
    if isinstance(manifest, Path | str):
        found: Any = _parsed(manifest)
    elif isinstance(manifest, Mapping):
        found = [manifest]
    else:
        found = manifest
    if not isinstance(found, Sequence) or isinstance(found, bytes | bytearray):
        raise InvalidInput(
            f"`manifest` must be a dict, a list of dicts, YAML text or a path, got {type(found).__name__}",
            hint=_EXPECTED,
        )
    objects = _objects(found)
    if not objects:
        raise InvalidInput("`manifest` must hold a Kubernetes object, got an empty one", hint=_EXPECTED)
    return objects


def _objects(found: Sequence[Any]) -> list[dict[str, Any]]:
    """Return copies of the objects. A ``kind: List`` is replaced by its items."""
    objects: list[dict[str, Any]] = []
    for obj in found:
        if not isinstance(obj, Mapping):
            raise InvalidInput(f"`manifest` must hold Kubernetes objects, got {type(obj).__name__}", hint=_EXPECTED)
        try:
            copied = json_value(obj)
        except InvalidInput as wrong:
            raise InvalidInput(f"`manifest` cannot be sent: {wrong.message}", hint=_EXPECTED) from None
        if copied.get("kind") == "List":
            items = copied.get("items")
            if not isinstance(items, list):
                raise InvalidInput("`items` of a List must be a list of Kubernetes objects", hint=_EXPECTED)
            objects += _objects(items)
        else:
            objects.append(copied)
    return objects


def _parsed(manifest: str | Path) -> list[Any]:
    text, where = _text(manifest)
    try:
        return load_all(text)
    except InvalidInput as wrong:
        raise InvalidInput(f"{where} is not YAML that can be used: {wrong.message}", hint=_correction(text)) from None


_TEMPLATE = re.compile(r"\{\{|\{%")
_TAB = re.compile(r"^ {0,200}\t", re.M)


def _correction(text: str | bytes) -> str:
    """Return what to do about a text that is not YAML."""
    decoded = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    if _TEMPLATE.search(decoded):
        return "It is a template: fill it in first. In a shell: helm template NAME CHART > job.yaml"
    if _TAB.search(decoded):
        return "Write spaces instead of the tabs at the beginning of lines: YAML does not allow tabs there."
    return "Correct it."


def _text(manifest: str | Path) -> tuple[str | bytes, str]:
    """Return the text of a manifest, and a description of its source for errors."""
    if isinstance(manifest, str) and _is_yaml_text(manifest):
        return manifest, "the manifest"
    return _content(manifest), f"the manifest {str(manifest)!r}"


def _is_yaml_text(text: str) -> bool:
    """Whether a string is YAML rather than the path of a file."""
    return "\n" in text or (":" in text and not _is_file(text))


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        # No file can have this name, such as a very long one.
        return False


def _content(name: str | Path) -> bytes:
    """Return a file's content, up to one byte more than the limit."""
    try:
        with Path(name).expanduser().open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        content.decode("utf-8")
    except OSError as failed:
        raise InvalidInput(
            f"cannot read the manifest {str(name)[:200]!r}: {failed.strerror}",
            hint=f"Relative paths start at {Path.cwd()}. {_EXPECTED}",
        ) from failed
    except UnicodeDecodeError as failed:
        # Content that is too long may end within a character. Its length is reported separately.
        if len(content) <= MAX_BYTES:
            raise InvalidInput(f"the manifest {str(name)!r} is not text in UTF-8", hint=_EXPECTED) from failed
    except (ValueError, RuntimeError) as failed:
        raise InvalidInput(f"`manifest` is not a file name: {failed}", hint=_EXPECTED) from None
    return content
