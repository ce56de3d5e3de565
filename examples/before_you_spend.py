"""What can be had, what it costs, what to do about a no, and how to leave nothing running.

    python examples/before_you_spend.py

It runs on the laptop AKS; with AKSGPU_TARGET=azure in your Azure subscription, where the last part costs money.
"""

import aksgpu
from aksgpu import cluster, sizes
from aksgpu.errors import QuotaExceeded

azure = aksgpu.connect()

# Every GPU size that the subscription sees there, cheapest GPU hour first.
table = sizes.gpu_sizes(azure, "eastus")
print(table.sort_values("usd_per_gpu_hour")[["vm_size", "gpu_model", "gpus", "family_left", "usd_per_hour"]].head())

# Can it be had? Nothing is created by asking.
print(sizes.preflight(azure, "eastus", "Standard_NC4as_T4_v3", count=2))
wish = sizes.preflight(azure, "eastus", "Standard_NC24ads_A100_v4", count=3, look_in=["westus3"])
print(wish.verdict, wish.requested, wish.left, wish.alternatives)
try:
    wish.raise_if_no()
except QuotaExceeded as error:
    print(f"{error.family}: {error.remaining} of {error.limit} vCPUs left, {error.requested} wanted")

# A cluster that is gone at the end of the block, whatever happens in it.
with cluster.temporary(azure, "trial", resource_group="trial", location="eastus") as aks:
    print(cluster.add_gpu_pool(aks, vm_size="Standard_NC4as_T4_v3"))
    print(cluster.leftovers(azure)[["cluster", "pool", "count", "usd_per_day"]])
print(cluster.leftovers(azure).empty)
