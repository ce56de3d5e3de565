"""A manifest in any form as a list of dicts. Sends nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aksgpu.errors import InvalidInput

Manifest = Mapping[str, Any] | Sequence[Mapping[str, Any]] | str | Path

_EXPECTED = "Give an object as a dict, several in a list, YAML text, or the name of a YAML file."


def documents(manifest: Manifest) -> list[dict[str, Any]]:
    """Return the Kubernetes objects of a manifest, as copies that hold JSON values only.

    Args:
        manifest: an object, several, a file (its path or name), or YAML text, of one or more documents.

    Raises:
        InvalidInput: there is no such file, it is not YAML, it exceeds a limit of :mod:`aksgpu.common.yaml_loader`,
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
            f"`manifest` must be a dict, a list of dicts, a text or a path, got {type(found).__name__}",
            hint=_EXPECTED,
        )
    objects = _objects(found)
    if not objects:
        raise InvalidInput("the manifest is empty", hint=_EXPECTED)
    return objects


def _objects(found: Sequence[Any]) -> list[dict[str, Any]]:
    """Return copies of the objects, with those of a ``kind: List`` in its place."""
    from aksgpu.common.yaml_loader import json_value

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
    from aksgpu.common.yaml_loader import load_all

    text, where = _text(manifest)
    try:
        return load_all(text)
    except InvalidInput as wrong:
        raise InvalidInput(f"{where} is not YAML that can be used: {wrong.message}", hint="Correct it.") from None


def _text(manifest: str | Path) -> tuple[str | bytes, str]:
    """Return the text of a manifest, and words for where it is from."""
    if isinstance(manifest, str) and ("\n" in manifest or (":" in manifest and not _is_file(manifest))):
        return manifest, "the manifest"
    return _content(manifest), f"the manifest {str(manifest)!r}"


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # a name that no file can have, such as a very long one
        return False


def _content(name: str | Path) -> bytes:
    from aksgpu.common.yaml_loader import MAX_BYTES

    try:
        with Path(name).expanduser().open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        content.decode("utf-8")
    except OSError as failed:
        raise InvalidInput(
            f"cannot read the manifest {str(name)[:200]!r}: {failed.strerror}",
            hint=f"Relative names begin at {Path.cwd()}. {_EXPECTED}",
        ) from failed
    except UnicodeDecodeError as failed:
        if len(content) <= MAX_BYTES:
            raise InvalidInput(f"the manifest {str(name)!r} is not text in UTF-8", hint=_EXPECTED) from failed
    except (ValueError, RuntimeError) as failed:
        raise InvalidInput(f"`manifest` is not a file name: {failed}", hint=_EXPECTED) from None
    return content
