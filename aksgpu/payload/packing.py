"""Pack a function call into a payload: a header, and a compressed body that is split over Secrets."""

from __future__ import annotations

import hashlib
import hmac
import importlib.util
import inspect
import io
import json
import linecache
import pickle
import platform
import secrets
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple

import cloudpickle

from aksgpu.errors import InvalidInput
from aksgpu.payload.modules import project_modules

__all__ = ["FORMAT", "RUNNER_FILES", "Payload", "pack_call", "seal"]

FORMAT = 1
"""Format of the payload. The runner refuses any other."""
_SECRET_BYTES = 900 * 1024
"""Bytes of data in one Secret. Kubernetes allows 1 MiB for the whole object."""
_KEY_BYTES = 32
RUNNER_FILES = {
    "runner.py": "runner.py",
    "aksgpu_records.py": "records.py",
    "aksgpu_gpu_sampler.py": "gpu_sampler.py",
}
"""Files of the payload, and the files of this package that they are."""


@dataclass(frozen=True)
class Payload:
    """What travels to the pod.

    Attributes:
        header: how to read the body: format, task, mode, Python, number of parts, checksums.
        body: the compressed content.
        key: the key of the HMACs of the payload and of its outcome.
        fingerprint: a checksum of the call. The same call from another kernel has the same one.
    """

    header: Mapping[str, Any]
    body: bytes
    key: bytes
    fingerprint: str

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


def pack_call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], *, root: Path) -> Payload:
    """Pack a call by pickle, for a pod with the same minor version of Python.

    Args:
        function: the function.
        args: its positional arguments.
        kwargs: its keyword arguments.
        root: the directory of the project, whose modules travel by value.

    Raises:
        InvalidInput: the function or an argument cannot be pickled.
    """
    by_value = project_modules(root)
    pickled = _pickle((function, args, dict(kwargs)), by_value)
    content = {"files": _travelling_files(), "sources": _sources(pickled.file_names), "call": pickled.content}
    header = {
        "task": "function",
        "mode": "pickle",
        "python": _python_version(),
        "implementation": platform.python_implementation(),
        "cloudpickle": cloudpickle.__version__,
        "protocol": pickle.HIGHEST_PROTOCOL,
    }
    return seal(header, content, fingerprint=_fingerprint(function, args, kwargs))


def seal(header: Mapping[str, Any], content: Mapping[str, Any], *, fingerprint: str) -> Payload:
    """Return the payload of a header and a content of plain values, which the runner reads with ``pickle``."""
    key = secrets.token_bytes(_KEY_BYTES)
    body = zlib.compress(pickle.dumps(dict(content), 4), 6)
    complete = {
        **header,
        "format": FORMAT,
        "sha256": hashlib.sha256(body).hexdigest(),
        "hmac": hmac.new(key, body, hashlib.sha256).hexdigest(),
    }
    unsplit = Payload({**complete, "parts": 0}, body, key, fingerprint)
    return Payload({**complete, "parts": len(unsplit.secrets())}, body, key, fingerprint)


# Pickle


class _Pickled(NamedTuple):
    """A pickle, and the files of the code that it holds by value."""

    content: bytes
    file_names: frozenset[str]


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """A pickler that keeps the file names of code, and can pickle modules by value that refer to themselves.

    Attributes:
        file_names: the files of the code that was pickled by value.
    """

    def __init__(self, file: io.BytesIO, by_value: Mapping[str, ModuleType]) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._by_value = by_value
        self.file_names: set[str] = set()

    def reducer_override(self, obj: Any) -> Any:
        """Return how an object is pickled."""
        if isinstance(obj, CodeType):
            self.file_names.add(obj.co_filename)
            make, arguments = self.dispatch_table[CodeType](obj)
            return make, tuple(obj.co_filename if each == _NO_FILE_NAME else each for each in arguments)
        if isinstance(obj, ModuleType) and self._by_value.get(obj.__name__) is obj:
            state = {name: value for name, value in vars(obj).items() if name not in _MODULE_FIELDS}
            # The state follows the object, so that it may contain the module itself.
            return ModuleType, (obj.__name__, obj.__doc__), state
        return super().reducer_override(obj)


_NO_FILE_NAME = "<dynamic-code>"
"""What cloudpickle 3.1 writes in place of a code's file name. A traceback needs the name to show source lines."""
_MODULE_FIELDS = ("__builtins__", "__cached__", "__loader__", "__spec__")
"""Attributes of a module that its import sets, and that other processes cannot use."""


def _pickle(value: object, by_value: Mapping[str, ModuleType]) -> _Pickled:
    """Pickle a value, with the objects of the modules ``by_value`` by value.

    Raises:
        InvalidInput: it cannot be pickled.
    """
    file = io.BytesIO()
    pickler = _Pickler(file, by_value)
    for module in by_value.values():
        cloudpickle.register_pickle_by_value(module)
    try:
        pickler.dump(value)
    except Exception as error:
        raise InvalidInput(
            f"the function or an argument cannot be pickled: {error}",
            hint="Create the object inside the function, or pass what it is made from.",
        ) from error
    finally:
        for module in by_value.values():
            cloudpickle.unregister_pickle_by_value(module)
    return _Pickled(file.getvalue(), frozenset(pickler.file_names))


def _python_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


# Files


def _own_file(name: str) -> bytes:
    return resources.files("aksgpu.payload").joinpath(name).read_bytes()


def _travelling_files() -> dict[str, bytes]:
    """Return the modules that the image need not have: cloudpickle, and ``aksgpu`` with ``log``."""
    spec = importlib.util.find_spec("cloudpickle")
    assert spec is not None and spec.origin is not None
    directory = Path(spec.origin).parent
    files = {f"cloudpickle/{path.name}": path.read_bytes() for path in sorted(directory.glob("*.py"))}
    training_log = resources.files("aksgpu").joinpath("training_log.py").read_bytes()
    files["aksgpu/__init__.py"] = b"from aksgpu.training_log import log\n"
    files["aksgpu/training_log.py"] = training_log
    return files


def _sources(file_names: Iterable[str]) -> dict[str, str]:
    """Return the text of source files and notebook cells by name, for tracebacks."""
    lines = {name: linecache.getlines(name) for name in sorted(file_names)}
    return {name: "".join(found) for name, found in lines.items() if found}


def _codes(function: object) -> list[CodeType]:
    """Return the code of a function and of the functions that its globals refer to."""
    found: dict[int, CodeType] = {}
    waiting: list[object] = [function]
    while waiting:
        each = inspect.unwrap(waiting.pop())  # type: ignore[arg-type]  # any object may be unwrapped
        code = getattr(each, "__code__", None)
        if not isinstance(code, CodeType) or id(code) in found:
            continue
        found[id(code)] = code
        scope = getattr(each, "__globals__", {})
        waiting += [scope[name] for name in code.co_names if name in scope]
    return list(found.values())


# The fingerprint


def _fingerprint(function: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Return a checksum of a call that does not depend on the kernel."""
    digest = hashlib.sha256()
    for code in _codes(function):
        _add_code(digest, code)
    for value in (*args, *(kwargs[name] for name in sorted(kwargs))):
        try:
            digest.update(pickle.dumps(value, 4))
        except Exception:
            digest.update(cloudpickle.dumps(value, 4))
    digest.update(repr(sorted(kwargs)).encode())
    return digest.hexdigest()


def _add_code(digest: Any, code: CodeType) -> None:
    """Add a function's instructions and constants to a checksum, without its file and line numbers."""
    digest.update(code.co_name.encode())
    digest.update(code.co_code)
    digest.update(repr((code.co_names, code.co_varnames, code.co_freevars)).encode())
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _add_code(digest, constant)
        else:
            digest.update(_constant(constant).encode())


def _constant(value: object) -> str:
    """Return a constant as text; the order of a set differs between kernels."""
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)
