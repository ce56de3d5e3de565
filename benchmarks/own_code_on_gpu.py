"""Functions on a real GPU: a value and the GPU's name, an exception from CUDA, and a training that resumes.

    python benchmarks/own_code_on_gpu.py

It needs PyTorch and an NVIDIA GPU on this machine. It starts a laptop AKS with one GPU node, and prints a line for each
check. The exit code is 1 if one failed.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import aksgpu
from aksgpu import cluster, jobs, plugin, storage

STEPS = 60
RATE = 0.05


def multiply(size: int) -> dict[str, Any]:
    """Multiply two matrices on the GPU."""
    import torch

    matrix = torch.ones(size, size, device="cuda")
    return {"gpu": torch.cuda.get_device_name(), "value": float((matrix @ matrix)[0, 0]), "pid": os.getpid()}


def read_outside() -> float:
    """Read a row that a table does not have, which is an error on the GPU itself."""
    import torch

    table = torch.nn.Embedding(4, 8, device="cuda")
    rows = torch.tensor([1, 99], device="cuda")
    return float(table(rows).sum().item())


def train(steps: int) -> dict[str, Any]:
    """Fit a line, with a checkpoint after each step, and go on from the checkpoint of an earlier attempt."""
    import torch

    path = Path(os.environ["AKSGPU_OUT"]) / "checkpoint.pt"
    weight = torch.zeros((), device="cuda", requires_grad=True)
    first = 0
    if path.exists():
        saved = torch.load(path)
        first = saved["step"]
        weight = saved["weight"].cuda().requires_grad_()
    for step in range(first + 1, steps + 1):
        inputs = torch.randn(4096, device="cuda")
        loss = ((weight * inputs - 3 * inputs) ** 2).mean()
        loss.backward()
        with torch.no_grad():
            weight -= RATE * weight.grad
            weight.grad = None
        torch.save({"step": step, "weight": weight.detach().cpu()}, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)
        print(f"step={step} loss={loss.item():.6f}", flush=True)
        time.sleep(0.5)
    return {"first": first + 1, "last": steps, "weight": float(weight), "attempt": os.environ["AKSGPU_ATTEMPT"]}


def check(name: str, passed: bool, detail: object) -> bool:
    """Print the result of one check, and return it."""
    print(f"{'ok    ' if passed else 'FAILED'} {name}: {detail}", flush=True)
    return passed


def check_value(gpu: jobs.Executor) -> bool:
    """Run a function and compare its value."""
    began = time.monotonic()
    found = gpu.submit(multiply, 4096).result("5m")
    seconds = time.monotonic() - began
    good = found["value"] == 4096.0 and found["pid"] != os.getpid()
    return check("a value and the GPU's name come back", good, f"{found} after {seconds:.1f} s")


def check_exception(gpu: jobs.Executor) -> bool:
    """Run a function that fails on the GPU."""
    job = gpu.submit(read_outside)
    error = job.exception("5m")
    cause = f"{error.__cause__}"
    good = error is not None and "CUDA" in str(error) and "return float(table(rows).sum().item())" in cause
    return check("an exception from CUDA comes back", good, f"{type(error).__name__}: {str(error).splitlines()[0]}")


def check_session(gpu: jobs.Executor) -> bool:
    """Run a function twice in a session: the second call finds torch and CUDA loaded."""
    with gpu.session(idle="5m") as session:
        took = []
        found = []
        for _ in range(3):
            began = time.monotonic()
            found.append(session(multiply, 4096))
            took.append(time.monotonic() - began)
    good = len({each["pid"] for each in found}) == 1 and took[1] < 1
    return check("a second call in a session finds CUDA loaded", good, [f"{seconds:.2f} s" for seconds in took])


def check_resumed(aks: Any) -> bool:
    """Delete the pod of a training, and look where the next attempt begins."""
    storage.create(aks, "runs", size_gb=4)
    job = jobs.Executor(aks, gpus=1, out="runs", retries=2).submit(train, STEPS)
    while job.status().phase != "Running" or "step=10 " not in job.logs():
        time.sleep(0.2)
    pod = str(job.pods()["pod"].iloc[-1])
    aks.kube.delete("Pod", pod, job.namespace)
    found = job.result("5m")
    good = found["first"] > 10 and found["last"] == STEPS and abs(found["weight"] - 3) < 0.05
    return check("a training resumes from its checkpoint", good, found)


def main() -> int:
    """Run all checks."""
    with cluster.temporary(aksgpu.connect(), "trial", resource_group="trial", location="westus3") as aks:
        cluster.add_gpu_pool(aks, "gpunp", vm_size="Standard_NC40ads_H100_v5", count=1)
        plugin.install(aks)
        gpu = jobs.Executor(aks, gpus=1)
        results = [check_value(gpu), check_exception(gpu), check_session(gpu), check_resumed(aks)]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
