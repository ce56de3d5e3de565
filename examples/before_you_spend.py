"""Check which sizes are available and what they cost, handle a refusal, and leave nothing running.

    python examples/before_you_spend.py

It runs on the laptop AKS. With AKSGPU_TARGET=azure it runs in your Azure subscription, where the last part costs money.
"""

import aksgpu
from aksgpu import cluster, sizes
from aksgpu.errors import QuotaExceeded

azure = aksgpu.connect()

# Every GPU size that the location offers to the subscription, sorted by the price of a GPU hour.
table = sizes.gpu_sizes(azure, "eastus")
print(table.sort_values("usd_per_gpu_hour")[["vm_size", "gpu_model", "gpus", "family_left", "usd_per_hour"]].head())

# Is it available? Nothing is created by this check.
print(sizes.preflight(azure, "eastus", "Standard_NC4as_T4_v3", count=2))
check = sizes.preflight(azure, "eastus", "Standard_NC24ads_A100_v4", count=3, look_in=["westus3"])
print(check.verdict, check.requested, check.left, check.alternatives)
try:
    check.raise_if_no()
except QuotaExceeded as error:
    print(f"{error.family}: {error.remaining} of {error.limit} vCPUs left, {error.requested} requested")

# The cluster is deleted at the end of the block, even after an exception.
with cluster.temporary(azure, "trial", resource_group="trial", location="eastus") as aks:
    print(cluster.add_gpu_pool(aks, vm_size="Standard_NC4as_T4_v3"))
    print(cluster.leftovers(azure)[["cluster", "pool", "count", "usd_per_day"]])
print(cluster.leftovers(azure).empty)
