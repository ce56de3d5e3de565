"""Run a payload as its pod would, in a process of this machine, without a cluster."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from aksgpu.payload import records
from aksgpu.payload.packing import Payload, pack_call
from aksgpu.payload.records import Record
from aksgpu.payload.requirements import NONE, Packages

TIMEOUT = 120
VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
_VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"


class Run(NamedTuple):
    """How a pod's main container ended."""

    exit_code: int
    record: Record | None
    output: str


@functools.cache
def interpreters() -> dict[str, str]:
    """Return the Pythons of this machine by minor version: this one, and those on PATH, of uv and of pyenv."""
    found = {f"{sys.version_info.major}.{sys.version_info.minor}": sys.executable}
    for version in VERSIONS:
        candidates = [shutil.which(f"python{version}"), _from_uv(version), *_from_pyenv(version)]
        for candidate in filter(None, candidates):
            if version not in found and _output(candidate, "-c", _VERSION) == version:
                found[version] = candidate
    return found


def _from_uv(version: str) -> str:
    uv = shutil.which("uv")
    return _output(uv, "python", "find", "--no-python-downloads", "--system", version) if uv else ""


def _from_pyenv(version: str) -> list[str]:
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    return sorted(str(path) for path in root.glob(f"versions/{version}.*/bin/python{version}"))


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def pack(
    function: Callable[..., Any],
    *args: Any,
    mode: str = "auto",
    packages: Packages | None = NONE,
    **kwargs: Any,
) -> Payload:
    """Pack a call of a function of a test module."""
    return pack_call(function, args, kwargs, root=Path(__file__).parent, mode=mode, packages=packages)


def write_payload(payload: Payload, folder: Path, header: Mapping[str, Any] = MappingProxyType({})) -> dict[str, str]:
    """Write a payload as its Secrets would be mounted, and return the container's environment.

    Args:
        payload: the payload.
        folder: an empty directory.
        header: fields of the header that are changed.
    """
    mounted = folder / "payload"
    mounted.mkdir(parents=True)
    for data in payload.secrets():
        for name, content in data.items():
            (mounted / name).write_bytes(content)
    if header:
        (mounted / "header.json").write_text(json.dumps({**payload.header, **header}))
    message = folder / "message"
    message.touch()
    return {
        "PATH": os.environ["PATH"],
        "AKSGPU_PAYLOAD": str(mounted),
        "AKSGPU_RUN": str(folder / "run"),
        "AKSGPU_MESSAGE": str(message),
    }


def run_payload(
    payload: Payload,
    folder: Path,
    *,
    python: str = sys.executable,
    header: Mapping[str, Any] = MappingProxyType({}),
    env: Mapping[str, str] = MappingProxyType({}),
    wrapper: tuple[str, ...] = (),
) -> Run:
    """Run the main container of a payload, and return how it ended."""
    environment = {**write_payload(payload, folder, header), **env}
    command = [*wrapper, python, str(folder / "payload" / "runner.py"), "run"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    return Run(done.returncode, read_record(payload, folder), done.stdout + done.stderr)


def read_record(payload: Payload, folder: Path) -> Record | None:
    """Return the outcome that a run left, from the message or from the sidecar's file."""
    text = records.record_text((folder / "message").read_text()[:4096])
    if not text:
        return None
    record = records.decode(text, payload.key)
    if record.header["where"] == "log":
        lines = records.to_frames((folder / "run" / "result").read_text())
        record = records.decode(records.from_frames(lines), payload.key)
    return record
