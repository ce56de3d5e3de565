"""Storage for files that stays when pods and nodes are gone: claims, and the files in them.

    storage.create(aks, "data", size_gb=64)
    storage.upload(aks, "data", "images/")
    gpu = jobs.Executor(aks, volumes={"/data": "data"}, out="data")

A claim is a PersistentVolumeClaim of the cluster's own storage classes. Files go through a small helper pod, which runs
the default image of :class:`aksgpu.jobs.Executor` and is deleted after each call.
"""

from __future__ import annotations

import builtins

from aksgpu.storage.claims import Claim, create, delete, list
from aksgpu.storage.downloads import download, ls
from aksgpu.storage.fetches import fetch
from aksgpu.storage.transfer_progress import Transfer
from aksgpu.storage.uploads import upload

__all__ = ["Claim", "Transfer", "create", "delete", "download", "fetch", "list", "ls", "upload"]


def __dir__() -> builtins.list[str]:
    return sorted(__all__)
