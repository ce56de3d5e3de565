"""A pytest plugin for the suites of other clients: options and helper modules that their published sources lack."""

from __future__ import annotations

import asyncio
import inspect
import sys
import types
from typing import Any


def pytest_addoption(parser: Any) -> None:
    """Add the option that kr8s reads."""
    parser.addoption("--keep-cluster", action="store_true", default=True)


def pytest_configure(config: Any) -> None:
    """Add the modules ``e2e_test.base`` of the clients."""
    for package in ("kubernetes", "kubernetes_asyncio"):
        name = f"{package}.e2e_test"
        module = types.ModuleType(f"{name}.base")
        module.get_e2e_configuration = lambda package=package: _configuration(package)  # type: ignore[attr-defined]
        parent = types.ModuleType(name)
        parent.base = module  # type: ignore[attr-defined]
        sys.modules[name] = parent
        sys.modules[f"{name}.base"] = module


def _configuration(package: str) -> Any:
    """Return the configuration of the default kubeconfig, as the suites' own helper does."""
    client = __import__(f"{package}.client", fromlist=["Configuration"])
    config = __import__(f"{package}.config", fromlist=["load_kube_config"])
    loaded = client.Configuration()
    loading = config.load_kube_config(client_configuration=loaded)
    if inspect.isawaitable(loading):
        asyncio.run(_await(loading))
    return loaded


async def _await(value: Any) -> None:
    await value
