"""Copy data to the cluster, train with checkpoints, lose an attempt, continue, and copy the checkpoint back.

    python examples/checkpoints.py [DIRECTORY]

It runs on the laptop AKS. With AKSGPU_TARGET=azure it runs in your Azure subscription, where it costs money.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import aksgpu
from aksgpu import cluster, jobs, plugin, storage


def train(numbers: str, epochs: int) -> float:
    """Compute a mean step by step, with a checkpoint after each epoch. The first attempt ends in the middle."""
    values = [float(line) for line in Path(numbers).read_text().split()]
    checkpoint = Path(os.environ["AKSGPU_OUT"], "checkpoint.json")
    state = json.loads(checkpoint.read_text()) if checkpoint.exists() else {"epoch": 0, "mean": 0.0}
    print(f"begins at epoch {state['epoch']}")
    for epoch in range(state["epoch"], epochs):
        for value in values:
            state["mean"] += 0.01 * (value - state["mean"])
        state["epoch"] = epoch + 1
        checkpoint.write_text(json.dumps(state))
        if os.environ["AKSGPU_ATTEMPT"] == "0" and state["epoch"] == epochs // 2:
            os._exit(1)
    return round(state["mean"], 1)


def main(directory: Path) -> None:
    """Run the example, and write the checkpoint to a directory of this machine."""
    azure = aksgpu.connect()
    with cluster.temporary(azure, "checkpoints", resource_group="checkpoints", location="eastus") as aks:
        cluster.add_gpu_pool(aks, "gpunp", vm_size="Standard_NC4as_T4_v3", count=1)
        plugin.install(aks)
        print(storage.create(aks, "data", size_gb=16))
        with tempfile.TemporaryDirectory() as folder:
            numbers = Path(folder, "numbers.txt")
            numbers.write_text("\n".join(str(number % 7) for number in range(1000)))
            print(storage.upload(aks, "data", numbers))
        gpu = jobs.Executor(aks, gpus=1, volumes={"/data": "data"}, out="data", retries=1)
        job = gpu.submit(train, "/data/numbers.txt", epochs=10)
        print(job.result())
        print(job.logs())
        print(job.download("checkpoint.json", to=directory / "checkpoint.json"))
        job.delete()
        storage.delete(aks, "data")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path())
