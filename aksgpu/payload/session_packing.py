"""Pack a session, and the calls and cells that are sent to it."""

from __future__ import annotations

import hashlib
import json
import linecache
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle

from aksgpu.errors import InvalidInput
from aksgpu.payload.call_pickler import pickle_call
from aksgpu.payload.included import read_included
from aksgpu.payload.modules import project_modules
from aksgpu.payload.packing import LARGEST_PAYLOAD, Payload, seal
from aksgpu.payload.requirements import NONE, Packages
from aksgpu.payload.source_mode import PROTOCOL, express

__all__ = ["PackedCall", "pack_cell", "pack_session", "pack_session_call"]

_FILES = {
    "lib/aksgpu_session.py": "session_server.py",
    "lib/aksgpu_frames.py": "session_frames.py",
    "lib/aksgpu_cells.py": "cell_runner.py",
}
"""Files that a session's payload brings, and the files of this package that they are."""


_COLLECTIONS = (list, tuple, set, frozenset)


class PackedCall(NamedTuple):
    """A call as it is sent to a session."""

    fields: Mapping[str, Any]
    """Fields of its message's header."""
    entries: Mapping[str, bytes]
    """What the call consists of, by name."""


def pack_session(idle: float, *, packages: Packages = NONE, include: Iterable[str] = ()) -> Payload:
    """Pack a session.

    Args:
        idle: seconds without a call after which it ends.
        packages: what the pod installs.
        include: files and directories of the working directory that are put into the pod's.

    Raises:
        InvalidInput: a file does not exist, is not below the working directory, or they are too large together.
    """
    entries = {name: resources.files("aksgpu.payload").joinpath(file).read_bytes() for name, file in _FILES.items()}
    digest = hashlib.sha256(json.dumps([idle, *(entries[name].decode() for name in sorted(entries))]).encode())
    included = read_included(include, Path.cwd())
    for name in sorted(included):
        digest.update(name.encode() + b"\0" + included[name])
        entries[f"work/{name}"] = included[name]
    header = {
        "task": "session",
        "mode": "session",
        "cloudpickle": cloudpickle.__version__,
        "protocol": pickle.HIGHEST_PROTOCOL,
        "idle": idle,
    }
    payload = seal(header, {**entries, "packages.json": packages.content()}, fingerprint=digest.hexdigest())
    if len(payload.body) > LARGEST_PAYLOAD:
        raise InvalidInput(
            f"the files of `include` must have at most {LARGEST_PAYLOAD:,} bytes, compressed, "
            f"got {len(payload.body):,}",
            hint='Put data on a claim: Executor(aks, volumes={"/data": "data"}).',
        )
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
        root: the directory of the project, whose modules are sent by value.
        is_same_python: whether the session has the minor version of this Python. A call for another one is sent as
            source.

    Raises:
        InvalidInput: the function or an argument cannot be sent.
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


def pack_cell(
    name: str,
    source: str,
    inputs: Mapping[str, Any],
    outputs: Sequence[str],
    *,
    root: Path,
    is_same_python: bool,
) -> PackedCall:
    """Pack a notebook cell.

    Args:
        name: the cell's name in tracebacks.
        source: its text.
        inputs: objects that it uses, by name.
        outputs: names to return.
        root: the directory of the project, whose modules are sent by value.
        is_same_python: whether the session has the minor version of this Python. Otherwise, only plain data is sent.

    Raises:
        InvalidInput: an input cannot be sent.
    """
    entries = {"cell": source.encode(), "outputs.json": json.dumps(list(outputs)).encode()}
    if inputs and is_same_python:
        entries["inputs.pkl"] = pickle_call(dict, (), inputs, project_modules(root)).content
    elif inputs:
        entries["inputs.pkl"] = _plain_inputs(inputs)
    mode = "pickle" if is_same_python else "source"
    fields = {"kind": "cell", "name": name, "mode": mode, "protocol": pickle.HIGHEST_PROTOCOL}
    return PackedCall(fields, entries)


def _plain_inputs(inputs: Mapping[str, Any]) -> bytes:
    """Return the pickle of inputs for another minor version of Python, in the same form as that of a call."""
    for name, value in inputs.items():
        if not _is_plain(value):
            raise InvalidInput(
                f"the input {name!r} must be plain data, such as numbers, strings and lists of them, because the "
                f"image has another minor version of Python, got an object of type {type(value).__name__}",
                hint="Use an image with the Python of this kernel, or define it in the cell.",
            )
    return pickle.dumps((None, (), dict(inputs)), PROTOCOL)


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return type(value) is dict and _is_plain([*value, *value.values()])
    if isinstance(value, list | tuple | set | frozenset):
        return type(value) in _COLLECTIONS and all(_is_plain(each) for each in value)
    return value is None or type(value) in (bool, int, float, complex, str, bytes, bytearray)


def _sources(file_names: frozenset[str]) -> dict[str, str]:
    """Return the text of source files and notebook cells by name, as they are now."""
    found = {}
    for name in sorted(file_names):
        linecache.checkcache(name)
        text = "".join(linecache.getlines(name))
        if text:
            found[name] = text
    return found
