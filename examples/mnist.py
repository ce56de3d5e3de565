"""Create a cluster with a GPU, train, draw the accuracy curve, and delete everything.

    python examples/mnist.py [curve.png]

It runs on the laptop AKS. With AKSGPU_TARGET=azure it runs in your Azure subscription, where it costs money.
"""

import sys

import aksgpu
from aksgpu import capacity, cluster, jobs, plugin

file = sys.argv[1] if len(sys.argv) > 1 else "accuracy.png"

azure = aksgpu.connect()
aks = cluster.create(azure, "myAKSCluster", resource_group="myResourceGroup", location="eastus")
cluster.add_gpu_pool(aks, "gpunp", vm_size="Standard_NC4as_T4_v3", count=1)
plugin.install(aks)
print(capacity.gpus(aks)[["pool", "gpu_model", "allocatable", "free"]])

job = jobs.apply(aks, aksgpu.manifests.mnist())
job.wait()
print(job.metrics()[["step", "accuracy"]].tail())
job.plot().savefig(file)

job.delete()
print(cluster.delete(aks))
