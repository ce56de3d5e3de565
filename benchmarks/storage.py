"""Measure how fast files go to a claim and back, beside a floor.

    python benchmarks/storage.py

The floor is what any program needs: ``tar`` writes the same files to a pipe, and ``cat`` reads it into a file that is
unpacked by another ``tar``, all on this machine. ``tar`` through exec is what ``kubectl cp`` does, with this library's
streams: no checksums, no resumption. Times are without the start of the helper pod, which is in the last row. Each
value is the best of three.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import aksgpu
from aksgpu import cluster, local, storage
from aksgpu.cluster import Cluster
from aksgpu.storage.helper_pod import HelperPod
from aksgpu.waiting import Timer

LARGE_BYTES = 200_000_000
SMALL_FILES = 2000
SMALL_BYTES = 5000
ROUNDS = 3
BLOCK = 256 * 1024


def best(action: Callable[[], float]) -> float:
    """Return the shortest of some runs, in seconds."""
    return min(action() for _ in range(ROUNDS))


def seconds(action: Callable[[], object]) -> float:
    """Return how long something takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def tar_alone(source: Path, target: Path) -> float:
    """Copy a directory with tar and cat."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    return seconds(
        lambda: subprocess.run(f"tar -C {source} -cf - . | cat | tar -C {target} -xf -", shell=True, check=True)
    )


def tar_through_exec(aks: Cluster, source: Path) -> float:
    """Send a directory to tar in a helper pod."""
    helper = HelperPod(aks, "data", namespace=None, timer=Timer(None), read_only=False, progress=False)
    with helper:
        helper.connect().close()
        (pod,) = aks.kube.list("Pod", label_selector="aksgpu.dev/storage=helper")
        command = ["sh", "-c", "rm -rf /aksgpu/claim/tar; mkdir /aksgpu/claim/tar; tar -C /aksgpu/claim/tar -xf -"]

        def send() -> None:
            with (
                aks.kube.exec(pod["metadata"]["name"], command, stdin=True) as program,
                subprocess.Popen(["tar", "-C", str(source), "-cf", "-", "."], stdout=subprocess.PIPE) as tar,
            ):
                assert tar.stdout is not None
                while block := tar.stdout.read(BLOCK):
                    program.write(block)
                program.end_input()
                assert program.communicate(timeout=600).returncode == 0

        return seconds(send)


def upload(aks: Cluster, source: Path, name: str) -> float:
    """Upload a directory under a new name."""
    return storage.upload(aks, "data", source, to=f"{name}-{time.time_ns()}", progress=False).seconds


def download(aks: Cluster, name: str, target: Path) -> float:
    """Download a directory to a new place."""
    shutil.rmtree(target, ignore_errors=True)
    return storage.download(aks, "data", name, to=target, progress=False).seconds


def row(what: str, took: float, size: int, floor: float) -> None:
    """Print one line of the table."""
    print(f"{what:<44}{took:>7.2f} s  {size / took / 1e6:>7.1f} MB/s  {took / floor:>5.1f} x tar alone", flush=True)


def measure(aks: Cluster, folder: Path, what: str, source: Path) -> None:
    """Measure one directory."""
    size = sum(path.stat().st_size for path in source.iterdir())
    floor = best(lambda: tar_alone(source, folder / "floor"))
    row(f"{what}: tar alone", floor, size, floor)
    row(f"{what}: tar through exec", best(lambda: tar_through_exec(aks, source)), size, floor)
    row(f"{what}: upload", best(lambda: upload(aks, source, what)), size, floor)
    storage.upload(aks, "data", source, to="copy", progress=False)
    row(f"{what}: download", best(lambda: download(aks, "copy", folder / "back")), size, floor)
    again = best(lambda: storage.upload(aks, "data", source, to="copy", progress=False).seconds)
    row(f"{what}: upload again, nothing to send", again, size, floor)


def main() -> None:
    """Measure and print."""
    with local.laptop() as endpoint, tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        azure = aksgpu.connect(endpoint)
        aks = cluster.create(azure, "bench", resource_group="bench", location="eastus")
        storage.create(aks, "data", size_gb=64)
        for what, count, each in (("200 MB", 1, LARGE_BYTES), (f"{SMALL_FILES} files", SMALL_FILES, SMALL_BYTES)):
            source = folder / "source"
            shutil.rmtree(source, ignore_errors=True)
            source.mkdir()
            for number in range(count):
                (source / str(number)).write_bytes(os.urandom(each))
            measure(aks, folder, what, source)
        whole = best(lambda: seconds(lambda: storage.ls(aks, "data", progress=False)))
        print(f"{'a listing, with the start and end of its pod':<44}{whole:>7.2f} s")


if __name__ == "__main__":
    main()
