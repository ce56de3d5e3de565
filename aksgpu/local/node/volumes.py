"""A pod's volumes as directories of this machine, and where a container finds them.

A hostPath below ``/var/lib/kubelet`` is the node's own directory, so that the device plugin's sockets of several nodes
do not meet; every other hostPath is this machine's. A claim is a directory that is removed with it. Content
of ConfigMaps, Secrets and the downward API is written when the pod starts and does not follow later changes; a
serviceAccountToken in a projected volume is left out.

Mounting is done by :mod:`aksgpu.local.node.shim`; where the system grants no mount namespace, :func:`rewrite` replaces
mount paths in the container's command, arguments and environment.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from aksgpu.local.node.environment import ConfigError, expand, field, read_data, resource_field
from aksgpu.local.objects import Object, Objects
from aksgpu.local.status_error import StatusError

KUBELET = "/var/lib/kubelet"
_WRITTEN = ("configMap", "secret", "downwardAPI", "projected")
"""Volumes whose content is written here, and which containers may only read."""
_HOST_PATHS = {
    "Directory": ("a directory", Path.is_dir),
    "File": ("a file", Path.is_file),
    "Socket": ("a socket file", Path.is_socket),
    "CharDevice": ("a character device", Path.is_char_device),
    "BlockDevice": ("a block device", Path.is_block_device),
}


class MountError(Exception):
    """A volume cannot be set up (event FailedMount); worth another try later."""


class Mount(NamedTuple):
    """A directory or file of this machine at a path of the container."""

    source: str
    target: str
    read_only: bool


class Places(NamedTuple):
    """Where volumes lie.

    Attributes:
        pod: of the pod, removed with it.
        kubelet: the node's own ``/var/lib/kubelet``.
        claims: of all persistent volume claims of the cluster.
    """

    pod: Path
    kubelet: Path
    claims: Path


async def prepare(objects: Objects, pod: Object, node: Object, places: Places) -> dict[str, Path]:
    """Make the pod's volumes, and return where each lies.

    Raises:
        MountError: one of them cannot be made.
    """
    made: dict[str, Path] = {}
    for volume in pod["spec"].get("volumes") or []:
        name = volume["name"]
        try:
            made[name] = await _volume(objects, pod, node, places, volume)
        except (ConfigError, OSError) as error:
            raise MountError(f'MountVolume.SetUp failed for volume "{name}" : {error}') from error
    return made


async def _volume(objects: Objects, pod: Object, node: Object, places: Places, volume: Object) -> Path:
    path: Path = places.pod / "volumes" / volume["name"]
    kind = next((key for key in volume if key != "name"), "none")
    source: Object = volume.get(kind) or {}
    match kind:
        case "hostPath":
            return _host_path(source["path"], source.get("type") or "", places.kubelet)
        case "persistentVolumeClaim":
            path = await _claim(objects, pod["metadata"]["namespace"], source["claimName"], places.claims)
        case "emptyDir":
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o777)
        case _ if kind in _WRITTEN:
            path.mkdir(parents=True, exist_ok=True)
            for part in (source.get("sources") or []) if kind == "projected" else [volume]:
                for relative, data, mode in await _files(objects, pod, node, part):
                    _write(path, relative, data, mode or source.get("defaultMode", 0o644))
        case _:
            raise MountError(f'volume "{volume["name"]}": the laptop AKS has no volumes of the kind {kind}')
    return path


def is_kubelets(volume: Object) -> bool:
    """Whether the volume is a part of the node's own ``/var/lib/kubelet``, such as the sockets of device plugins."""
    return Path((volume.get("hostPath") or {}).get("path", "")).is_relative_to(KUBELET)


def _host_path(text: str, kind: str, kubelet: Path) -> Path:
    if ".." in Path(text).parts:
        raise ConfigError(f"hostPath {text} must not contain '..'")
    path = kubelet / Path(text).relative_to(KUBELET) if is_kubelets({"hostPath": {"path": text}}) else Path(text)
    if kind == "FileOrCreate" and not path.exists():
        path.touch()
    elif kind in ("DirectoryOrCreate", "") and not path.exists():  # without a type, it is the runtime that creates
        path.mkdir(parents=True)
    wanted, there = _HOST_PATHS.get(kind.removesuffix("OrCreate"), ("there", Path.exists))
    if not there(path):
        raise ConfigError(f"hostPath type check failed: {text} is not {wanted}")
    return path


async def _claim(objects: Objects, namespace: str, name: str, claims: Path) -> Path:
    try:
        claim = await objects.get("persistentvolumeclaims", name, namespace)
    except StatusError as error:
        raise MountError(f'persistentvolumeclaim "{name}" not found') from error
    path = claim_directory(claims, claim)
    path.mkdir(parents=True, exist_ok=True)
    return path


def claim_directory(claims: Path, claim: Object) -> Path:
    """Where a claim's content lies."""
    metadata = claim["metadata"]
    return claims / f"{metadata['namespace']}_{metadata['name']}_{metadata['uid']}"


File = tuple[str, bytes, int | None]


async def _files(objects: Objects, pod: Object, node: Object, source: Object) -> list[File]:
    """Path, content and mode of the files of one source of a projected volume, or of a volume of that kind."""
    if ref := source.get("configMap") or source.get("secret"):
        data = await read_data(objects, pod, source, binary=True)
        return _chosen(data, ref.get("items"), bool(ref.get("optional")))
    items = (source.get("downwardAPI") or {}).get("items") or []
    return [(item["path"], _downward(pod, node, item).encode(), item.get("mode")) for item in items]


def _chosen(data: Mapping[str, bytes], items: Sequence[Object] | None, optional: bool) -> list[File]:
    if not items:
        return [(key, value, None) for key, value in data.items()]
    missing = next((item["key"] for item in items if item["key"] not in data), None)
    if missing is not None and not optional:
        raise ConfigError(f"references non-existent config key: {missing}")
    return [(item["path"], data[item["key"]], item.get("mode")) for item in items if item["key"] in data]


def _downward(pod: Object, node: Object, item: Object) -> str:
    if "fieldRef" in item:
        return field(pod, item["fieldRef"]["fieldPath"])
    return resource_field(pod, item["resourceFieldRef"], pod["spec"]["containers"][0], node)


def _write(directory: Path, relative: str, data: bytes, mode: int) -> None:
    if ".." in Path(relative).parts or Path(relative).is_absolute():
        raise ConfigError(f"invalid path {relative}: must stay inside the volume")
    path = directory / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.touch(mode=0o600)
    fresh.write_bytes(data)
    fresh.chmod(mode)
    fresh.replace(path)


def mounts(
    container: Object, volumes: Sequence[Object], made: Mapping[str, Path], known: Mapping[str, str]
) -> list[Mount]:
    """What is mounted where in a container.

    Args:
        container: its spec.
        volumes: the pod's volumes, as its spec has them.
        made: where each of them lies.
        known: the container's environment, for ``subPathExpr``.
    """
    fixed = {volume["name"] for volume in volumes if any(kind in volume for kind in _WRITTEN)}
    found = []
    for mount in container.get("volumeMounts") or []:
        source = made[mount["name"]]
        inner = mount.get("subPath") or expand(mount.get("subPathExpr") or "", known)
        if inner:
            if ".." in Path(inner).parts or Path(inner).is_absolute():
                raise ConfigError(f"subPath {inner} must stay inside the volume")
            source = source / inner
            if not source.exists():
                source.mkdir(parents=True)
        found.append(Mount(str(source), mount["mountPath"], bool(mount.get("readOnly")) or mount["name"] in fixed))
    return found


def link(root: Path, wanted: Sequence[Mount]) -> None:
    """Lay the volumes out below ``root`` as links, for systems without mount namespaces."""
    for mount in sorted(wanted, key=lambda one: len(Path(one.target).parts)):
        path = root / mount.target.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # whatever else is there belongs to another volume, and stays
            path.unlink() if path.is_symlink() else path.rmdir()
        path.symlink_to(mount.source)


def plain(path: Path) -> Path:
    """A path of the same directory that a shell takes for one word: rewritten paths end up in commands."""
    if shlex.quote(str(path)) == str(path):
        return path
    link = Path(tempfile.mkdtemp(prefix="aksgpu-"), "root")
    link.symlink_to(path)
    return link


def rewrite(text: str, root: Path, targets: Sequence[str]) -> str:
    """Replace mount paths in a text by their paths below ``root``."""
    if not targets:
        return text
    paths = sorted((target.rstrip("/") for target in targets), key=len, reverse=True)
    pattern = rf"(?<![\w./-])({'|'.join(map(re.escape, paths))})(?![\w.-])"
    return re.sub(pattern, lambda match: str(root) + match.group(1), text)
