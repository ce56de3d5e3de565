"""How clients reach a cluster: by certificate and by token, and by paths without the cluster's own."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml
from support.live_cluster import LiveCluster, kubectls, new_cluster, version_of
from support.polling import wait_for

from aksgpu.local import Endpoint, tls

pytest_plugins = ["aksgpu.local.testing", "support.live_cluster"]

KUBECTLS = kubectls(oldest=27)
needs_kubectl = pytest.mark.skipif(not KUBECTLS, reason="no kubectl on PATH")
every_kubectl = pytest.mark.parametrize("binary", KUBECTLS, ids=map(version_of, KUBECTLS))


def user(live_cluster: LiveCluster) -> dict[str, str]:
    """Return the login in the cluster's kubeconfig."""
    found: dict[str, str] = yaml.safe_load(live_cluster.kubeconfig.read_text())["users"][0]["user"]
    return found


def certificate_files(live_cluster: LiveCluster, folder: Path) -> dict[str, str]:
    """Write the client certificate and its key to files, and return urllib3's arguments for them."""
    login = user(live_cluster)
    paths = {"cert_file": folder / "client.pem", "key_file": folder / "client-key.pem"}
    paths["cert_file"].write_bytes(base64.b64decode(login["client-certificate-data"]))
    paths["key_file"].write_bytes(base64.b64decode(login["client-key-data"]))
    return {name: str(path) for name, path in paths.items()}


def get(live_cluster: LiveCluster, url: str, *, token: str = "", **certificate: str) -> tuple[int, Any]:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    with urllib3.PoolManager(ca_certs=str(live_cluster.ca), retries=False, timeout=60, **certificate) as pool:
        response = pool.request("GET", url, headers=headers)
        return response.status, response.json()


def test_a_client_certificate_is_sufficient(live_cluster: LiveCluster, tmp_path: Path) -> None:
    certificate = certificate_files(live_cluster, tmp_path)
    url = f"{live_cluster.server}/api/v1/namespaces"
    assert get(live_cluster, url)[0] == 401
    status, body = get(live_cluster, url, **certificate)
    assert (status, body["kind"]) == (200, "NamespaceList")
    assert get(live_cluster, url, token="wrong", **certificate)[0] == 200, "the certificate comes first"


def test_a_certificate_of_another_authority_ends_the_connection(live_cluster: LiveCluster, tmp_path: Path) -> None:
    cluster_id = live_cluster.server.rpartition("/")[2]
    made = tmp_path / "clusters" / cluster_id
    made.mkdir(parents=True)
    tls.client_certificate(tmp_path, cluster_id)
    files = {"cert_file": str(made / "client.pem"), "key_file": str(made / "client-key.pem")}
    with pytest.raises(urllib3.exceptions.HTTPError):
        get(live_cluster, f"{live_cluster.server}/api/v1/namespaces", **files)


def test_a_certificate_is_for_its_own_cluster(
    laptop: Endpoint, live_cluster: LiveCluster, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    certificate = certificate_files(live_cluster, tmp_path)
    with new_cluster(laptop, "other", tmp_path_factory.mktemp("other")) as other:
        assert get(other, f"{other.server}/api/v1/namespaces", **certificate)[0] == 401
        # Resource Manager accepts tokens alone.
        status, body = get(other, f"{laptop.base_url}/subscriptions?api-version=2022-12-01", **certificate)
        assert (status, body["error"]["code"]) == (401, "AuthenticationFailed")


def test_paths_without_the_clusters_own(laptop: Endpoint, live_cluster: LiveCluster, tmp_path: Path) -> None:
    """The credentials say which cluster is meant."""
    url = f"{laptop.base_url}/api/v1/nodes"
    for login in ({"token": live_cluster.token}, certificate_files(live_cluster, tmp_path)):
        status, body = get(live_cluster, url, **login)
        assert (status, body["kind"], len(body["items"])) == (200, "NodeList", 1)
    for token in ("", "wrong"):
        status, body = get(live_cluster, url, token=token)
        assert (status, body["kind"], body["reason"]) == (401, "Status", "Unauthorized")
    assert get(live_cluster, f"{laptop.base_url}/api/retail/prices")[0] == 200


@contextmanager
def proxy(live_cluster: LiveCluster, binary: str) -> Iterator[str]:
    """Run ``kubectl proxy``, and return its address."""
    command = live_cluster.command(binary, "proxy", "--port=0")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert line.startswith("Starting to serve on 127.0.0.1:"), line
            yield f"http://{line.split()[-1]}"
        finally:
            process.kill()


@needs_kubectl
@every_kubectl
def test_kubectl_proxy_and_raw_paths(live_cluster: LiveCluster, binary: str) -> None:
    raw = live_cluster.kubectl(binary, "get", "--raw", "/api/v1/nodes")
    assert (raw.returncode, json.loads(raw.stdout)["kind"]) == (0, "NodeList")
    missing = live_cluster.kubectl(binary, "get", "--raw", "/api/v1/namespaces/default/pods/none")
    assert 'pods "none" not found' in missing.stderr
    with proxy(live_cluster, binary) as address, urllib3.PoolManager(timeout=60) as pool:
        assert pool.request("GET", f"{address}/version").json()["gitVersion"].startswith("v1.")
        created = pool.request(
            "POST",
            f"{address}/api/v1/namespaces/default/configmaps",
            json={"metadata": {"generateName": "proxied-"}, "data": {"a": "b"}},
        )
        assert (created.status, created.json()["data"]) == (201, {"a": "b"})
        name = created.json()["metadata"]["name"]
        deleted = pool.request("DELETE", f"{address}/api/v1/namespaces/default/configmaps/{name}")
        assert deleted.status == 200


def test_the_login_of_az(laptop: Endpoint, live_cluster: LiveCluster) -> None:
    """``az cloud register`` reads the addresses without a token, and ``az login --identity`` gets one."""
    with urllib3.PoolManager(ca_certs=str(live_cluster.ca), retries=False, timeout=60) as pool:
        cloud = pool.request("GET", f"{laptop.base_url}/metadata/endpoints?api-version=2022-09-01").json()
        assert cloud["resourceManager"] == laptop.base_url
        address = f"{laptop.base_url}/msi/token?api-version=2019-08-01&resource=https%3A%2F%2Fmanagement.azure.com%2F"
        assert pool.request("GET", address).status == 401
        assert pool.request("GET", address, headers={"x-identity-header": "wrong"}).status == 401
        given = pool.request("GET", address, headers={"x-identity-header": laptop.token}).json()
        claims = json.loads(base64.urlsafe_b64decode(given["access_token"].split(".")[1] + "=="))
        assert claims["exp"] == int(given["expires_on"])
        subscriptions = f"{laptop.base_url}/subscriptions?api-version=2022-12-01"
        listed = pool.request("GET", subscriptions, headers={"authorization": f"Bearer {given['access_token']}"})
        assert [each["tenantId"] for each in listed.json()["value"]] == [claims["tid"]]
        for broken in (given["access_token"][:-2], given["access_token"].replace(".", "", 1), "a.b.c", "..", "\xff"):
            refused = pool.request("GET", subscriptions, headers={"authorization": f"Bearer {broken}"})
            assert refused.status == 401, broken


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (b"Expect: 100-continue", 100),
        (b"Expect: something", 417),
        (b"Expect: caf\xc3\xa9", 400),
        (b"Expect: \xff", 400),
        (b"User-Agent: \xff", 400),
        (b"Impersonate-User: \xff", 400),
        (b"X-Any: caf\xc3\xa9", 401),
    ],
)
def test_headers_with_strange_values(laptop: Endpoint, live_cluster: LiveCluster, header: bytes, status: int) -> None:
    context = ssl.create_default_context(cafile=str(laptop.ca_file))
    address = ("127.0.0.1", int(laptop.base_url.rpartition(":")[2]))
    for path in (b"/version", b"/subscriptions?api-version=2022-12-01"):
        with (
            socket.create_connection(address, timeout=60) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
        ):
            connection.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 %d " % status)


def test_a_managed_identity_logs_in(laptop: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """azure-identity uses the same protocol."""
    from azure.identity import ManagedIdentityCredential
    from azure.mgmt.containerservice import ContainerServiceClient

    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{laptop.base_url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", laptop.token)
    trust = str(laptop.ca_file)
    credential = ManagedIdentityCredential(connection_verify=trust)
    client = ContainerServiceClient(
        credential, laptop.subscription_id, base_url=laptop.base_url, connection_verify=trust
    )
    wait_for(lambda: isinstance(list(client.managed_clusters.list()), list))
