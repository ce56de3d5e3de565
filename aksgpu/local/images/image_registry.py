"""Which program of this machine stands in for an image reference.

Built-in stand-ins are a table of patterns; users add their own with :func:`register`, kept in
``$AKSGPU_HOME/images.json``. Nothing is pulled or unpacked here.
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

from aksgpu.errors import InvalidInput
from aksgpu.local.home import home as user_home
from aksgpu.local.home import write_private

_REFERENCE = re.compile(
    r"(?P<name>[a-z0-9]+(?:[._:/-]+[a-z0-9]+)*?)(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True)
class Image:
    """A stand-in.

    Attributes:
        reference: the normalised image reference.
        entrypoint: what a container without ``command`` runs.
        cmd: its arguments where the container gives none.
        directory: the working directory where the container gives none, or None.
        all_gpus: whether it sees every GPU of its node without asking for one, as a device plugin does.
    """

    reference: str
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    directory: str | None = None
    all_gpus: bool = False

    @property
    def id(self) -> str:
        """An image id made of the reference: there are no layers to hash."""
        return "sha256:" + hashlib.sha256(self.reference.encode()).hexdigest()


def _module(name: str) -> tuple[str, ...]:
    # -P: a container's working directory must not shadow modules. One thread: pods get in each other's way with more.
    return ("env", "OPENBLAS_NUM_THREADS=1", sys.executable, "-P", "-m", f"aksgpu.local.images.{name}")


_MNIST = _module("mnist")
_PLUGIN = _module("device_plugin")
# Pattern of the normalised name without tag, entrypoint, cmd.
_BUILTIN: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    (r"(docker\.io/microsoft|mcr\.microsoft\.com/azuredocs)/samples-tf-mnist-demo", _MNIST, ()),
    (r"(docker\.io|nvcr\.io)/nvidia/k8s-device-plugin", _PLUGIN, ()),
    (r"(docker\.io|nvcr\.io)/nvidia/cuda.*", (), ("sh",)),
    (r"docker\.io/(.*/busybox|library/(alpine|debian|ubuntu))", (), ("sh",)),
    (r"docker\.io/library/python", (), ("python3",)),
)


def normalise(reference: str) -> str:
    """The full form of an image reference: registry, repository, and tag or digest.

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
    """The stand-in for an image, the user's own first; None where there is none.

    Raises:
        InvalidInput: the reference cannot be parsed.
    """
    full = normalise(reference)
    if own := _read(None).get(full):
        return Image(full, tuple(own["command"]), directory=own["directory"])
    for pattern, entrypoint, cmd in _BUILTIN:
        if re.fullmatch(rf"{pattern}(:[^:/@]+|@.+)", full):
            return Image(full, entrypoint, cmd, all_gpus=entrypoint == _PLUGIN)
    return None


def missing(reference: str) -> str:
    """What the laptop says about an image that has no stand-in."""
    return (
        f'failed to resolve reference "{normalise(reference)}": the laptop AKS pulls no images and has no stand-in for '
        f'this one; register a program of this machine with aksgpu.local.images.register("{reference}", '
        '["python", "train.py"])'
    )


def register(
    reference: str,
    command: Sequence[str],
    *,
    directory: str | os.PathLike[str] | None = None,
    home: str | os.PathLike[str] | None = None,
) -> None:
    """Let a program of this machine stand in for an image on the laptop AKS.

    It is the image's entrypoint: a container's ``args`` follow it, and its ``command`` replaces it.

    Args:
        reference: the image reference as manifests have it.
        command: the program and its first arguments; ``python`` is the Python of aksgpu.
        directory: where it runs unless the container says otherwise; the current directory by default.
        home: the home of the laptop AKS; ``$AKSGPU_HOME`` or its default when None.

    Raises:
        InvalidInput: the reference cannot be parsed, or the command is empty.
    """
    if isinstance(command, str) or not command:
        raise InvalidInput("command must be a list of strings with at least the program")
    own = {"command": [str(word) for word in command], "directory": str(Path(directory or ".").resolve())}
    _write(_read(home) | {normalise(reference): own}, home)


def unregister(reference: str, *, home: str | os.PathLike[str] | None = None) -> None:
    """Forget a stand-in made by :func:`register`; one that is not there is no error."""
    full = normalise(reference)
    _write({name: own for name, own in _read(home).items() if name != full}, home)


def install_tools(directory: Path) -> tuple[Path, Path]:
    """Write the commands that every container has on its PATH, and those of containers with a GPU.

    Returns:
        The two directories, in this order.
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
