"""Builds the specification of a container's run, which its shim reads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from aksgpu.common import quantities
from aksgpu.local.images import Image
from aksgpu.local.node import environment, termination_message, volumes
from aksgpu.local.node.pod_context import PodContext
from aksgpu.local.node.pod_network import hostname_path, hosts_path
from aksgpu.local.objects import Object


async def build_run_spec(context: PodContext, container: Object, image: Image, directory: Path) -> dict[str, Any]:
    """Return the specification of a run.

    Args:
        context: the container's pod.
        container: the container in the pod's spec.
        image: the program for its image.
        directory: the directory of the run.

    Raises:
        ConfigError: the container's spec refers to something that does not exist, or is not valid.
        OSError: a directory cannot be created.
    """
    cluster = context.cluster
    gpus = context.node.gpus if image.all_gpus else context.container_gpus(container["name"])
    tools = [cluster.gpu_tools, cluster.tools] if gpus else [cluster.tools]
    pod = context.pod_with_addresses()
    own_env = await environment.container_environment(cluster.objects, pod, container, context.node.object)
    hostname = context.hostname
    common_env = environment.common_environment(hostname, tools, gpus, context.node.driver_error_file)
    mounts = volumes.container_mounts(container, pod["spec"].get("volumes") or [], context.volumes, own_env)
    mounts += _pod_files(context, mounts)
    mounts += _termination_log(container, mounts, directory)
    work = directory / "work"
    work.mkdir(parents=True, exist_ok=True)
    cwd = container.get("workingDir") or image.directory
    if cwd and not _is_directory(cwd) and not any(mount.target == cwd for mount in mounts):
        mounts.append(volumes.Mount(str(work), cwd, False))  # the directory exists only in the real image
    spec: dict[str, Any] = {
        "argv": environment.command_line(container, image, own_env),
        "env": {**common_env, **({"TERM": "xterm"} if container.get("tty") else {}), **own_env},
        "cwd": cwd or str(work),
        "memory_limit": _memory_limit(container),
        "mounts": mounts,
        "stdin": bool(container.get("stdin")),
        "stdin_once": bool(container.get("stdinOnce")),
        "tty": bool(container.get("tty")),
        "rewritten": [],
        "hostname": hostname if cluster.mount_namespaces else "",
    }
    if mounts and not cluster.mount_namespaces:
        spec |= _rewrite_paths(spec, own_env, directory / "root")
    return spec


def _pod_files(context: PodContext, mounts: list[volumes.Mount]) -> list[volumes.Mount]:
    """Return the mounts of the pod's own files in ``/etc``, unless a volume is mounted there."""
    if not context.cluster.mount_namespaces:
        return []
    own = {"/etc/hosts": hosts_path(context.directory), "/etc/hostname": hostname_path(context.directory)}
    taken = {mount.target.rstrip("/") for mount in mounts}
    return [volumes.Mount(str(path), target, False) for target, path in own.items() if target not in taken]


def _termination_log(container: Object, mounts: list[volumes.Mount], directory: Path) -> list[volumes.Mount]:
    """Create the file for the termination message of a run, and return its mount."""
    target = container.get("terminationMessagePath")
    if not target:
        return []
    path = directory / termination_message.FILE_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    path.chmod(0o666)
    target = os.path.join("/", target)  # noqa: PTH118, as Kubernetes makes a path absolute
    return [] if target in {mount.target for mount in mounts} else [volumes.Mount(str(path), target, False)]


def _rewrite_paths(spec: dict[str, Any], own_env: dict[str, str], root: Path) -> dict[str, Any]:
    """Return the fields in which mount paths are replaced with paths below ``root``."""
    volumes.create_links(root, spec["mounts"])
    targets = [mount.target for mount in spec["mounts"]]

    def rewrite(text: str) -> str:
        return volumes.rewrite_paths(text, root, targets)

    rewritten_env = {name: rewrite(value) for name, value in own_env.items()}
    return {
        "argv": [rewrite(word) for word in spec["argv"]],
        "env": {**spec["env"], **rewritten_env, "AKSGPU_ROOT": str(root)},
        "cwd": rewrite(spec["cwd"]),
        "mounts": [],
        "rewritten": targets,
    }


def _memory_limit(container: Object) -> int | None:
    """Return the memory limit in bytes, or None without one."""
    limit = ((container.get("resources") or {}).get("limits") or {}).get("memory")
    return int(quantities.parse(limit)) if limit else None


def _is_directory(path: str) -> bool:
    # Path.is_dir() raises PermissionError below directories of other users, such as /root.
    return os.path.isdir(path)  # noqa: PTH112
