"""Replaces ``nvidia-smi`` in containers with a GPU.

It shows the container's GPUs as the table of the real program, as a list (``-L``) or as selected fields
(``--query-gpu``), and says whether they are simulated. With real GPUs, it runs the real program if this machine has it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

from aksgpu.local.images import driver_problem, given_gpus

DRIVER = "550.144.03"
CUDA = "12.4"
NOTE = "SIMULATED: this machine has no such GPU. The laptop AKS shows the GPU of the node's VM size."

TABLE = """\
{now}
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI {driver:<22} Driver Version: {driver:<14} CUDA Version: {cuda:<8} |
|-----------------------------------------+------------------------+----------------------+
| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |
| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |
|                                         |                        |               MIG M. |
|=========================================+========================+======================|"""
ROW = """\
| {gpu[index]:>3}  {gpu[name]:<25.25}       On | {gpu[pci.bus_id]:>16}   Off |                    0 |
| N/A   N/A    P8              N/A /  N/A | {memory:>22} |      0%      Default |
|                                         |                        |                  N/A |
+-----------------------------------------+------------------------+----------------------+"""


def table(gpus: list[dict[str, str]]) -> str:
    """Return the table that ``nvidia-smi`` prints without arguments."""
    lines = [TABLE.format(now=time.strftime("%a %b %e %H:%M:%S %Y"), driver=DRIVER, cuda=CUDA)]
    for gpu in gpus:
        lines.append(ROW.format(gpu=gpu, memory=f"0MiB / {gpu['memory.total'].replace(' ', ''):>9}"))
    return "\n".join(lines)


def query(gpus: list[dict[str, str]], fields: list[str], style: list[str]) -> str:
    """Return comma-separated values, as ``--query-gpu`` prints them."""
    lines = [", ".join(gpu.get(field, "[N/A]") for field in fields) for gpu in gpus]
    if "nounits" in style:
        lines = [line.replace(" MiB", "").replace(" %", "") for line in lines]
    return "\n".join(lines if "noheader" in style else [", ".join(fields), *lines])


def _fields(index: int, gpu: dict[str, Any]) -> dict[str, str]:
    """Return the fields of a GPU that ``--query-gpu`` can select."""
    memory = f"{gpu['memory_mib']} MiB"
    name = gpu["model"] + (" SIMULATED" if gpu["simulated"] else "")
    return {
        "index": str(index),
        "name": name,
        "uuid": gpu["uuid"],
        "driver_version": DRIVER,
        "pci.bus_id": gpu["pci_bus_id"],
        "compute_cap": gpu["compute_capability"],
        "memory.total": memory,
        "memory.used": "0 MiB",
        "memory.free": memory,
        "utilization.gpu": "0 %",
    }


def _only_own(gpus: list[dict[str, Any]]) -> list[str]:
    """Return the option that leaves the other GPUs of this machine out of a query, as in a container on a real node."""
    is_query = any(word.startswith("--query-gpu") for word in sys.argv)
    return ["-i", ",".join(gpu["uuid"] for gpu in gpus)] if gpus and is_query else []


def main() -> int:
    """Print the container's GPUs, and return the exit code of the real program."""
    problem = driver_problem()
    if problem:
        print(f"Failed to initialize NVML: {problem}")
        return 18
    found = given_gpus()
    simulated = any(gpu["simulated"] for gpu in found)
    real_program = os.environ.get("AKSGPU_REAL_SMI")
    if real_program and not simulated:
        os.execv(real_program, ["nvidia-smi", *_only_own(found), *sys.argv[1:]])
    parser = argparse.ArgumentParser(prog="nvidia-smi", description="Shows the GPUs of this container.")
    parser.add_argument("-L", "--list-gpus", action="store_true")
    parser.add_argument("--query-gpu", default="")
    parser.add_argument("--format", default="csv")
    options = parser.parse_args()
    if not found:
        print("No devices were found")
        return 6
    gpus = [_fields(index, gpu) for index, gpu in enumerate(found)]
    if options.list_gpus:
        print("\n".join(f"GPU {gpu['index']}: {gpu['name']} (UUID: {gpu['uuid']})" for gpu in gpus))
    elif options.query_gpu:
        print(query(gpus, options.query_gpu.split(","), options.format.split(",")))
    else:
        print(table(gpus))
    if simulated:
        print(NOTE, file=sys.stderr if options.query_gpu or options.list_gpus else sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
