"""Stands in for ``nvidia-smi`` in containers with a GPU.

It shows the container's GPUs in the real one's table, as a list (``-L``) or as chosen fields (``--query-gpu``), and
says plainly when they are simulated. Where they are real and this machine has the real program, that one runs instead.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

from aksgpu.local.images import driver_problem

DRIVER, CUDA = "550.144.03", "12.4"
NOTE = "SIMULATED: this machine has no such GPU; the laptop AKS shows what the node's VM size would have."

TABLE = """\
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI {driver:<22} Driver Version: {driver:<14} CUDA Version: {cuda:<8} |
|-----------------------------------------+------------------------+----------------------+
| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |
| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |
|                                         |                        |               MIG M. |
|=========================================+========================+======================|"""
GPU = """\
| {index:>3}  {model:<25} {persistence:>8} | {bus:>16} {display:>5} | {ecc:>20} |
| N/A   N/A    P8              N/A /  N/A | {memory:>22} | {use:>7}      Default |
|                                         |                        |                  N/A |
+-----------------------------------------+------------------------+----------------------+"""
PROCESSES = """\

+-----------------------------------------------------------------------------------------+
| Processes:                                                                              |
|  GPU   GI   CI        PID   Type   Process name                              GPU Memory |
|        ID   ID                                                               Usage      |
|=========================================================================================|
|  No running processes found                                                             |
+-----------------------------------------------------------------------------------------+"""


def table(gpus: list[dict[str, Any]]) -> str:
    """The table that ``nvidia-smi`` shows without arguments."""
    head = [time.strftime("%a %b %e %H:%M:%S %Y"), TABLE.format(driver=DRIVER, cuda=CUDA)]
    rows = [
        GPU.format(
            index=number,
            model=_model(gpu)[:25],
            persistence="On",
            bus=gpu["pci_bus_id"],
            display="Off",
            ecc="0",
            memory=f"0MiB / {gpu['memory_mib']:>6}MiB",
            use="0%",
        )
        for number, gpu in enumerate(gpus)
    ]
    return "\n".join([*head, *rows, PROCESSES])


def _model(gpu: dict[str, Any]) -> str:
    return f"{gpu['model']} SIMULATED" if gpu["simulated"] else str(gpu["model"])


def query(gpus: list[dict[str, Any]], fields: list[str], style: list[str]) -> str:
    """Comma separated values, as ``--query-gpu`` gives them."""
    units = "nounits" not in style
    lines = [] if "noheader" in style else [", ".join(fields)]
    for number, gpu in enumerate(gpus):
        values = {
            "index": str(number),
            "name": _model(gpu),
            "gpu_name": _model(gpu),
            "uuid": gpu["uuid"],
            "gpu_uuid": gpu["uuid"],
            "count": str(len(gpus)),
            "driver_version": DRIVER,
            "pci.bus_id": gpu["pci_bus_id"],
            "compute_cap": gpu["compute_capability"],
            "memory.total": f"{gpu['memory_mib']}{' MiB' if units else ''}",
            "memory.used": "0 MiB" if units else "0",
            "memory.free": f"{gpu['memory_mib']}{' MiB' if units else ''}",
            "utilization.gpu": "0 %" if units else "0",
        }
        lines.append(", ".join(values.get(field, "[N/A]") for field in fields))
    return "\n".join(lines)


def main() -> int:
    """Show the container's GPUs; the exit code is that of the real program."""
    if problem := driver_problem():
        print(f"Failed to initialize NVML: {problem}")
        return 18
    gpus: list[dict[str, Any]] = json.loads(os.environ.get("AKSGPU_GPUS") or "[]")
    simulated = any(gpu["simulated"] for gpu in gpus)
    real = os.environ.get("AKSGPU_REAL_SMI")
    if real and not simulated:
        os.execv(real, ["nvidia-smi", *sys.argv[1:]])
    parser = argparse.ArgumentParser(prog="nvidia-smi", description="Shows the GPUs of this container.")
    parser.add_argument("-L", "--list-gpus", action="store_true")
    parser.add_argument("--query-gpu", default="")
    parser.add_argument("--format", default="csv")
    options = parser.parse_args()
    if not gpus:
        print("No devices were found")
        return 6
    if options.list_gpus:
        print("\n".join(f"GPU {n}: {_model(gpu)} (UUID: {gpu['uuid']})" for n, gpu in enumerate(gpus)))
    elif options.query_gpu:
        print(query(gpus, options.query_gpu.split(","), options.format.split(",")))
    else:
        print(table(gpus))
    if simulated:
        print(NOTE, file=sys.stderr if options.query_gpu or options.list_gpus else sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
