"""Replaces NVIDIA's device plugin: registers a node's GPUs with the node agent.

It connects to ``/var/lib/kubelet/device-plugins/kubelet.sock`` as plugins of a kubelet do, but does not use gRPC. It
sends a line of JSON, ``{"resource_name", "devices": [{"id", "health"}], "max_request"}``, first and after each change,
and keeps the connection open. A container may request at most ``max_request`` devices; null means no limit. The devices
are lost when the connection closes.

Like the real plugin, it registers again if ``kubelet.sock`` is created again. On a node without GPUs, it ends with an
error. With ``FAIL_ON_INIT_ERROR=false``, it keeps running and offers nothing. With MIG, ``MIG_STRATEGY`` selects what
it offers: ``none``, NVIDIA's default, offers whole GPUs, ``single`` offers slices under the name of a GPU, and
``mixed`` offers slices under their own names. A configuration file (``CONFIG_FILE``) with time-slicing offers each
device several times. All devices are unhealthy while the driver is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from aksgpu.local.images import driver_problem, given_gpus

RESOURCE = "nvidia.com/gpu"
REPLICA = "::"
"""Comes between the id of a shared GPU and the number of its replica."""
_FLAGS = {"migStrategy"}
"""The flags in a configuration file that have an effect."""
POLL_SECONDS = 0.2
NO_GPUS = (
    "Detected non-NVML platform: could not load NVML library: libnvidia-ml.so.1: cannot open shared object file: "
    "No such file or directory",
    "If this is a GPU node, did you configure the NVIDIA Container Toolkit?",
    "If this is not a GPU node, you should set up a toleration or nodeSelector to only deploy this plugin on GPU nodes",
)


def offered_devices(gpus: list[dict[str, Any]], strategy: str) -> tuple[str, list[str]]:
    """Return the resource that a plugin with this MIG strategy offers, and the ids of its devices."""
    slices = [gpu for gpu in gpus if gpu["mig"]]
    if not slices or strategy == "none":
        return RESOURCE, [gpu["uuid"] for gpu in gpus if not gpu["mig"]]
    name = RESOURCE if strategy == "single" else f"nvidia.com/mig-{slices[0]['mig']}"
    return name, [gpu["uuid"] for gpu in slices]


def shared_devices(resource: str, ids: list[str], config: dict[str, Any]) -> tuple[str, list[str]]:
    """Return the resource and the ids that a plugin offers with the time slicing of its configuration file."""
    slicing = (config.get("sharing") or {}).get("timeSlicing") or {}
    for row in slicing.get("resources") or ():
        if row.get("name") == resource:
            replicas = int(row.get("replicas") or 1)
            renamed = bool(row.get("rename")) or slicing.get("renameByDefault")
            name = (row.get("rename") or f"{resource}.shared") if renamed else resource
            return name, [f"{uuid}{REPLICA}{number}" for uuid in ids for number in range(replicas)]
    return resource, ids


def max_request(ids: list[str], config: dict[str, Any]) -> int | None:
    """Return how many of these devices a container may request; None without a limit."""
    slicing = (config.get("sharing") or {}).get("timeSlicing") or {}
    is_shared = any(REPLICA in uuid for uuid in ids)
    return 1 if is_shared and slicing.get("failRequestsGreaterThanOne") else None


def read_config(path: str) -> dict[str, Any]:
    """Return the configuration in a file; empty without one."""
    if not path:
        return {}
    import yaml  # only plugins with a file need it

    config: dict[str, Any] = yaml.safe_load(Path(os.environ.get("AKSGPU_ROOT", "") + path).read_text()) or {}
    if (config.get("sharing") or {}).get("mps"):
        log("sharing.mps has no effect on the laptop AKS", "W")
    for name in sorted((config.get("flags") or {}).keys() - _FLAGS):
        log(f"flags.{name} has no effect on the laptop AKS", "W")
    return config


def log(text: str, level: str = "I") -> None:
    """Log in the format of the real plugin (klog)."""
    timestamp = datetime.now().strftime("%m%d %H:%M:%S.%f")
    print(f"{level}{timestamp} {os.getpid():7d} main.go] {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Yield a short path of the same socket. The system limits the length to about 100 characters."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def listen(path: Path) -> socket.socket:
    """Return a listening Unix socket. It replaces a socket at this path."""
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX)
    with short_path(path) as name:
        server.bind(name)
    server.listen()
    server.setblocking(False)
    return server


async def offer(kubelet: Path, resource: str, ids: list[str], limit: int | None) -> None:
    """Register devices with the node agent, and again whenever it restarts.

    Args:
        kubelet: the node agent's socket.
        resource: the name of the resource.
        ids: the ids of the devices.
        limit: how many devices a container may request; None without a limit.
    """
    while True:
        with contextlib.suppress(OSError):  # the node agent is not running
            with short_path(kubelet) as name:
                reader, writer = await asyncio.open_unix_connection(name)
            with contextlib.closing(writer):
                log(f"Registered device plugin for '{resource}' with Kubelet")
                await _send_devices(reader, writer, resource, ids, limit)
        await asyncio.sleep(POLL_SECONDS)


async def _send_devices(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, resource: str, ids: list[str], limit: int | None
) -> None:
    """Send the devices, and again when their health changes, until the node agent closes the connection."""
    last_problem: str | None = None
    closed = asyncio.ensure_future(reader.read())
    while not closed.done():
        problem = driver_problem()
        if problem != last_problem:
            last_problem = problem
            health = "Unhealthy" if problem else "Healthy"
            devices = [{"id": uuid, "health": health} for uuid in ids]
            message = {"resource_name": resource, "devices": devices, "max_request": limit}
            writer.write(json.dumps(message).encode() + b"\n")
            if problem:
                log(f"Failed to initialize NVML: {problem}; all devices of '{resource}' go unhealthy", "E")
        await asyncio.wait([closed], timeout=POLL_SECONDS)
    await closed


def main() -> int:
    """Run the plugin until it is killed. Without GPUs, return an exit code."""
    parser = argparse.ArgumentParser(prog="nvidia-device-plugin", description="Offers a node's GPUs to Kubernetes.")
    default = os.environ.get("FAIL_ON_INIT_ERROR", "true")
    parser.add_argument("--fail-on-init-error", nargs="?", const="true", default=default)
    parser.add_argument("--mig-strategy", default=os.environ.get("MIG_STRATEGY", "none"))
    parser.add_argument("--config-file", default=os.environ.get("CONFIG_FILE", ""))
    options, _ = parser.parse_known_args()
    config = read_config(options.config_file)
    strategy = (config.get("flags") or {}).get("migStrategy") or options.mig_strategy
    gpus = given_gpus()
    problem = driver_problem()
    if gpus and not problem:
        kind = "simulated" if gpus[0]["simulated"] else "NVML"
        log(f"Detected {kind} devices: " + ", ".join(f"{gpu['model']} ({gpu['uuid']})" for gpu in gpus))
        kubelet = Path(os.environ.get("AKSGPU_ROOT", "") + "/var/lib/kubelet/device-plugins/kubelet.sock")
        resource, ids = shared_devices(*offered_devices(gpus, strategy), config)
        asyncio.run(offer(kubelet, resource, ids, max_request(ids, config)))
    for text in [f"Failed to initialize NVML: {problem}"] if problem else NO_GPUS:
        log(text, "E")
    if options.fail_on_init_error.lower() not in ("false", "0", "f"):
        log("error starting plugins: error creating plugin manager: invalid device discovery strategy", "E")
        return 1
    log("No devices found. Waiting indefinitely.")
    while True:
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())
