"""Kubeconfigs of users: login programs, broken entries, and files that are not kubeconfigs."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from aksgpu import cluster
from aksgpu.cluster.cluster_model import Cluster
from aksgpu.errors import AzureError, AzureNotFound, InvalidInput
from aksgpu.kube import kubeconfig as kubeconfig_files

from .conftest import Answer, Script
from .test_credentials import aks, config, give

assert aks  # a fixture


def test_both_forms_of_an_option_and_another_program_of_the_same_name() -> None:
    joined = {"command": "kubelogin", "args": ["get-token", "--server-id=abc"]}
    assert kubeconfig_files.entra_server({"exec": joined}) == "abc"
    other = {"command": "kubelogin", "args": ["get-token", "--oidc-issuer-url=https://issuer", "--oidc-client-id=x"]}
    assert kubeconfig_files.entra_server({"exec": other}) is None
    assert kubeconfig_files.entra_server({"exec": None, "auth-provider": None}) is None


@pytest.mark.parametrize(
    "text", ["1e5", "0o17", "12", ".5", "-1e3", "y", "N", "yes", "null", "a b", "e5", "1 und\nzwei"]
)
def test_texts_that_yaml_would_read_as_another_type_are_quoted(tmp_path: Path, text: str) -> None:
    document = config() | {"users": [{"name": text, "user": {"token": text}}]}
    kubeconfig_files.write(tmp_path / "config", document)
    assert yaml.safe_load((tmp_path / "config").read_text()) == document
    if not text.startswith(("a", "e", "1 ")):
        assert f"token: '{text}'" in (tmp_path / "config").read_text()


@pytest.mark.parametrize(
    "user", [{"exec": "kubelogin"}, {"auth-provider": "azure"}, {"exec": {"command": "kubelogin", "args": "x"}}, "x"]
)
def test_users_that_are_not_mappings(tmp_path: Path, user: Any) -> None:
    document = config()
    document["users"][0]["user"] = user
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(InvalidInput, match="the kubeconfig's"):
        cluster.from_kubeconfig(path)


@pytest.mark.parametrize("entry", ["word", {"user": {}}, {"name": 5}])
def test_entries_without_a_name(aks: Cluster, script: Script, tmp_path: Path, entry: Any) -> None:
    give(script, config())
    mine = tmp_path / "mine"
    mine.write_text(yaml.safe_dump(config() | {"users": [entry]}))
    with pytest.raises(InvalidInput, match="its users are not named entries"):
        cluster.get_credentials(aks, mine)


def test_a_directory_is_not_a_kubeconfig(aks: Cluster, script: Script, tmp_path: Path) -> None:
    give(script, config())
    with pytest.raises(InvalidInput, match="cannot be read as a kubeconfig: Is a directory"):
        cluster.get_credentials(aks, tmp_path)


@pytest.mark.parametrize(
    "answer",
    [
        {"kubeconfigs": [{"name": "u", "value": "!!!"}]},
        {"kubeconfigs": [{"name": "u", "value": None}]},
        {"kubeconfigs": [{"name": "u", "value": 5}]},
        {"kubeconfigs": [{"name": "u", "value": base64.b64encode(b"\xff\xfe").decode()}]},
        {"kubeconfigs": [{"name": "u", "value": base64.b64encode(b"<html>Log in</html>").decode()}]},
        {"kubeconfigs": [{"name": "u", "value": base64.b64encode(b"a: [b").decode()}]},
        {"kubeconfigs": [{"name": "u", "value": base64.b64encode(b"clusters: []").decode()}]},
        {"kubeconfigs": ["u"]},
        {"kubeconfigs": "u"},
        {"kubeconfigs": {"a": "b"}},
        ["kubeconfigs"],
        "kubeconfigs",
        5,
    ],
    ids=str,
)
def test_an_invalid_kubeconfig_is_an_error_and_replaces_no_file(aks: Cluster, script: Script, answer: Any) -> None:
    give(script, config())
    path = cluster.kubeconfig(aks)
    before = path.read_text()
    script.on("POST", "/listClusterUserCredential$", Answer(200, answer))
    with pytest.raises(AzureError) as raised:
        cluster.kubeconfig(aks)
    assert raised.value.hint
    assert path.read_text() == before


@pytest.mark.parametrize("answer", [{"kubeconfigs": []}, {}])
def test_a_cluster_that_has_no_credentials_yet(aks: Cluster, script: Script, answer: Any) -> None:
    script.on("POST", "/listClusterUserCredential$", Answer(200, answer))
    with pytest.raises(AzureNotFound, match="has no credentials yet"):
        cluster.kubeconfig(aks)
