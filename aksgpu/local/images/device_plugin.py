"""Stands in for NVIDIA's device plugin: tells the node agent which GPUs its node has.

As the kubelet's plugins do, it registers at ``/var/lib/kubelet/device-plugins/kubelet.sock``, though not in gRPC: it
stays connected and sends a line of JSON, ``{"resource_name", "devices": [{"id", "health"}]}``, at first and for each
change. The devices are lost when the connection is.

As the real one it registers again when ``kubelet.sock`` is made anew, ends with an error on a node without GPUs, and
with ``FAIL_ON_INIT_ERROR=false`` stays there running and offers nothing. The GPUs are those in ``AKSGPU_GPUS``. Where
they are cut up (MIG), ``MIG_STRATEGY`` decides what is offered: ``none``, NVIDIA's default, whole GPUs; ``single`` the
slices under the name of a GPU; ``mixed`` the slices under a name of their own. While the driver does not work, all
devices are unhealthy.
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
LOOK_SECONDS = 0.2
NO_GPUS = (
    "Detected non-NVML platform: could not load NVML library: libnvidia-ml.so.1: cannot open shared object file: "
    "No such file or directory",
    "If this is a GPU node, did you configure the NVIDIA Container Toolkit?",
    "If this is not a GPU node, you should set up a toleration or nodeSelector to only deploy this plugin on GPU nodes",
)


def offered(gpus: list[dict[str, Any]], strategy: str) -> tuple[str, list[str]]:
    """The resource that a plugin of this MIG strategy offers, and the ids of its devices."""
    slices = [gpu for gpu in gpus if gpu["mig"]]
    if not slices or strategy == "none":
        return RESOURCE, [gpu["uuid"] for gpu in gpus if not gpu["mig"]]
    name = RESOURCE if strategy == "single" else f"nvidia.com/mig-{slices[0]['mig']}"
    return name, [gpu["uuid"] for gpu in slices]


def log(text: str, level: str = "I") -> None:
    """Log as the real plugin does, with klog."""
    stamp = datetime.now().strftime("%m%d %H:%M:%S.%f")
    print(f"{level}{stamp} {os.getpid():7d} main.go] {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def short(path: Path) -> Iterator[str]:
    """A path below 100 characters to a socket, as the system demands, however deep it lies."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def listen(path: Path) -> socket.socket:
    """A listening Unix socket, in place of an old one."""
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX)
    with short(path) as name:
        server.bind(name)
    server.listen()
    server.setblocking(False)
    return server


async def offer(kubelet: Path, resource: str, ids: list[str]) -> None:
    """Offer devices for ever, whenever there is a node agent to take them."""
    while True:
        with contextlib.suppress(OSError):  # there is none at the moment
            with short(kubelet) as name:
                reader, writer = await asyncio.open_unix_connection(name)
            with contextlib.closing(writer):
                log(f"Registered device plugin for '{resource}' with Kubelet")
                await _tell(reader, writer, resource, ids)
        await asyncio.sleep(LOOK_SECONDS)


async def _tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, resource: str, ids: list[str]) -> None:
    """Send the devices, and again whenever their health changes, until the node agent hangs up."""
    told: str | None = None
    gone = asyncio.ensure_future(reader.read())
    while not gone.done():
        if (problem := driver_problem()) != told:
            told = problem
            health = "Unhealthy" if problem else "Healthy"
            message = {"resource_name": resource, "devices": [{"id": uuid, "health": health} for uuid in ids]}
            writer.write(json.dumps(message).encode() + b"\n")
            if problem:
                log(f"Failed to initialize NVML: {problem}; all devices of '{resource}' go unhealthy", "E")
        await asyncio.wait([gone], timeout=LOOK_SECONDS)
    await gone


def main() -> int:
    """Run the plugin until it is killed; the exit code is that of a plugin without GPUs."""
    parser = argparse.ArgumentParser(prog="nvidia-device-plugin", description="Offers a node's GPUs to Kubernetes.")
    default = os.environ.get("FAIL_ON_INIT_ERROR", "true")
    parser.add_argument("--fail-on-init-error", nargs="?", const="true", default=default)
    parser.add_argument("--mig-strategy", default=os.environ.get("MIG_STRATEGY", "none"))
    options, _ = parser.parse_known_args()
    gpus = given_gpus()
    problem = driver_problem()
    if gpus and not problem:
        kind = "simulated" if gpus[0]["simulated"] else "NVML"
        log(f"Detected {kind} devices: " + ", ".join(f"{gpu['model']} ({gpu['uuid']})" for gpu in gpus))
        kubelet = Path(os.environ.get("AKSGPU_ROOT", "") + "/var/lib/kubelet/device-plugins/kubelet.sock")
        asyncio.run(offer(kubelet, *offered(gpus, options.mig_strategy)))
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
