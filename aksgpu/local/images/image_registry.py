"""The programs of this machine that replace container images.

Built-in programs are a table of patterns. Users add their own with :func:`register`, which are stored in
``$AKSGPU_HOME/images.json``. Nothing is pulled or unpacked.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aksgpu.common.home import home as user_home
from aksgpu.common.private_files import write_private
from aksgpu.errors import InvalidInput

_REFERENCE = re.compile(
    r"(?P<name>[a-z0-9]+(?:[._:/-]+[a-z0-9]+)*?)(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True)
class Image:
    """A program that replaces an image.

    Attributes:
        reference: the normalized image reference.
        entrypoint: the command of a container without ``command``.
        cmd: its arguments if the container has no ``args``.
        directory: the working directory if the container has none, or None.
        all_gpus: whether it has access to every GPU of its node without requesting one, as a device plugin has.
    """

    reference: str
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    directory: str | None = None
    all_gpus: bool = False

    @property
    def id(self) -> str:
        """An image id, computed from the reference because there are no layers."""
        return "sha256:" + hashlib.sha256(self.reference.encode()).hexdigest()


def _module(name: str) -> tuple[str, ...]:
    # -P keeps files in the working directory from shadowing modules. With more threads, pods slow each other down.
    return ("env", "OPENBLAS_NUM_THREADS=1", sys.executable, "-P", "-m", f"aksgpu.local.images.{name}")


ADVICE_REASON = "ImageUnavailable"
"""Reason of the event that says how to provide an image."""

_MNIST = _module("mnist")
_PLUGIN = _module("device_plugin")
_BUILTIN: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    (r"(docker\.io/microsoft|mcr\.microsoft\.com/azuredocs)/samples-tf-mnist-demo", _MNIST, ()),
    (r"(docker\.io|nvcr\.io)/nvidia/k8s-device-plugin", _PLUGIN, ()),
    (r"(docker\.io|nvcr\.io)/nvidia/cuda.*", (), ("sh",)),
    (r"docker\.io/(.*/busybox|library/(alpine|debian|ubuntu))", (), ("sh",)),
    (r"docker\.io/library/bash", (), ("bash",)),
    (r"docker\.io/library/python", (), ("python3",)),
)
"""Pattern of the normalized name without the tag, entrypoint, and cmd."""


def normalise(reference: str) -> str:
    """Return the full form of an image reference: registry, repository, and tag or digest.

    Raises:
        InvalidInput: the reference cannot be parsed.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise InvalidInput(f'couldn\'t parse image name "{reference}": invalid reference format')
    name, tag, digest = match.group("name", "tag", "digest")
    registry, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif registry != "localhost" and not {".", ":"} & set(registry):
        name = f"docker.io/{name}"
    return f"{name}@{digest}" if digest else f"{name}:{tag or 'latest'}"


def find(reference: str) -> Image | None:
    """Return the program that replaces an image, or None. Programs of the user come first.

    Raises:
        InvalidInput: the reference cannot be parsed.
    """
    full = normalise(reference)
    registered = _read(None).get(full)
    if registered:
        return Image(full, tuple(registered["command"]), directory=registered["directory"])
    for pattern, entrypoint, cmd in _BUILTIN:
        if re.fullmatch(rf"{pattern}(:[^:/@]+|@.+)", full):
            return Image(full, entrypoint, cmd, all_gpus=entrypoint == _PLUGIN)
    return None


def pull_error(reference: str) -> str:
    """Return the error for an image that no program replaces."""
    return (
        f'failed to resolve reference "{normalise(reference)}": the laptop AKS does not pull images, and no program '
        "is registered for this one"
    )


def advice(reference: str) -> str:
    """Return advice for an image that no program replaces."""
    call = f'aksgpu.local.images.register("{reference}", ["python", "train.py"])'
    return f"Register a program of this machine for the image: {call}"


def register(
    reference: str,
    command: Sequence[str],
    *,
    directory: str | os.PathLike[str] | None = None,
    home: str | os.PathLike[str] | None = None,
) -> None:
    """Run a program of this machine in place of an image on the laptop AKS.

    The program is the image's entrypoint: a container's ``args`` follow it, and its ``command`` replaces it.

    Args:
        reference: the image reference, as in a manifest.
        command: the program and its first arguments. ``python`` is the Python that runs aksgpu.
        directory: the working directory unless the container has one. None uses the current directory.
        home: the directory of the laptop's files. None uses ``$AKSGPU_HOME`` or the default directory.

    Raises:
        InvalidInput: the reference cannot be parsed, or the command is not a list of strings or is empty.

    Example:
        >>> local.images.register("myregistry.azurecr.io/train:1", ["python", "/home/me/train.py"])
    """
    if isinstance(command, str) or not command:
        raise InvalidInput(f"`command` must be a list of strings with at least the program, got {command!r}")
    registered = {"command": [str(word) for word in command], "directory": str(Path(directory or ".").resolve())}
    _write(_read(home) | {normalise(reference): registered}, home)


def unregister(reference: str, *, home: str | os.PathLike[str] | None = None) -> None:
    """Remove a program that :func:`register` added. It is not an error if there is none."""
    full = normalise(reference)
    _write({name: entry for name, entry in _read(home).items() if name != full}, home)


def install_tools(directory: Path) -> tuple[Path, Path]:
    """Write the commands on the PATH of every container, and those on the PATH of containers with a GPU.

    Returns:
        The directory of the common commands, and the directory of those for containers with a GPU.
    """
    common = directory / "bin"
    gpu = directory / "gpu-bin"
    python = f"exec {shlex.quote(sys.executable)}"
    real_smi = shlex.quote(shutil.which("nvidia-smi") or "")
    scripts = {
        common / "python": f'{python} "$@"',
        common / "python3": f'{python} "$@"',
        common / "nvidia-device-plugin": f'{python} -P -m aksgpu.local.images.device_plugin "$@"',
        gpu / "nvidia-smi": f'export AKSGPU_REAL_SMI={real_smi}; {python} -P -m aksgpu.local.images.nvidia_smi "$@"',
    }
    if not shutil.which("ping"):
        scripts[common / "ping"] = f'{python} -I -S {shlex.quote(str(Path(__file__).with_name("ping.py")))} "$@"'
    for path, line in scripts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_private(path, f"#!/bin/sh\n{line}\n".encode(), mode=0o755)
    return common, gpu


def _file(home: str | os.PathLike[str] | None) -> Path:
    return Path(home or user_home()) / "images.json"


def _read(home: str | os.PathLike[str] | None) -> dict[str, Any]:
    file = _file(home)
    return dict(json.loads(file.read_text())) if file.exists() else {}


def _write(images: dict[str, Any], home: str | os.PathLike[str] | None) -> None:
    file = _file(home)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(file, json.dumps(images, indent=1).encode())
