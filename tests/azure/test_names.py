"""Hostile names are refused by every call, before they reach a path."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import aksgpu
from aksgpu import cluster, sizes
from aksgpu.azure import Azure, resource_names
from aksgpu.cluster import Cluster
from aksgpu.errors import AksGpuError, InvalidInput
from aksgpu.local import Endpoint

SAMPLES = [
    "",
    ".",
    "..",
    "...",
    "../..",
    "/",
    "//",
    "a/..",
    "./x",
    "%2e",
    "%2e%2e",
    "%2F",
    "..%2f..",
    "%252e",
    "?",
    "?api-version=1",
    "#",
    "x#y",
    "x?y",
    "x&y=1",
    "x;y",
    "\\",
    "..\\..",
    "\x00",
    "a\nb",
    "a\r\nHost: x",
    "\ud800",
    "\u2024\u2024",
    "\uff0e\uff0e",
    " ",
    " victim",
    "victim ",
    "victim/",
    "victim/agentPools/gpunp",
    "victim?x",
    "victim#x",
    "*",
    "a" * 5000,
    "' or '1' eq '1",
    "{}",
    "~",
]
OTHERS = [None, 0, 1, True, 1.5, b"victim", [], ["victim"], {}, object()]


def is_hostile(text: str) -> bool:
    """Return whether a text is not a valid name of anything."""
    return not re.fullmatch(r"[-\w.()]*[-\w()]|\s*\w+\s*", text)


hostile = st.one_of(
    st.sampled_from(SAMPLES),
    st.sampled_from(OTHERS),
    st.text(alphabet=st.sampled_from("./%?#\\2eEfF&;: \x00\ud800"), max_size=12).filter(is_hostile),
    st.text(alphabet=st.characters(), max_size=8).filter(is_hostile),
)

RULES = [
    resource_names.SUBSCRIPTION,
    resource_names.GROUP,
    resource_names.CLUSTER,
    resource_names.POOL,
    resource_names.SIZE,
    resource_names.LOCATION,
]

Call = Callable[[Azure, Cluster, Any], Any]


def handle(azure: Azure, name: Any, group: Any) -> Cluster:
    return Cluster(name, resource_group=group, location="eastus", azure=azure, id=f"{group}/{name}")


def in_group(azure: Azure, bad: Any, **options: Any) -> Any:
    return cluster.create(azure, "victim", **{"resource_group": bad, "location": "eastus", **options})


CALLS: dict[str, Call] = {
    "create name": lambda azure, aks, bad: cluster.create(azure, bad, resource_group="victims", location="eastus"),
    "create group": lambda azure, aks, bad: in_group(azure, bad),
    "create size": lambda azure, aks, bad: cluster.create(azure, "new", resource_group="victims", vm_size=bad or "/"),
    "create location": lambda azure, aks, bad: in_group(azure, "victims", location=f"{bad}/"),
    "temporary": lambda azure, aks, bad: cluster.temporary(azure, bad, resource_group="victims").__enter__(),
    "temporary group": lambda azure, aks, bad: cluster.temporary(azure, "new", resource_group=bad).__enter__(),
    "get": lambda azure, aks, bad: cluster.get(azure, bad, resource_group="victims"),
    "get group": lambda azure, aks, bad: cluster.get(azure, "victim", resource_group=bad),
    "add_gpu_pool": lambda azure, aks, bad: cluster.add_gpu_pool(aks, bad),
    "add_gpu_pool size": lambda azure, aks, bad: cluster.add_gpu_pool(aks, "new", vm_size=bad),
    "scale": lambda azure, aks, bad: cluster.scale_pool(aks, bad, 0),
    "start_pool": lambda azure, aks, bad: cluster.start_pool(aks, bad),
    "stop_pool": lambda azure, aks, bad: cluster.stop_pool(aks, bad),
    "delete_pool": lambda azure, aks, bad: cluster.delete_pool(aks, bad),
    "delete_pool of": lambda azure, aks, bad: cluster.delete_pool(handle(azure, bad, "victims"), "gpunp"),
    "delete": lambda azure, aks, bad: cluster.delete(handle(azure, bad, "victims"), delete_group=True),
    "delete group": lambda azure, aks, bad: cluster.delete(handle(azure, "victim", bad), delete_group=True),
    "stop": lambda azure, aks, bad: cluster.stop(handle(azure, bad, "victims")),
    "start": lambda azure, aks, bad: cluster.start(handle(azure, "victim", bad)),
    "abort": lambda azure, aks, bad: cluster.abort(handle(azure, bad, "victims")),
    "pools": lambda azure, aks, bad: cluster.list_pools(handle(azure, bad, "victims")),
    "kubeconfig": lambda azure, aks, bad: cluster.kubeconfig(handle(azure, bad, "victims")),
    "get_credentials": lambda azure, aks, bad: cluster.get_credentials(handle(azure, "victim", bad)),
    "gpu_sizes": lambda azure, aks, bad: sizes.gpu_sizes(azure, f"{bad}/"),
    "preflight": lambda azure, aks, bad: sizes.preflight(azure, "eastus", bad).raise_if_no(),
    "preflight location": lambda azure, aks, bad: sizes.preflight(azure, f"{bad}/", "Standard_NC4as_T4_v3"),
    "subscription": lambda azure, aks, bad: Azure(bad, lambda: azure.credential).request("GET", "/subscriptions"),
    "request": lambda azure, aks, bad: (
        azure.request(
            "DELETE", f"/subscriptions/{azure.subscription_id}/resourcegroups/victims/{bad}", api_version="2021-04-01"
        )
        if isinstance(bad, str) and unquote(bad) in ("", ".", "..", "/", "...")
        else azure.request("DELETE", "/subscriptions/../x", api_version="1")
    ),
}
"""Every public call, with a hostile name for each argument that is a name."""


def there(azure: Azure) -> set[str]:
    """Return the ids of all groups, clusters and pools, with their counts and states."""
    path = f"/subscriptions/{azure.subscription_id}/resourcegroups"
    found = {str(group["id"]) for group in azure.pages(path, api_version="2021-04-01")}
    for shown in azure.client.managed_clusters.list():
        for pool in shown.as_dict()["properties"]["agentPoolProfiles"]:
            power = pool.get("powerState", {}).get("code")
            found.add(f"{shown.id} {pool['name']} {pool['count']} {power} {pool['provisioningState']}")
    return found


@pytest.fixture(scope="module")
def victim(request: pytest.FixtureRequest) -> Any:
    laptop: Endpoint = request.getfixturevalue("laptop")
    azure = aksgpu.connect(laptop)
    aks = cluster.create(azure, "victim", resource_group="victims", location="eastus")
    cluster.add_gpu_pool(aks, "gpunp", count=1)
    yield aks
    cluster.delete(aks)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(bad=hostile)
def test_no_call_changes_more_than_the_named_resource(victim: Cluster, bad: Any) -> None:
    azure = victim.azure
    assert azure is not None
    before = there(azure)
    for what, call in CALLS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                call(azure, victim, bad)
            except InvalidInput as error:
                assert error.hint, what
            except AksGpuError:
                pass  # a valid name, but nothing has it
            else:
                raise AssertionError(f"{what} took {bad!r}")
    assert there(azure) == before


@pytest.mark.parametrize("bad", [*SAMPLES, *OTHERS], ids=lambda bad: ascii(bad).partition(" at 0x")[0])
def test_every_name_rule_refuses_invalid_names(bad: Any) -> None:
    for rule in RULES:
        with pytest.raises(InvalidInput):
            resource_names.check(rule, bad, "name")


@pytest.mark.parametrize(
    "rule",
    [
        resource_names.SUBSCRIPTION,
        resource_names.GROUP,
        resource_names.CLUSTER,
        resource_names.POOL,
        resource_names.SIZE,
        resource_names.LOCATION,
    ],
)
@given(value=st.text(max_size=100))
def test_a_valid_name_stays_one_segment_of_the_path(rule: resource_names.Rule, value: str) -> None:
    try:
        resource_names.check(rule, value, "name")
    except InvalidInput as error:
        proposed = re.search(r"name='([^']*)'", error.hint)
        assert proposed and resource_names.check(rule, proposed[1], "name")
        return
    resource_names.check_path(f"/a/{quote(value, safe='')}/b")


@pytest.mark.parametrize(
    "path", ["/a/../b", "/a/./b", "/a//b", "/a/%2e%2e/b", "/a/b%2fc", "/a/%252e", "/a/b%3Fc", "/a\\b"]
)
def test_paths_whose_meaning_would_change_are_refused(azure: Azure, path: str) -> None:
    with pytest.raises(InvalidInput, match="`path` must not have the segment"):
        azure.request("DELETE", path, api_version="1")


def test_the_login_is_sent_to_no_other_host(azure: Azure) -> None:
    with pytest.raises(InvalidInput, match="`path` must begin with"):
        azure.request("GET", "https://example.org/subscriptions", api_version="1")
