"""A manifest, however the user has it, as dicts: parsed, never sent."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aksgpu.errors import InvalidInput

Manifest = Mapping[str, Any] | Sequence[Mapping[str, Any]] | str | Path

_WANTED = "Give an object as a dict, several in a list, YAML text, or the name of a YAML file."


def documents(manifest: Manifest) -> list[dict[str, Any]]:
    """The Kubernetes objects of a manifest, as copies.

    Args:
        manifest: an object, several, a file (path, or its name), or YAML text, of one or more documents.

    Raises:
        InvalidInput: no such file, no YAML, or no objects in it.
    """
    if isinstance(manifest, Path | str):
        found: Any = _parsed(manifest)
    else:
        found = [manifest] if isinstance(manifest, Mapping) else manifest
    if not isinstance(found, Sequence) or isinstance(found, bytes):
        raise InvalidInput(f"a manifest is no {type(found).__name__}", hint=_WANTED)
    objects: list[dict[str, Any]] = []
    for obj in found:
        if not isinstance(obj, Mapping):
            raise InvalidInput(f"a manifest holds Kubernetes objects, not {type(obj).__name__}", hint=_WANTED)
        objects += documents(obj["items"]) if obj.get("kind") == "List" else [copy.deepcopy(dict(obj))]
    if not objects:
        raise InvalidInput("the manifest is empty", hint=_WANTED)
    return objects


def _parsed(manifest: str | Path) -> list[Any]:
    import yaml

    text, where = _text(manifest)
    try:
        return [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as wrong:
        raise InvalidInput(f"{where} is not YAML: {wrong}", hint="Correct the line that it names.") from wrong


def _text(manifest: str | Path) -> tuple[str, str]:
    if isinstance(manifest, str) and ("\n" in manifest or (":" in manifest and not Path(manifest).is_file())):
        return manifest, "the manifest"
    path = Path(manifest).expanduser()
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except OSError as failed:
        raise InvalidInput(
            f"cannot read the manifest {str(path)!r}: {failed.strerror}",
            hint=f"Relative names begin at {Path.cwd()}. {_WANTED}",
        ) from failed
    except UnicodeDecodeError as failed:
        raise InvalidInput(f"the manifest {str(path)!r} is no text in UTF-8", hint=_WANTED) from failed
