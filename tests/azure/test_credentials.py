from __future__ import annotations

import base64
import json
import ssl
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from aksgpu import cluster
from aksgpu.azure import Azure
from aksgpu.azure.subscription import AKS_SERVER_SCOPE
from aksgpu.cluster.cluster_model import Cluster
from aksgpu.errors import ApiServerRestricted, AzureConflict, InvalidInput, LocalAccountsDisabled
from aksgpu.kube import kubeconfig as kubeconfig_files
from aksgpu.local import Endpoint

from .conftest import SUBSCRIPTION, Answer, Script

ID = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/aks"


def config(name: str = "aks", token: str = "abc", **user: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": f"user_{name}", "user": user or {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": f"user_{name}"}}],
        "current-context": name,
    }


def give(script: Script, document: dict[str, Any]) -> None:
    value = base64.b64encode(yaml.safe_dump(document).encode()).decode()
    script.on("POST", "/listClusterUserCredential$", Answer(200, {"kubeconfigs": [{"name": "u", "value": value}]}))


@pytest.fixture
def aks(scripted: Azure) -> Cluster:
    return Cluster("aks", resource_group="rg", location="eastus", azure=scripted, id=ID)


def test_each_cluster_has_a_kubeconfig_that_only_its_owner_can_read(aks: Cluster, script: Script) -> None:
    give(script, config())
    path = cluster.kubeconfig(aks)
    assert path.parent.name == "kubeconfigs"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    give(script, config(token="new"))
    assert cluster.kubeconfig(aks) == path
    assert yaml.safe_load(path.read_text()) == config(token="new")
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_merging_keeps_existing_entries_and_sets_the_context(
    aks: Cluster, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(script, config())
    mine = tmp_path / "mine"
    mine.write_text(yaml.safe_dump(config("other") | {"preferences": {"colors": True}}))
    mine.chmod(0o644)
    link = tmp_path / "link"
    link.symlink_to(mine)
    monkeypatch.setenv("KUBECONFIG", f"{link}:{tmp_path / 'second'}")
    assert cluster.get_credentials(aks) == link
    assert cluster.get_credentials(aks) == link
    merged = yaml.safe_load(mine.read_text())
    assert [entry["name"] for entry in merged["contexts"]] == ["other", "aks"]
    assert (merged["current-context"], merged["preferences"]) == ("aks", {"colors": True})
    assert link.is_symlink()
    assert mine.stat().st_mode & 0o777 == 0o600, "it has credentials now"


def test_a_file_that_cannot_be_written(aks: Cluster, script: Script, tmp_path: Path) -> None:
    give(script, config())
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="file/config cannot be") as caught:
        cluster.get_credentials(aks, tmp_path / "file" / "config")
    assert caught.value.hint


def test_users_and_administrators_in_one_file(aks: Cluster, script: Script, tmp_path: Path) -> None:
    """AKS gives both contexts the same name. They must not conflict."""
    mine = tmp_path / "mine"
    for credential in ("clusterUser", "clusterAdmin"):
        document = config()
        document["users"][0]["name"] = f"{credential}_rg_aks"
        document["contexts"][0]["context"]["user"] = f"{credential}_rg_aks"
        value = base64.b64encode(yaml.safe_dump(document).encode()).decode()
        answer = Answer(200, {"kubeconfigs": [{"name": credential, "value": value}]})
        script.on("POST", f"/list{credential[0].upper()}{credential[1:]}Credential$", answer)
    cluster.get_credentials(aks, mine)
    cluster.get_credentials(aks, mine, admin=True)
    cluster.get_credentials(aks, mine)
    cluster.get_credentials(aks, mine, admin=True)
    merged = yaml.safe_load(mine.read_text())
    users = {entry["name"]: entry["context"]["user"] for entry in merged["contexts"]}
    assert users == {"aks": "clusterUser_rg_aks", "aks-admin": "clusterAdmin_rg_aks"}
    assert merged["current-context"] == "aks-admin"


def test_a_new_file_is_private_and_the_default_one_is_in_the_home(
    aks: Cluster, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(script, config())
    monkeypatch.setenv("HOME", str(tmp_path))
    path = cluster.get_credentials(aks)
    assert path == tmp_path / ".kube" / "config"
    assert path.stat().st_mode & 0o777 == 0o600


def test_another_cluster_of_the_same_name_is_not_overwritten_without_overwrite(
    aks: Cluster, script: Script, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    mine.write_text(yaml.safe_dump(config(token="old")))
    before = mine.read_text()
    give(script, config(token="new"))
    with pytest.raises(AzureConflict, match="overwrite_existing=True") as caught:
        cluster.get_credentials(aks, mine)
    assert "old" not in str(caught.value)
    assert mine.read_text() == before
    cluster.get_credentials(aks, mine, overwrite_existing=True)
    assert yaml.safe_load(mine.read_text())["users"][0]["user"] == {"token": "new"}


@pytest.mark.parametrize("text", ["- a list", "clusters: word", "a: [broken", "\x00"])
def test_a_file_that_is_not_a_kubeconfig_is_not_changed(
    aks: Cluster, script: Script, tmp_path: Path, text: str
) -> None:
    give(script, config())
    mine = tmp_path / "mine"
    mine.write_text(text)
    with pytest.raises(InvalidInput, match="not a kubeconfig"):
        cluster.get_credentials(aks, mine)
    assert mine.read_text() == text


def test_kubectl_reads_the_merged_file(azure: Azure, tmp_path: Path) -> None:
    aks = cluster.create(azure, "kubectl", resource_group="kubectl", location="eastus")
    path = cluster.get_credentials(aks, tmp_path / "config")
    command = ["kubectl", "--kubeconfig", str(path), "config", "view", "--minify", "-o", "json"]
    seen = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)
    assert seen["current-context"] == "kubectl"
    cluster.delete(aks)


def test_admin_credentials_of_a_cluster_without_local_accounts(aks: Cluster, script: Script) -> None:
    text = "Getting static credential is not allowed because this cluster is set to disable local accounts."
    body = {"code": "BadRequest", "details": None, "message": text, "subcode": ""}
    script.on("POST", "/listClusterAdminCredential$", Answer(400, body))
    with pytest.raises(LocalAccountsDisabled, match="Entra ID"):
        cluster.kubeconfig(aks, admin=True)


class Login:
    """A credential whose tokens are numbered."""

    def __init__(self) -> None:
        self.scopes: list[str] = []

    def get_token(self, *scopes: str, **_: Any) -> Any:
        from azure.core.credentials import AccessToken

        self.scopes += scopes
        return AccessToken(f"token-{len(self.scopes)}", 2**33)


KUBELOGIN = {
    "apiVersion": "client.authentication.k8s.io/v1beta1",
    "command": "kubelogin",
    "args": ["get-token", "--login", "devicecode", "--server-id", "6dae42f8-4368-4678-94ff-3960e28e3630"],
}


def entra(script: Script, **user: Any) -> dict[str, Any]:
    document = config(**user)
    authority = base64.b64encode(script.ca_file.read_bytes()).decode()
    document["clusters"][0]["cluster"] = {"server": script.base_url, "certificate-authority-data": authority}
    return document


def test_entra_id_works_without_kubelogin_and_the_token_is_renewed(aks: Cluster, script: Script) -> None:
    give(script, entra(script, exec=KUBELOGIN))
    expired = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Unauthorized", "code": 401}
    nodes = {"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": []}
    script.on("GET", "/api/v1/nodes", Answer(401, expired), Answer(200, nodes))
    login = Login()
    assert aks.azure is not None
    assert aks.kube is aks.kube
    assert aks.azure.client  # the endpoint's own credential is kept; the login below gives the tokens for the cluster
    aks.azure._credential = login
    aks._kube = None
    assert list(aks.kube.list("Node")) == []
    sent = [seen.headers["Authorization"] for seen in script.seen if seen.path == "/api/v1/nodes"]
    assert sent == ["Bearer token-1", "Bearer token-2"]
    assert set(login.scopes) == {AKS_SERVER_SCOPE}


def test_which_kubeconfigs_ask_for_entra_id() -> None:
    assert kubeconfig_files.entra_server({"exec": KUBELOGIN}) == "6dae42f8-4368-4678-94ff-3960e28e3630"
    assert kubeconfig_files.entra_server({"exec": {"command": "/usr/bin/kubelogin", "args": ["--server-id"]}}) == ""
    assert kubeconfig_files.entra_server({"auth-provider": {"name": "azure", "config": {"apiserver-id": "x"}}}) == "x"
    assert kubeconfig_files.entra_server({"exec": {"command": "gke-gcloud-auth-plugin"}}) is None
    assert kubeconfig_files.entra_server({"token": "abc"}) is None
    assert kubeconfig_files.user_of(config(token="abc")) == {"token": "abc"}
    assert kubeconfig_files.user_of(config(), "nobody") == {}


def test_from_kubeconfig_without_context(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(config() | {"current-context": ""}))
    with pytest.raises(InvalidInput, match="Existing contexts: aks"):
        cluster.from_kubeconfig(path)
    assert repr(cluster.from_kubeconfig(path, context="aks")) == "Cluster(aks)"
    with pytest.raises(InvalidInput):
        cluster.from_kubeconfig(tmp_path / "missing")


def _made_with(azure: Azure, name: str, **properties: Any) -> Cluster:
    """A cluster with settings that the library itself does not offer."""
    body = {
        "location": "eastus",
        "identity": {"type": "SystemAssigned"},
        "properties": {
            "dnsPrefix": name,
            "agentPoolProfiles": [{"name": "nodepool1", "count": 1, "vmSize": "Standard_D2s_v3", "mode": "System"}],
            **properties,
        },
    }
    group = f"{name}-group"
    path = f"/subscriptions/{azure.subscription_id}/resourcegroups/{group}"
    azure.request("PUT", path, body={"location": "eastus"}, api_version="2021-04-01")
    azure.client.managed_clusters.begin_create_or_update(group, name, body).result()
    return cluster.get(azure, name, resource_group=group)


def test_entra_id_works_without_kubelogin(azure: Azure, laptop: Endpoint) -> None:
    aks = _made_with(azure, "entra", aadProfile={"managed": True}, disableLocalAccounts=True)
    (user,) = yaml.safe_load(cluster.kubeconfig(aks).read_text())["users"]
    assert user["user"]["exec"]["command"] == "kubelogin"
    assert [node["metadata"]["labels"]["agentpool"] for node in aks.kube.list("Node")] == ["nodepool1"]
    with pytest.raises(LocalAccountsDisabled):
        cluster.kubeconfig(aks, admin=True)
    plain = _made_with(azure, "plain")
    server = yaml.safe_load(cluster.kubeconfig(plain).read_text())["clusters"][0]["cluster"]["server"]
    asked = urllib.request.Request(f"{server}/version", headers={"Authorization": f"Bearer {azure.kubernetes_token()}"})
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(asked, context=ssl.create_default_context(cafile=laptop.ca_file), timeout=60)


@pytest.mark.parametrize(
    ("name", "access"),
    [("private", {"enablePrivateCluster": True}), ("ranges", {"authorizedIPRanges": ["203.0.113.0/24"]})],
)
def test_the_laptop_has_clusters_that_do_not_answer(
    azure: Azure, name: str, access: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aksgpu.cluster.credentials._PROBE_TIMEOUT", 0.2)
    with pytest.raises(ApiServerRestricted):
        _ = _made_with(azure, name, apiServerAccessProfile=access).kube


def test_an_authorised_range_that_includes_this_machine(azure: Azure) -> None:
    aks = _made_with(azure, "inside", apiServerAccessProfile={"authorizedIPRanges": ["127.0.0.1/32"]})
    assert aks.kube.list("Node")


@pytest.mark.parametrize(
    ("access", "says"),
    [
        ({"enablePrivateCluster": True}, "is private"),
        ({"authorizedIPRanges": ["203.0.113.0/24"]}, "accepts connections only from 203.0.113.0/24"),
    ],
)
def test_a_restricted_cluster_that_does_not_respond_is_explained(
    aks: Cluster, script: Script, access: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aksgpu.cluster.credentials._PROBE_TIMEOUT", 0.2)
    give(script, config())  # no server listens there
    aks.access = access
    with pytest.raises(ApiServerRestricted, match=says):
        _ = aks.kube
    aks.access = {"enablePrivateCluster": False}
    assert aks.kube
