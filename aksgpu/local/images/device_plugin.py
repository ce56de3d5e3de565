"""Stands in for NVIDIA's device plugin: tells the node agent which GPUs its node has.

It speaks the kubelet's device plugin protocol with the same calls over the same sockets below
``/var/lib/kubelet/device-plugins``, but in lines of JSON instead of gRPC:

- to ``kubelet.sock``: ``{"method": "Register", "version", "endpoint", "resource_name"}``, answered by ``{}``;
- on its own socket: ``{"method": "ListAndWatch"}``, answered by ``{"devices": [{"id", "health"}]}`` for each change;
  ``{"method": "Allocate", "device_ids": [...]}``, answered by ``{}``: the node agent knows what a container needs.

As the real one it starts over when ``kubelet.sock`` is made anew, ends with an error on a node without GPUs, and with
``FAIL_ON_INIT_ERROR=false`` stays there running and offers nothing. The GPUs are those in ``AKSGPU_GPUS``. Where they
are cut up (MIG), ``MIG_STRATEGY`` decides what is offered: ``none``, NVIDIA's default, whole GPUs; ``single`` the
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

from aksgpu.local.images import driver_problem

RESOURCE = "nvidia.com/gpu"
ENDPOINT = "nvidia-gpu.sock"
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


async def connect(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to a Unix socket."""
    with short(path) as name:
        return await asyncio.open_unix_connection(name)


async def call(path: Path, request: dict[str, Any], timeout: float = 10.0) -> dict[str, Any]:
    """Send one request and return its answer."""
    async with asyncio.timeout(timeout):
        reader, writer = await connect(path)
        try:
            writer.write(json.dumps(request).encode() + b"\n")
            answer: dict[str, Any] = json.loads(await reader.readline())
        finally:
            writer.close()
    if "error" in answer:
        raise OSError(answer["error"])
    return answer


class Plugin:
    """Serves the devices, and registers with the node agent."""

    def __init__(self, directory: Path, resource: str, ids: list[str]) -> None:
        self._directory, self._resource, self._ids = directory, resource, ids

    async def run(self) -> None:
        """Serve for ever."""
        while True:
            server = await asyncio.start_unix_server(self._serve, sock=listen(self._directory / ENDPOINT))
            log(f"Starting to serve '{self._resource}' on {self._directory / ENDPOINT}")
            born = self._born()
            await self._register()
            while self._born() == born:
                await asyncio.sleep(LOOK_SECONDS)
            log("inotify: kubelet.sock created, restarting.")
            server.close()

    async def _register(self) -> None:
        request = {"method": "Register", "version": "v1beta1", "endpoint": ENDPOINT, "resource_name": self._resource}
        try:
            await call(self._directory / "kubelet.sock", request)
            log(f"Registered device plugin for '{self._resource}' with Kubelet")
        except (OSError, ValueError) as error:
            log(f"Could not register device plugin: {error}", "E")

    def _born(self) -> tuple[int, int] | None:
        try:
            stat = (self._directory / "kubelet.sock").stat()
        except FileNotFoundError:
            return None
        return stat.st_ino, stat.st_mtime_ns

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if json.loads(await reader.readline())["method"] == "ListAndWatch":
                await self._tell(reader, writer)
            else:
                writer.write(b"{}\n")
                await writer.drain()
        except (OSError, ValueError, KeyError) as error:
            log(f"bad request: {error!r}", "E")
        finally:
            writer.close()

    async def _tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send the devices, and again whenever their health changes, until the node agent hangs up."""
        told: str | None = None
        gone = asyncio.ensure_future(reader.read())
        while not gone.done():
            if told != (problem := driver_problem()):
                told = problem
                health = "Unhealthy" if problem else "Healthy"
                devices = [{"id": uuid, "health": health} for uuid in self._ids]
                writer.write(json.dumps({"devices": devices}).encode() + b"\n")
                if problem:
                    log(f"Failed to initialize NVML: {problem}; all devices of '{self._resource}' go unhealthy", "E")
            await asyncio.wait([gone], timeout=LOOK_SECONDS)


def main() -> int:
    """Run the plugin until it is killed; the exit code is that of a plugin without GPUs."""
    parser = argparse.ArgumentParser(prog="nvidia-device-plugin", description="Offers a node's GPUs to Kubernetes.")
    default = os.environ.get("FAIL_ON_INIT_ERROR", "true")
    parser.add_argument("--fail-on-init-error", nargs="?", const="true", default=default)
    parser.add_argument("--mig-strategy", default=os.environ.get("MIG_STRATEGY", "none"))
    options, _ = parser.parse_known_args()
    gpus = json.loads(os.environ.get("AKSGPU_GPUS") or "[]")
    problem = driver_problem()
    if gpus and not problem:
        kind = "simulated" if gpus[0]["simulated"] else "NVML"
        log(f"Detected {kind} devices: " + ", ".join(f"{gpu['model']} ({gpu['uuid']})" for gpu in gpus))
        directory = Path(os.environ.get("AKSGPU_ROOT", "") + "/var/lib/kubelet/device-plugins")
        asyncio.run(Plugin(directory, *offered(gpus, options.mig_strategy)).run())
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
