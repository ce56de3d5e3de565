"""Train with a function of your own on a GPU node: its value, its curve, an exception, and several rates at once.

    python examples/own_function.py [curve.png]

It runs on the laptop AKS. With AKSGPU_TARGET=azure it runs in your Azure subscription, where it costs money.
"""

import sys

import numpy as np

import aksgpu
from aksgpu import cluster, jobs, plots, plugin

file = sys.argv[1] if len(sys.argv) > 1 else "rates.png"


def train(rate: float, steps: int = 50) -> float:
    """Fit a line to noisy points by gradient descent, and return its slope."""
    random = np.random.default_rng(0)
    x = random.random(1000)
    y = 3 * x + 0.1 * random.standard_normal(1000)
    slope = 0.0
    for step in range(1, steps + 1):
        error = slope * x - y
        slope -= rate * float(np.mean(error * x))
        aksgpu.log(step=step, loss=np.mean(error**2))
        if slope != slope or abs(slope) > 1e6:
            raise ValueError(f"the training diverges in step {step}: the rate {rate} is too large")
    return slope


if __name__ == "__main__":
    azure = aksgpu.connect()
    aks = cluster.create(azure, "myAKSCluster", resource_group="myResourceGroup", location="eastus")
    cluster.add_gpu_pool(aks, "gpunp", vm_size="Standard_NC4as_T4_v3", count=1)
    plugin.install(aks)

    gpu = jobs.Executor(aks, gpus=1, timeout="10m")

    job = gpu.submit(train, 0.5)  # returns at once
    print(f"slope {job.result():.2f}")  # waits for the function's value
    print(job.metrics()[["step", "loss"]].tail(3).round(3))

    rates = [0.2, 0.5, 1.0]
    results = gpu.map(train, rates)  # one Job for each rate
    for rate, slope in zip(rates, results, strict=True):
        print(f"rate {rate}: slope {slope:.2f}")
    runs = {f"rate {rate}": each.metrics() for rate, each in zip(rates, results.jobs, strict=True)}
    plots.curve(runs, "loss", log=True).savefig(file)

    try:
        gpu.submit(train, 10.0).result()
    except ValueError as error:  # the function's own exception; its cause is the traceback of the pod
        print(error)

    print(cluster.delete(aks))  # deletes the Jobs too
