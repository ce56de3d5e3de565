"""Pack a session, and the calls and cells that are sent to it."""

from __future__ import annotations

import hashlib
import json
import linecache
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle

from aksgpu.payload.call_pickler import pickle_call
from aksgpu.payload.modules import project_modules
from aksgpu.payload.packing import Payload, seal
from aksgpu.payload.requirements import NONE, Packages
from aksgpu.payload.source_mode import PROTOCOL, express

__all__ = ["PackedCall", "pack_cell", "pack_session", "pack_session_call"]

_FILES = {
    "lib/aksgpu_session.py": "session_server.py",
    "lib/aksgpu_frames.py": "session_frames.py",
    "lib/aksgpu_cells.py": "cell_runner.py",
}
"""Files that a session's payload brings, and the files of this package that they are."""


class PackedCall(NamedTuple):
    """A call as it is sent to a session."""

    fields: Mapping[str, Any]
    """Fields of its message's header."""
    entries: Mapping[str, bytes]
    """What the call consists of, by name."""


def pack_session(idle: float, *, packages: Packages = NONE) -> Payload:
    """Pack a session.

    Args:
        idle: seconds without a call after which it ends.
        packages: what the pod installs.
    """
    entries = {name: resources.files("aksgpu.payload").joinpath(file).read_bytes() for name, file in _FILES.items()}
    digest = hashlib.sha256(json.dumps([idle, *(entries[name].decode() for name in sorted(entries))]).encode())
    header = {
        "task": "session",
        "mode": "session",
        "cloudpickle": cloudpickle.__version__,
        "protocol": pickle.HIGHEST_PROTOCOL,
        "idle": idle,
    }
    payload = seal(header, {**entries, "packages.json": packages.content()}, fingerprint=digest.hexdigest())
    return replace(payload, packages=packages)


def pack_session_call(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    root: Path,
    is_same_python: bool,
) -> PackedCall:
    """Pack a call.

    Args:
        function: the function.
        args: its positional arguments.
        kwargs: its keyword arguments.
        root: the directory of the project, whose modules travel by value.
        is_same_python: whether the session has the minor version of this Python. A call for another one travels as
            source.

    Raises:
        InvalidInput: the function or an argument cannot travel.
    """
    modules = project_modules(root)
    if is_same_python:
        pickled = pickle_call(function, args, kwargs, modules)
        entries = {"call.pkl": pickled.content}
        file_names = pickled.file_names
    else:
        call = express(function, args, kwargs, modules)
        entries = {"source.json": call.content, **{f"project/{name}": text for name, text in call.files.items()}}
        file_names = call.file_names
    entries["sources.json"] = json.dumps(_sources(file_names)).encode()
    fields = {
        "kind": "function",
        "mode": "pickle" if is_same_python else "source",
        "protocol": pickle.HIGHEST_PROTOCOL if is_same_python else PROTOCOL,
    }
    return PackedCall(fields, entries)


def pack_cell(name: str, source: str, inputs: Mapping[str, Any], outputs: Sequence[str], *, root: Path) -> PackedCall:
    """Pack a notebook cell.

    Args:
        name: the cell's name in tracebacks.
        source: its text.
        inputs: objects that it uses, by name.
        outputs: names to return.
        root: the directory of the project, whose modules travel by value.

    Raises:
        InvalidInput: an input cannot travel.
    """
    entries = {"cell": source.encode(), "outputs.json": json.dumps(list(outputs)).encode()}
    if inputs:
        entries["inputs.pkl"] = pickle_call(dict, (), inputs, project_modules(root)).content
    fields = {"kind": "cell", "name": name, "mode": "pickle", "protocol": pickle.HIGHEST_PROTOCOL}
    return PackedCall(fields, entries)


def _sources(file_names: frozenset[str]) -> dict[str, str]:
    """Return the text of source files and notebook cells by name, as they are now."""
    found = {}
    for name in sorted(file_names):
        linecache.checkcache(name)
        text = "".join(linecache.getlines(name))
        if text:
            found[name] = text
    return found
