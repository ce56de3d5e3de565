"""Train with two learning rates, delete the Jobs, and compare the runs.

    python examples/compare_runs.py [picture.png]

It runs on the laptop AKS. With AKSGPU_TARGET=azure it runs in your Azure subscription, where it costs money.
"""

import sys

import aksgpu
from aksgpu import cluster, jobs, runs


def train(lr, epochs=30):
    """Fit a line by gradient descent, and return its last loss."""
    import numpy as np

    random = np.random.default_rng(0)
    x = random.uniform(-1, 1, size=200)
    y = 3 * x + 1 + random.normal(scale=0.1, size=200)
    slope = 0.0
    offset = 0.0
    for epoch in range(1, epochs + 1):
        error = slope * x + offset - y
        slope -= lr * 2 * np.mean(error * x)
        offset -= lr * 2 * np.mean(error)
        loss = float(np.mean(error**2))
        print(f"epoch {epoch} loss={loss:.5f}")
    return loss


with cluster.temporary(aksgpu.connect(), "compare", resource_group="compare", location="eastus") as aks:
    executor = jobs.Executor(aks, gpus=0, packages=["numpy"])
    started = {f"lr {lr}": executor.submit(train, lr) for lr in (0.03, 0.3)}
    for name, job in started.items():
        print(name, "ends with a loss of", round(job.result(), 4))
        job.delete()

# The cluster is gone. The runs are in the history of this machine, by the names of their Jobs.
compared = runs.compare({name: job.name for name, job in started.items()})
print(compared.differences().loc["argument lr"].to_string())
print(compared.best("loss").to_string(index=False))
if len(sys.argv) > 1:
    compared.plot("loss", log=True).savefig(sys.argv[1])
