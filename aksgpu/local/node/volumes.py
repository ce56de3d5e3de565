"""A pod's volumes as directories of this machine, and their mount points in a container.

A hostPath below ``/var/lib/kubelet`` is a directory of the simulated node, so that the device plugin sockets of several
nodes are separate. Any other hostPath is a path of this machine. A persistent volume claim is a directory that is
deleted with the claim. The content of ConfigMaps, Secrets and the downward API is written when the pod starts, and does
not change later. A serviceAccountToken in a projected volume is left out.

:mod:`aksgpu.local.node.shim` mounts the volumes. If the system does not allow mount namespaces, :func:`rewrite_paths`
replaces mount paths in the container's command, arguments and environment.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from aksgpu.local.node.environment import ConfigError, expand, read_data, read_field, read_resource_field
from aksgpu.local.objects import Object, Objects
from aksgpu.local.status_error import StatusError

KUBELET = "/var/lib/kubelet"
_READ_ONLY_KINDS = ("configMap", "secret", "downwardAPI", "projected")
"""Volumes whose content the node agent writes. Containers can only read them."""
_HOST_PATHS = {
    "Directory": ("a directory", Path.is_dir),
    "File": ("a file", Path.is_file),
    "Socket": ("a socket file", Path.is_socket),
    "CharDevice": ("a character device", Path.is_char_device),
    "BlockDevice": ("a block device", Path.is_block_device),
}


class MountError(Exception):
    """A volume cannot be set up now (event FailedMount)."""


class Mount(NamedTuple):
    """A directory or file of this machine, and its path in the container."""

    source: str
    target: str
    read_only: bool


class Directories(NamedTuple):
    """The directories that contain volumes.

    Attributes:
        pod: the pod's directory.
        kubelet: the node's own ``/var/lib/kubelet``.
        claims: the directory of all persistent volume claims of the cluster.
    """

    pod: Path
    kubelet: Path
    claims: Path


class File(NamedTuple):
    """A file of a volume. ``path`` is relative to the volume, and ``mode`` is None for the default."""

    path: str
    content: bytes
    mode: int | None


async def prepare(objects: Objects, pod: Object, node: Object, directories: Directories) -> dict[str, Path]:
    """Create the pod's volumes, and return their paths by name.

    Raises:
        MountError: a volume cannot be created.
    """
    paths: dict[str, Path] = {}
    for volume in pod["spec"].get("volumes") or []:
        name = volume["name"]
        try:
            paths[name] = await _create_volume(objects, pod, node, directories, volume)
        except (ConfigError, OSError) as error:
            raise MountError(f'MountVolume.SetUp failed for volume "{name}" : {error}') from error
    return paths


async def _create_volume(objects: Objects, pod: Object, node: Object, directories: Directories, volume: Object) -> Path:
    path: Path = directories.pod / "volumes" / volume["name"]
    kind = next((key for key in volume if key != "name"), "none")
    source: Object = volume.get(kind) or {}
    match kind:
        case "hostPath":
            return _find_host_path(source["path"], source.get("type") or "", directories.kubelet)
        case "persistentVolumeClaim":
            namespace = pod["metadata"]["namespace"]
            path = await _create_claim_directory(objects, namespace, source["claimName"], directories.claims)
        case "emptyDir":
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o777)
        case _ if kind in _READ_ONLY_KINDS:
            path.mkdir(parents=True, exist_ok=True)
            parts = (source.get("sources") or []) if kind == "projected" else [volume]
            for part in parts:
                for file in await _read_files(objects, pod, node, part):
                    _write_file(path, file.path, file.content, file.mode or source.get("defaultMode", 0o644))
        case _:
            raise MountError(f'volume "{volume["name"]}": the laptop AKS does not support volumes of type {kind}')
    return path


def is_kubelet_volume(volume: Object) -> bool:
    """Return whether the volume is below ``/var/lib/kubelet``, such as the directory of device plugin sockets."""
    return Path((volume.get("hostPath") or {}).get("path", "")).is_relative_to(KUBELET)


def _find_host_path(text: str, kind: str, kubelet: Path) -> Path:
    path = Path(text)
    if ".." in path.parts:
        raise ConfigError(f"hostPath {text} must not contain '..'")
    if path.is_relative_to(KUBELET):
        path = kubelet / path.relative_to(KUBELET)
    if kind == "FileOrCreate" and not path.exists():
        path.touch()
    elif kind in ("DirectoryOrCreate", "") and not path.exists():  # without a type, the container runtime creates it
        path.mkdir(parents=True)
    expected, has_type = _HOST_PATHS.get(kind.removesuffix("OrCreate"), ("there", Path.exists))
    if not has_type(path):
        raise ConfigError(f"hostPath type check failed: {text} is not {expected}")
    return path


async def _create_claim_directory(objects: Objects, namespace: str, name: str, claims: Path) -> Path:
    try:
        claim = await objects.get("persistentvolumeclaims", name, namespace)
    except StatusError as error:
        raise MountError(f'persistentvolumeclaim "{name}" not found') from error
    path = claim_directory(claims, claim)
    path.mkdir(parents=True, exist_ok=True)
    return path


def claim_directory(claims: Path, claim: Object) -> Path:
    """Return the directory of a claim's content."""
    metadata = claim["metadata"]
    return claims / f"{metadata['namespace']}_{metadata['name']}_{metadata['uid']}"


async def _read_files(objects: Objects, pod: Object, node: Object, source: Object) -> list[File]:
    """Return the files of a volume, or of one source of a projected volume."""
    ref = source.get("configMap") or source.get("secret")
    if ref:
        data = await read_data(objects, pod, source, binary=True)
        return _select_items(data, ref.get("items"), bool(ref.get("optional")))
    items = (source.get("downwardAPI") or {}).get("items") or []
    return [File(item["path"], _read_downward(pod, node, item).encode(), item.get("mode")) for item in items]


def _select_items(data: Mapping[str, bytes], items: Sequence[Object] | None, optional: bool) -> list[File]:
    if not items:
        return [File(key, value, None) for key, value in data.items()]
    missing = next((item["key"] for item in items if item["key"] not in data), None)
    if missing is not None and not optional:
        raise ConfigError(f"references non-existent config key: {missing}")
    return [File(item["path"], data[item["key"]], item.get("mode")) for item in items if item["key"] in data]


def _read_downward(pod: Object, node: Object, item: Object) -> str:
    if "fieldRef" in item:
        return read_field(pod, item["fieldRef"]["fieldPath"])
    return read_resource_field(pod, item["resourceFieldRef"], pod["spec"]["containers"][0], node)


def _write_file(directory: Path, relative: str, data: bytes, mode: int) -> None:
    if ".." in Path(relative).parts or Path(relative).is_absolute():
        raise ConfigError(f"invalid path {relative}: must stay inside the volume")
    path = directory / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.touch(mode=0o600)
    temporary.write_bytes(data)
    temporary.chmod(mode)
    temporary.replace(path)


def container_mounts(
    container: Object, volumes: Sequence[Object], paths: Mapping[str, Path], env: Mapping[str, str]
) -> list[Mount]:
    """Return the mounts of a container.

    Args:
        container: the container in the pod's spec.
        volumes: the volumes in the pod's spec.
        paths: the paths of the volumes by name.
        env: the container's environment, for ``subPathExpr``.

    Raises:
        ConfigError: a subPath is outside its volume.
    """
    read_only = {volume["name"] for volume in volumes if any(kind in volume for kind in _READ_ONLY_KINDS)}
    found = []
    for mount in container.get("volumeMounts") or []:
        name = mount["name"]
        source = paths[name]
        sub_path = mount.get("subPath") or expand(mount.get("subPathExpr") or "", env)
        if sub_path:
            if ".." in Path(sub_path).parts or Path(sub_path).is_absolute():
                raise ConfigError(f"subPath {sub_path} must stay inside the volume")
            source = source / sub_path
            if not source.exists():
                source.mkdir(parents=True)
        found.append(Mount(str(source), mount["mountPath"], bool(mount.get("readOnly")) or name in read_only))
    return found


def create_links(root: Path, mounts: Sequence[Mount]) -> None:
    """Create symbolic links to the volumes below ``root``, for systems without mount namespaces."""
    for mount in sorted(mounts, key=lambda mount: len(Path(mount.target).parts)):
        path = root / mount.target.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if path.is_symlink():
                path.unlink()
            else:
                path.rmdir()
        path.symlink_to(mount.source)


def quotable_path(path: Path) -> Path:
    """Return a path of the same directory that needs no quotes in a shell. Commands will contain it."""
    if shlex.quote(str(path)) == str(path):
        return path
    link = Path(tempfile.mkdtemp(prefix="aksgpu-"), "root")
    link.symlink_to(path)
    return link


def rewrite_paths(text: str, root: Path, targets: Sequence[str]) -> str:
    """Replace the mount paths ``targets`` in a text with their paths below ``root``."""
    if not targets:
        return text
    paths = sorted((target.rstrip("/") for target in targets), key=len, reverse=True)
    pattern = rf"(?<![\w./-])({'|'.join(map(re.escape, paths))})(?![\w.-])"
    return re.sub(pattern, lambda match: str(root) + match.group(1), text)
