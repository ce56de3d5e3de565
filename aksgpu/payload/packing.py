"""Pack a function call into a payload: a header, and a compressed body that is split over Secrets."""

from __future__ import annotations

import hashlib
import hmac
import importlib.util
import io
import json
import linecache
import pickle
import platform
import secrets
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import cloudpickle

from aksgpu.errors import InvalidInput
from aksgpu.payload.call_pickler import Pickled, pickle_call
from aksgpu.payload.captured import imported_names, largest_captured
from aksgpu.payload.fingerprint import fingerprint
from aksgpu.payload.included import read_included
from aksgpu.payload.modules import project_modules
from aksgpu.payload.requirements import NONE, Packages, from_modules
from aksgpu.payload.source_mode import PROTOCOL, SourceCall, express

__all__ = ["FORMAT", "LARGEST_PAYLOAD", "MODES", "RUNNER_FILES", "Payload", "own_python", "pack_call", "seal"]

FORMAT = 1
"""Format of the payload. The runner refuses any other."""
MODES = ("auto", "pickle", "source")
"""How a function may be sent."""
LARGEST_PAYLOAD = 8 * 1024 * 1024
"""Bytes of a compressed body. etcd is made for small objects."""
WARN_ABOVE = 256 * 1024
"""Bytes of a compressed body. If a body is larger, a warning names its largest part."""
_LARGEST_SPARE_SOURCE = 64 * 1024
"""Bytes of the source form that is sent beside a pickle, in case the pod's Python differs."""
_SECRET_BYTES = 900 * 1024
"""Bytes of data in one Secret. Kubernetes allows 1 MiB for the whole object."""
_KEY_BYTES = 32
RUNNER_FILES = {
    "runner.py": "runner.py",
    "aksgpu_records.py": "records.py",
    "aksgpu_source.py": "source_loader.py",
    "aksgpu_installer.py": "installer.py",
    "aksgpu_gpu_sampler.py": "gpu_sampler.py",
    "aksgpu_main.py": "spawned_main.py",
}
"""Files of the payload, and the files of this package that they are."""


@dataclass(frozen=True)
class Payload:
    """What is sent to the pod.

    Attributes:
        header: how to read the body: format, task, mode, Python, number of parts, checksums.
        body: the compressed content, a ZIP archive.
        key: the key of the HMACs of the payload and of its outcome.
        fingerprint: a checksum of the call. The same call from another kernel has the same one.
        by_value: names of the functions, classes and modules that are sent by value.
        by_reference: names of those that the pod imports.
        largest: the largest captured variable and its bytes; None if nothing large is captured.
        packages: what the pod installs.
    """

    header: Mapping[str, Any]
    body: bytes = field(repr=False)
    key: bytes = field(repr=False)
    fingerprint: str
    by_value: tuple[str, ...] = ()
    by_reference: tuple[str, ...] = ()
    largest: tuple[str, int] | None = None
    packages: Packages = NONE

    def secrets(self) -> list[dict[str, bytes]]:
        """Return the data of the Secrets: files by name, at most 900 KiB in each Secret."""
        first = {name: _own_file(file) for name, file in RUNNER_FILES.items()}
        first["header.json"] = json.dumps(self.header, sort_keys=True).encode()
        first["key"] = self.key
        room = _SECRET_BYTES - sum(map(len, first.values()))
        first["body-000"] = self.body[:room]
        found = [first]
        for start in range(room, len(self.body), _SECRET_BYTES):
            found.append({f"body-{len(found):03d}": self.body[start : start + _SECRET_BYTES]})
        return found


class _Contents(NamedTuple):
    """What the body of a call holds."""

    entries: dict[str, bytes]
    mode: str
    file_names: frozenset[str]
    source_problem: str
    """Why there is no source form; empty if there is one."""
    by_value: tuple[str, ...]
    by_reference: tuple[str, ...]


def pack_call(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    root: Path,
    mode: str = "auto",
    packages: Packages | None = NONE,
    include: Iterable[str] = (),
) -> Payload:
    """Pack a call.

    Args:
        function: the function.
        args: its positional arguments.
        kwargs: its keyword arguments.
        root: the directory of the project, whose modules are sent by value.
        mode: ``pickle``, ``source``, or ``auto`` for a pickle and, if it is small, the source for another Python.
        packages: what the pod installs; None for the installed distributions of the modules that the call uses.
        include: files and directories of the working directory that are put into the pod's.

    Raises:
        InvalidInput: the function or an argument cannot be sent, or they are too large.
    """
    modules = project_modules(root)
    contents = _call_contents(function, args, kwargs, modules, mode)
    if packages is None:
        packages = from_modules([*contents.by_reference, *imported_names(function, modules)])
    included = read_included(include, Path.cwd())
    entries = {
        **contents.entries,
        **{f"work/{name}": content for name, content in included.items()},
        "packages.json": packages.content(),
        "sources.json": json.dumps(_sources(contents.file_names)).encode(),
    }
    header = {
        "task": "function",
        "mode": contents.mode,
        "cloudpickle": cloudpickle.__version__,
        "protocol": PROTOCOL if contents.mode == "source" else pickle.HIGHEST_PROTOCOL,
        "source_problem": contents.source_problem,
    }
    packed = seal(header, entries, fingerprint=_fingerprint(fingerprint(function, args, kwargs, modules), included))
    largest = largest_captured(function, args, kwargs, modules) if len(packed.body) > WARN_ABOVE else None
    if len(packed.body) > LARGEST_PAYLOAD:
        raise _too_large(len(packed.body), largest)
    return Payload(
        packed.header,
        packed.body,
        packed.key,
        packed.fingerprint,
        contents.by_value,
        contents.by_reference,
        largest,
        packages,
    )


def _fingerprint(call: str, included: Mapping[str, bytes]) -> str:
    """Return the checksum of a call with files that are sent with it."""
    if not included:
        return call
    digest = hashlib.sha256(call.encode())
    for name in sorted(included):
        digest.update(name.encode() + b"\0" + included[name])
    return digest.hexdigest()


def _call_contents(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    modules: Mapping[str, ModuleType],
    mode: str,
) -> _Contents:
    if mode == "source":
        call = express(function, args, kwargs, modules)
        names = tuple(sorted(call.by_value))
        return _Contents(_source_entries(call), "source", call.file_names, "", names, tuple(sorted(call.by_reference)))
    pickled: Pickled = pickle_call(function, args, kwargs, modules)
    entries = {"call.pkl": pickled.content}
    problem = "it was not asked for"
    if mode == "auto":
        spare, problem = _spare_source(function, args, kwargs, modules)
        entries |= spare
    return _Contents(entries, "pickle", pickled.file_names, problem, pickled.by_value, pickled.by_reference)


def _spare_source(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], modules: Mapping[str, ModuleType]
) -> tuple[dict[str, bytes], str]:
    """Return the entries of the source form, or why there is none."""
    try:
        call = express(function, args, kwargs, modules)
    except InvalidInput as error:
        return {}, error.message
    entries = _source_entries(call)
    if sum(map(len, entries.values())) > _LARGEST_SPARE_SOURCE:
        return {}, "its data is too large to be sent twice"
    return entries, ""


def _source_entries(call: SourceCall) -> dict[str, bytes]:
    return {"source.json": call.content, **{f"project/{name}": content for name, content in call.files.items()}}


def seal(header: Mapping[str, Any], entries: Mapping[str, bytes], *, fingerprint: str) -> Payload:
    """Return the payload of a header and of files. The modules that the image need not have are added.

    Args:
        header: ``task``, ``mode``, and what that task needs to know before the body is read.
        entries: the files of the body by name. ``packages.json`` says what is installed, and ``sources.json`` has the
            text of source files that tracebacks show; both may be missing.
        fingerprint: a checksum of what runs.
    """
    key = secrets.token_bytes(_KEY_BYTES)
    always = {"packages.json": NONE.content(), "sources.json": b"{}"}
    body = _archive({**always, **_pod_files(), **entries})
    complete = {
        "source_problem": "",
        **header,
        "python": own_python(),
        "implementation": platform.python_implementation(),
        "format": FORMAT,
        "sha256": hashlib.sha256(body).hexdigest(),
        "hmac": hmac.new(key, body, hashlib.sha256).hexdigest(),
    }
    unsplit = Payload({**complete, "parts": 0}, body, key, fingerprint)
    return Payload({**complete, "parts": len(unsplit.secrets())}, body, key, fingerprint)


def _archive(entries: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, content in entries.items():
            # A fixed time makes the archive of the same content the same.
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def _too_large(size: int, largest: tuple[str, int] | None) -> InvalidInput:
    name = f"; the largest is {largest[0]} with {largest[1]:,} bytes" if largest else ""
    return InvalidInput(
        f"the function and its arguments must have at most {LARGEST_PAYLOAD:,} bytes, compressed, got {size:,}{name}",
        hint="Pass a path or an address, and read the data in the function; "
        'or put it on a claim: Executor(aks, volumes={"/data": "data"}).',
    )


def own_python() -> str:
    """Return the minor version of this Python, such as ``3.12``."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


# Files


def _own_file(name: str) -> bytes:
    return resources.files("aksgpu.payload").joinpath(name).read_bytes()


def _pod_files() -> dict[str, bytes]:
    """Return the modules that the image need not have: cloudpickle, and ``aksgpu`` with ``log``.

    Those in ``spare`` are used only if the image does not have them.
    """
    spec = importlib.util.find_spec("cloudpickle")
    assert spec is not None and spec.origin is not None
    directory = Path(spec.origin).parent
    files = {f"lib/cloudpickle/{path.name}": path.read_bytes() for path in sorted(directory.glob("*.py"))}
    training_log = resources.files("aksgpu").joinpath("training_log.py").read_bytes()
    files["spare/aksgpu/__init__.py"] = b"from aksgpu.training_log import log\n"
    files["spare/aksgpu/training_log.py"] = training_log
    return files


def _sources(file_names: Iterable[str]) -> dict[str, str]:
    """Return the text of source files and notebook cells by name, for tracebacks."""
    lines = {name: linecache.getlines(name) for name in sorted(file_names)}
    return {name: "".join(found) for name, found in lines.items() if found}
