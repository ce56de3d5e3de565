"""Every public call to Azure, with one fault on each of its requests, caused by a proxy in front of the laptop AKS."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fault_proxy import (
    Fault,
    FaultProxy,
    always,
    cut,
    each_once,
    early_end,
    first,
    half_open,
    no_answer,
    refused,
    status,
    trickle,
    unauthorized,
)
from support.polling import wait_for

import aksgpu
from aksgpu import cluster, sizes
from aksgpu.azure import Azure
from aksgpu.cluster import Cluster
from aksgpu.errors import AzureUnreachable, InvalidInput
from aksgpu.local import Endpoint

FAULTS = {
    "500": status(500),
    "502": status(502, "<html>Bad Gateway</html>"),
    "503": status(503, retry_after=1),
    "504": status(504),
    "408": status(408),
    "429": status(429, retry_after=1),
    "401 once": unauthorized(),
    "no answer": no_answer(),
    "cut at byte 0": cut(0),
    "cut body": cut(40),
    "end at byte 0": early_end(0),
    "truncated JSON": early_end(40),
    "refused": refused(0.3),
    "trickle": trickle(200, 0.001),
}
QUICK = ("500", "401 once", "no answer", "cut body", "truncated JSON")
"""Faults that every run tries. The others take minutes together."""

WITHIN = 60.0
"""Timeout of each call in seconds. A fault takes one or two of them."""


@pytest.fixture(scope="module")
def proxy(laptop: Endpoint) -> Iterator[FaultProxy]:
    with FaultProxy(laptop.base_url, ca_file=laptop.ca_file, tls=True, seed=8) as made:
        yield made


@pytest.fixture(scope="module")
def azure(proxy: FaultProxy, laptop: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Azure:
    folder = tmp_path_factory.mktemp("proxy")
    authority = folder / "ca.pem"
    authority.write_bytes(proxy.ca_pem)
    return aksgpu.connect(Endpoint(proxy.url, laptop.subscription_id, laptop.token, authority, folder))


@pytest.fixture(autouse=True)
def quiet(proxy: FaultProxy) -> Iterator[None]:
    yield
    proxy.plan = lambda call: None


def life(azure: Azure, name: str, folder: Path, before: Callable[[], None]) -> None:
    """Make every public call once and check its result. ``before`` runs before each call."""

    def do(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        before()
        return call(*arguments, timeout=WITHIN, **options)

    aks = do(cluster.create, azure, name, resource_group=name, location="eastus")
    assert do(cluster.create, azure, name, resource_group=name).id == aks.id
    assert do(cluster.get, azure, name, resource_group=name).id == aks.id
    assert name in do(cluster.list, azure)["cluster"].tolist()
    assert do(cluster.add_gpu_pool, aks, "gpunp").state == "Succeeded"
    assert do(cluster.scale_pool, aks, "gpunp", 2).count == 2
    assert do(cluster.stop_pool, aks, "gpunp").power == "Stopped"
    assert do(cluster.start_pool, aks, "gpunp").power == "Running"
    do(cluster.stop, aks)
    do(cluster.start, aks)
    do(cluster.abort, aks)
    table = do(cluster.list_pools, aks)
    assert table[["pool", "count", "state", "power"]].values.tolist() == [
        ["gpunp", 2, "Succeeded", "Running"],
        ["nodepool1", 1, "Succeeded", "Running"],
    ]
    assert len(do(cluster.leftovers, azure).query("cluster == @name")) == 2
    assert do(cluster.kubeconfig, aks).exists()
    assert do(cluster.get_credentials, aks, folder / "config").exists()
    assert "Standard_NC4as_T4_v3" in do(sizes.gpu_sizes, azure, "eastus")["vm_size"].tolist()
    assert do(sizes.preflight, azure, "eastus", "Standard_NC4as_T4_v3").verdict == "yes"
    assert do(cluster.delete_pool, aks, "gpunp") is True
    deletion = do(cluster.delete, aks)
    assert (deletion.cluster, deletion.resource_group) == (name, name)
    assert name not in do(cluster.list, azure)["cluster"].tolist()


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in QUICK else pytest.mark.slow) for kind in FAULTS]
)
def test_each_call_continues_after_one_fault_on_each_of_its_requests(
    azure: Azure, proxy: FaultProxy, tmp_path: Path, kind: str
) -> None:
    name = "fault" + "".join(letter for letter in kind if letter.isalnum()).lower()
    fault = FAULTS[kind]
    before = len(proxy.faults)
    azure.price_cache.clear()

    def once_more() -> None:
        proxy.plan = lambda call: None
        proxy._seen.clear()
        proxy.plan = each_once(fault) if kind != "trickle" else always(fault)

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a deletion that succeeds does not warn about a missing name
        life(azure, name, tmp_path, once_more)
    assert len(proxy.faults) - before > 40


READS: dict[str, Callable[[Azure, Cluster, float], Any]] = {
    "get": lambda azure, aks, timeout: cluster.get(azure, "silent", resource_group="silent", timeout=timeout),
    "list": lambda azure, aks, timeout: cluster.list(azure, timeout=timeout),
    "pools": lambda azure, aks, timeout: cluster.list_pools(aks, timeout=timeout),
    "leftovers": lambda azure, aks, timeout: cluster.leftovers(azure, timeout=timeout),
    "kubeconfig": lambda azure, aks, timeout: cluster.kubeconfig(aks, timeout=timeout),
    "gpu_sizes": lambda azure, aks, timeout: sizes.gpu_sizes(azure, "eastus", timeout=timeout),
    "preflight": lambda azure, aks, timeout: sizes.preflight(azure, "eastus", "Standard_NC4as_T4_v3", timeout=timeout),
}
WRITES: dict[str, Callable[[Azure, Cluster, float], Any]] = {
    "create": lambda azure, aks, timeout: cluster.create(azure, "silent", resource_group="silent", timeout=timeout),
    "add_gpu_pool": lambda azure, aks, timeout: cluster.add_gpu_pool(aks, timeout=timeout),
    "scale": lambda azure, aks, timeout: cluster.scale_pool(aks, "nodepool1", 2, timeout=timeout),
    "stop_pool": lambda azure, aks, timeout: cluster.stop_pool(aks, "nodepool1", timeout=timeout),
    "start_pool": lambda azure, aks, timeout: cluster.start_pool(aks, "nodepool1", timeout=timeout),
    "stop": lambda azure, aks, timeout: cluster.stop(aks, timeout=timeout),
    "start": lambda azure, aks, timeout: cluster.start(aks, timeout=timeout),
    "abort": lambda azure, aks, timeout: cluster.abort(aks, timeout=timeout),
    "delete_pool": lambda azure, aks, timeout: cluster.delete_pool(aks, "gpunp", timeout=timeout),
    "delete": lambda azure, aks, timeout: cluster.delete(aks, timeout=timeout),
    "get_credentials": lambda azure, aks, timeout: cluster.get_credentials(aks, "/dev/null/x", timeout=timeout),
}


@pytest.fixture
def aks(azure: Azure) -> Cluster:
    """A cluster object. The tests never reach the cluster itself."""
    base = f"/subscriptions/{azure.subscription_id}/resourceGroups/silent"
    full = f"{base}/providers/Microsoft.ContainerService/managedClusters/silent"
    return Cluster("silent", resource_group="silent", location="eastus", azure=azure, id=full)


def in_time(call: Callable[[], Any], seconds: float) -> BaseException | None:
    """Return what a call raises. The call must end within ``seconds``."""
    raised: list[BaseException | None] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)
        else:
            raised.append(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert raised, f"still waiting after {seconds} s"
    return raised[0]


@pytest.mark.parametrize("name", [*READS, *WRITES])
def test_a_timeout_applies_to_a_silent_server(azure: Azure, aks: Cluster, proxy: FaultProxy, name: str) -> None:
    proxy.plan = always(half_open(None))
    call = {**READS, **WRITES}[name]
    error = in_time(lambda: call(azure, aks, 1.5), 60)
    assert isinstance(error, AzureUnreachable | InvalidInput), error
    if name != "get_credentials":
        assert isinstance(error, AzureUnreachable)
        assert "does not answer: the request timed out" in error.message


@pytest.mark.parametrize("name", ["list", "add_gpu_pool", "kubeconfig"])
def test_a_timeout_applies_to_a_server_that_sends_a_byte_now_and_then(
    azure: Azure, aks: Cluster, proxy: FaultProxy, name: str
) -> None:
    proxy.plan = always(trickle(1, 0.5))
    call = {**READS, **WRITES}[name]
    error = in_time(lambda: call(azure, aks, 1.5), 60)
    assert isinstance(error, AzureUnreachable), error


@pytest.mark.parametrize("name", [name for name in (*READS, *WRITES) if name not in ("get_credentials", "preflight")])
def test_the_last_response_is_in_the_error_after_the_timeout(
    azure: Azure, aks: Cluster, proxy: FaultProxy, name: str
) -> None:
    proxy.plan = always(status(503, "the gateway is away"))
    call = {**READS, **WRITES}[name]
    with pytest.raises(AzureUnreachable, match="the last one was HTTP 503 Service Unavailable: the gateway is away"):
        call(azure, aks, 3)


@pytest.mark.parametrize("fault", [half_open(None), half_open(0), half_open(40)], ids=["status", "body", "middle"])
def test_a_read_continues_after_a_half_open_connection(azure: Azure, proxy: FaultProxy, fault: Fault) -> None:
    proxy.plan = first(fault)
    cluster.list(azure, timeout=30)
    assert len(proxy.faults) and proxy.faults[-1][1] == fault


@pytest.mark.parametrize("fault", [half_open(None), no_answer(), cut(10), status(500)], ids=lambda fault: fault.kind)
def test_after_a_lost_response_a_write_reads_the_resource(azure: Azure, proxy: FaultProxy, fault: Fault) -> None:
    name = "lost" + "".join(letter for letter in fault.kind if letter.isalnum())
    group = f"/subscriptions/{azure.subscription_id}/resourcegroups/{name}"
    azure.request("PUT", group, api_version="2021-04-01", body={"location": "eastus"})
    started = len(proxy.calls)
    proxy.plan = first(fault, method="PUT", path="managedClusters")
    made = cluster.create(azure, name, resource_group=name, timeout=15)
    puts = [call for call in proxy.calls[started:] if call.method == "PUT"]
    assert len(puts) == (1 if fault.forwarded else 2)
    proxy.plan = first(fault, method="DELETE", path="managedClusters")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cluster.delete(made, timeout=15).cluster == name
    azure.request("DELETE", group, api_version="2021-04-01")


def test_progress_names_what_the_call_waits_for(
    azure: Azure, proxy: FaultProxy, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy.plan = first(status(503, "the gateway is away"), times=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AKSGPU_PROGRESS", "1")
        cluster.list(azure)
    shown = capsys.readouterr().err
    assert "listing clusters" in shown
    assert "HTTP 503 Service Unavailable: the gateway is away" in shown


def test_timeout_none_has_no_limit(azure: Azure, proxy: FaultProxy) -> None:
    proxy.plan = always(status(503))
    ended = threading.Event()

    def run() -> None:
        cluster.list(azure, timeout=None)
        ended.set()

    threading.Thread(target=run, daemon=True).start()
    wait_for(lambda: [fault.status for _, fault in proxy.faults[-4:]] == [503] * 4)
    assert not ended.is_set()
    proxy.plan = lambda call: None
    assert ended.wait(60)
