"""Transfers whose connection breaks or whose client is killed."""

from __future__ import annotations

import http.server
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from support import fault_proxy as faults
from support.fault_proxy import FaultProxy
from support.polling import wait_for
from support.tcp_relay import relayed

from aksgpu import cluster, errors, storage
from aksgpu.cluster import Cluster
from aksgpu.kube import Kube

MEGABYTE = 1_000_000
HELPERS = "aksgpu.dev/storage=helper"
"""The label of helper Jobs and pods."""


def through_relay(aks: Cluster, path: Path) -> tuple[Cluster, Any]:
    """Return the cluster through a relay, and the relay."""
    kube, relay = relayed(aks, path)
    return Cluster(aks.name, kube=kube), relay


@pytest.fixture
def small_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let uploads send at most 1 MB ahead of what the helper has written. A cut then loses no more than that."""
    monkeypatch.setattr("aksgpu.storage.uploads.WINDOW", MEGABYTE)


@pytest.mark.usefixtures("small_window")
def test_an_upload_continues_after_cuts(aks: Cluster, claim: str, tmp_path: Path) -> None:
    source = tmp_path / "data"
    source.mkdir()
    (source / "large").write_bytes(os.urandom(12 * MEGABYTE))
    for number in range(50):
        (source / f"small-{number}").write_bytes(os.urandom(10_000))
    weak, relay = through_relay(aks, tmp_path / "config")
    relay.cuts = [4 * MEGABYTE, 3 * MEGABYTE]
    sent = storage.upload(weak, claim, source)
    assert relay.cuts == [], "the connection was cut twice"
    assert sent.bytes == 12 * MEGABYTE + 500_000
    assert sent.sent < sent.bytes + 4 * MEGABYTE, "the large file did not begin anew each time"
    storage.download(aks, claim, "data", to=tmp_path / "back")
    for path in source.iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()
    assert len(storage.ls(aks, claim, "data")) == 51, "no unfinished files are left"
    relay.stop()


def test_a_download_continues_after_cuts(aks: Cluster, claim: str, tmp_path: Path) -> None:
    content = os.urandom(12 * MEGABYTE)
    (tmp_path / "large").write_bytes(content)
    storage.upload(aks, claim, tmp_path / "large")
    weak, relay = through_relay(aks, tmp_path / "config")
    relay.cuts = [4 * MEGABYTE, 3 * MEGABYTE]
    got = storage.download(weak, claim, "large", to=tmp_path / "back" / "large")
    assert relay.cuts == []
    assert (tmp_path / "back" / "large").read_bytes() == content
    assert got.sent < 2 * len(content)
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["large"]
    relay.stop()


@pytest.mark.usefixtures("small_window")
def test_an_interrupted_upload_continues_in_the_next_call(
    aks: Cluster, claim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "large").write_bytes(os.urandom(12 * MEGABYTE))
    weak, relay = through_relay(aks, tmp_path / "config")
    relay.cuts = [6 * MEGABYTE]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="continues where it ended"):
        patch.setattr("aksgpu.storage.helper_pod.pause", interrupt)
        storage.upload(weak, claim, tmp_path / "large")
    second = storage.upload(weak, claim, tmp_path / "large")
    assert 0 < second.sent < 8 * MEGABYTE
    storage.download(aks, claim, "large", to=tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "large").read_bytes()
    relay.stop()


def interrupt(_: float) -> None:
    raise KeyboardInterrupt


@pytest.mark.usefixtures("small_window")
def test_an_upload_continues_after_kubernetes_has_deleted_the_helper(
    aks: Cluster, claim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The helper's program ends after a minute without a client, and Kubernetes deletes its Job at once."""
    (tmp_path / "large").write_bytes(os.urandom(12 * MEGABYTE))
    weak, relay = through_relay(aks, tmp_path / "config")
    relay.cuts = [6 * MEGABYTE]

    def lose_the_helper(_: float) -> None:
        for job in aks.kube.list("Job", label_selector=HELPERS):
            aks.kube.delete("Job", job["metadata"]["name"])
        wait_for(lambda: not aks.kube.list("Job", label_selector=HELPERS), 60)
        wait_for(lambda: not aks.kube.list("Pod", label_selector=HELPERS), 60)

    monkeypatch.setattr("aksgpu.storage.helper_pod.pause", lose_the_helper)
    assert storage.upload(weak, claim, tmp_path / "large", timeout=120).sent < 14 * MEGABYTE
    assert relay.cuts == []
    storage.download(aks, claim, "large", to=tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "large").read_bytes()
    relay.stop()


def proxied(aks: Cluster, path: Path, proxy: FaultProxy) -> Cluster:
    """Return the cluster through a proxy."""
    return Cluster(aks.name, kube=Kube.from_kubeconfig(proxy.kubeconfig(path)))


def test_a_connection_that_is_refused_for_good_is_an_error_at_once(aks: Cluster, claim: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with FaultProxy.for_kubeconfig(cluster.kubeconfig(aks)) as proxy:
        proxy.plan = faults.always(faults.status(400, "Upgrade request required"), path="/exec")
        with pytest.raises(errors.KubernetesError, match="Upgrade request required") as raised:
            storage.upload(proxied(aks, tmp_path, proxy), claim, tmp_path / "file")
        assert raised.value.http_status == 400
        assert len(proxy.faults) == 1


def test_a_connection_to_a_pod_that_has_just_ended_is_repeated(
    aks: Cluster, claim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    execute = aks.kube.exec
    refused: list[str] = []

    def execute_after_the_end(pod: str, *args: Any, **options: Any) -> Any:
        if refused:
            return execute(pod, *args, **options)
        refused.append(pod)
        for job in aks.kube.list("Job", label_selector=HELPERS):
            aks.kube.delete("Job", job["metadata"]["name"])
        wait_for(lambda: aks.kube.find("Pod", pod) is None)
        raise errors.KubernetesError("the pod has ended", status={"code": 400})

    monkeypatch.setattr(aks.kube, "exec", execute_after_the_end)
    assert storage.upload(aks, claim, tmp_path / "file").bytes == 1
    assert len(refused) == 1


def test_time_runs_out_before_the_helper_pod_runs(aks: Cluster, claim: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(errors.WaitTimeout, match=f"claim {claim}: not done after 0 s"):
        storage.upload(aks, claim, tmp_path / "file", timeout=0)


KILLED = """
import sys
from aksgpu import cluster, storage
from aksgpu.storage import helper_pod, uploads

helper_pod.IDLE_SECONDS = 10
aks = cluster.from_kubeconfig(sys.argv[1])


def stop(*_):
    print("sending", flush=True)
    input()


uploads._Upload._wait_for_window = stop
storage.upload(aks, sys.argv[2], sys.argv[3], progress=False)
"""


def test_a_killed_client_leaves_no_pod(aks: Cluster, claim: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(MEGABYTE))
    cluster.get_credentials(aks, file=tmp_path / "config")
    command = [sys.executable, "-c", KILLED, str(tmp_path / "config"), claim, str(tmp_path / "file")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "sending\n"
        assert len(aks.kube.list("Job", label_selector=HELPERS)) == 1
        client.send_signal(signal.SIGKILL)
    wait_for(lambda: not aks.kube.list("Job", label_selector=HELPERS), 120)
    wait_for(lambda: not aks.kube.list("Pod", label_selector=HELPERS), 120)


class FileServer(http.server.BaseHTTPRequestHandler):
    """A web server with one file, which breaks off the first response."""

    content = os.urandom(5 * MEGABYTE)
    requests: list[str]

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        type(self).requests.append(wanted)
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        end = 2 * MEGABYTE if len(self.requests) == 1 and self.path.startswith("/broken") else len(self.content)
        self.wfile.write(self.content[start:end])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    """The address of a web server."""
    FileServer.requests = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), FileServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_fetch_continues_after_a_cut(aks: Cluster, claim: str, web: str, tmp_path: Path) -> None:
    digest = sha256(FileServer.content).hexdigest()
    got = storage.fetch(aks, claim, f"{web}/broken.tar?sig=secret", to="sets/", sha256=digest)
    assert (got.path, got.bytes) == ("sets/broken.tar", 5 * MEGABYTE)
    assert FileServer.requests == ["", f"bytes={2 * MEGABYTE}-"]
    storage.download(aks, claim, "sets", to=tmp_path / "back")
    assert (tmp_path / "back" / "broken.tar").read_bytes() == FileServer.content
    assert list(storage.ls(aks, claim, "sets")["path"]) == ["sets/broken.tar"]


def test_a_wrong_checksum_leaves_nothing(aks: Cluster, claim: str, web: str) -> None:
    with pytest.raises(errors.StorageError, match="the file at the URL has the SHA-256"):
        storage.fetch(aks, claim, f"{web}/file", sha256="0" * 64)
    assert storage.ls(aks, claim).empty


def test_a_url_that_does_not_exist_is_named_without_its_signature(aks: Cluster, claim: str, web: str) -> None:
    with pytest.raises(errors.StorageError, match="/missing: the server returned status 404") as raised:
        storage.fetch(aks, claim, f"{web}/missing?sig=secret")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("url", ["ftp://x/y", "file:///etc/passwd", "x", 7, "https://"])
def test_other_urls_are_refused(aks: Cluster, url: Any) -> None:
    with pytest.raises(errors.InvalidInput, match="`url` must begin with https"):
        storage.fetch(aks, "any", url)


@pytest.mark.slow
def test_two_hundred_megabytes(aks: Cluster, claim: str, tmp_path: Path) -> None:
    content = os.urandom(MEGABYTE) * 200
    (tmp_path / "large").write_bytes(content)
    storage.upload(aks, claim, tmp_path / "large")
    storage.download(aks, claim, "large", to=tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
