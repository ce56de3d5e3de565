"""A training on a real GPU, with its curve, the GPU's utilization and the cost on one axis of time.

    python benchmarks/gpu_samples.py [--seconds 180] [--vm-size Standard_NC4as_T4_v3] [--out DIRECTORY]

It starts a laptop AKS with one GPU node, runs a function in a pod with ``jobs.Executor``, and writes ``gpu.png``,
``gpu.pdf``, ``gpu.csv``, ``metrics.csv`` and ``facts.json``. With PyTorch and a GPU of this machine, the function
trains on the GPU. Without PyTorch it trains with NumPy; without a GPU, the laptop's is simulated, and there are no
samples. The price is that of the VM size, whatever GPU this machine has.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import aksgpu
from aksgpu import cluster, jobs, plugin, runs

WIDTH = 6144
BATCH = 8192
INPUTS = 256
CLASSES = 10


def train(seconds: float) -> dict[str, Any]:
    """Train a network on the labels of another network, and return what it has reached."""
    try:
        import torch
    except ImportError:
        return train_with_numpy(seconds)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"Using {device} device", flush=True)
    width = WIDTH if device == "cuda" else 256
    batch = BATCH if device == "cuda" else 512
    torch.manual_seed(0)

    def network(hidden: int) -> Any:
        layers = [torch.nn.Linear(INPUTS, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, hidden)]
        return torch.nn.Sequential(*layers, torch.nn.ReLU(), torch.nn.Linear(hidden, CLASSES)).to(device)

    teacher = network(64)
    student = network(width)
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-4)
    began = time.monotonic()
    epoch = 0
    step = 0
    loss_value = accuracy = float("nan")
    while time.monotonic() - began < seconds:
        epoch += 1
        epoch_began = time.monotonic()
        while time.monotonic() - epoch_began < min(5.0, seconds / 10):
            inputs = torch.randn(batch, INPUTS, device=device)
            with torch.no_grad():
                labels = teacher(inputs).argmax(dim=1)
            scores = student(inputs)
            loss = torch.nn.functional.cross_entropy(scores, labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
            if step % 20 == 0:
                loss_value = loss.item()
        accuracy = (scores.argmax(dim=1) == labels).float().mean().item()
        print(f"epoch {epoch} step {step} loss={loss_value:.4f} accuracy={accuracy:.4f}", flush=True)
        time.sleep(min(1.0, seconds / 60))  # as a program that writes a checkpoint
    name = torch.cuda.get_device_name() if device == "cuda" else "none"
    return {"torch": torch.__version__, "device": device, "gpu": name, "steps": step, "accuracy": accuracy}


def train_with_numpy(seconds: float) -> dict[str, Any]:
    """Do the same with NumPy, on the CPU."""
    import numpy as np

    print("Using cpu device", flush=True)
    random = np.random.default_rng(0)
    teacher = random.normal(size=(INPUTS, CLASSES))
    weights = np.zeros((INPUTS, CLASSES))
    began = time.monotonic()
    step = 0
    accuracy = float("nan")
    while time.monotonic() - began < seconds:
        inputs = random.normal(size=(512, INPUTS))
        labels = (inputs @ teacher).argmax(axis=1)
        scores = inputs @ weights
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        loss = -np.log(shares[np.arange(512), labels] + 1e-12).mean()
        shares[np.arange(512), labels] -= 1
        weights -= 0.5 * inputs.T @ shares / 512
        step += 1
        if step % 200 == 0:
            accuracy = float((scores.argmax(axis=1) == labels).mean())
            print(f"step {step} loss={loss:.4f} accuracy={accuracy:.4f}", flush=True)
            time.sleep(0.2)
    return {"torch": None, "device": "cpu", "gpu": "none", "steps": step, "accuracy": accuracy}


def main() -> None:
    """Run the training, and write its files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--vm-size", default="Standard_NC4as_T4_v3")
    parser.add_argument("--location", default="eastus")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "gpu-samples")))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with cluster.temporary(aksgpu.connect(), "trial", resource_group="trial", location=options.location) as aks:
        cluster.add_gpu_pool(aks, "gpunp", vm_size=options.vm_size, count=1)
        plugin.install(aks)
        job = jobs.Executor(aks, gpus=1).submit(train, options.seconds)
        began = time.monotonic()
        while not job.done():
            newest = job.gpu().tail(1)
            print(
                newest.to_string(index=False, header=False) if len(newest) else job.gpu().attrs["sources"], flush=True
            )
            time.sleep(min(15.0, options.seconds / 4))
        print(f"result after {time.monotonic() - began:.0f} s: {job.result()}")
        samples = job.gpu()
        job.plot("loss", "accuracy", gpu=True, title="A PyTorch training").savefig(options.out / "gpu.png")
        job.plot("loss", "accuracy", gpu=True, title="A PyTorch training").savefig(options.out / "gpu.pdf")
        samples.to_csv(options.out / "gpu.csv", index=False)
        job.metrics().to_csv(options.out / "metrics.csv", index=False)
        (options.out / "facts.json").write_text(json.dumps(job.facts(), indent=1))
        print(f"{len(samples)} samples from {samples.attrs['sources']}")
        if len(samples):
            print(samples.describe().to_string())
        job.delete()
    print(f"after the deletion: {len(runs.get(job.name).gpu())} samples in the history")


if __name__ == "__main__":
    main()
