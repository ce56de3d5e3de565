"""Run a training script of your own on a GPU node, with the module, the settings and the packages that it needs.

    python examples/own_script.py [curve.png]

It sends examples/project/train.py, which is an ordinary program: `python train.py --epochs 20` runs it here. This
program runs it on the laptop AKS. With AKSGPU_TARGET=azure it runs in your Azure subscription, where it costs money.
"""

import sys
from pathlib import Path

import aksgpu
from aksgpu import cluster, jobs, plugin

file = sys.argv[1] if len(sys.argv) > 1 else "loss.png"
project = Path(__file__).parent / "project"

azure = aksgpu.connect()
aks = cluster.create(azure, "myAKSCluster", resource_group="myResourceGroup", location="eastus")
cluster.add_gpu_pool(aks, "gpunp", vm_size="Standard_NC4as_T4_v3", count=1)
plugin.install(aks)

gpu = jobs.Executor(aks, gpus=1, packages=project / "requirements.txt", root=project, timeout="10m")
job = gpu.script(project / "train.py", "--epochs", 20, include=[project / "configs"])
job.result()  # waits for the script's end, or raises an exception with its traceback

print(job.metrics()[["epoch", "loss", "val_accuracy"]].tail(3).to_string(index=False))
job.plot("loss", "val_loss", log=True).savefig(file)

print(cluster.delete(aks))  # deletes the Job too
