"""Credentials of clusters: read from Azure, kept in one file per cluster, and merged into the user's file on request.

Clusters with Entra ID return a kubeconfig that runs ``kubelogin``. Without that program, Python clients continue
without credentials. Here the token comes from the login that is used for Azure, and is renewed when it expires.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from aksgpu import waiting
from aksgpu.azure.calls import call
from aksgpu.azure.subscription import AKS_SERVER_SCOPE, default_credential, translated
from aksgpu.azure.throttling import READ_TIMEOUT
from aksgpu.cluster.cluster_model import Cluster, azure_of
from aksgpu.errors import ApiServerRestricted, AzureError, AzureNotFound, InvalidInput, Unreachable
from aksgpu.kube import kubeconfig as kubeconfig_files
from aksgpu.waiting import Timeout

if TYPE_CHECKING:
    from aksgpu.kube.client import Kube

__all__ = ["connect", "delete_files", "from_kubeconfig", "get_credentials", "kubeconfig"]

_PROBE_TIMEOUT = 10.0
"""Seconds that the API server of a private or restricted cluster may take to respond."""

_DIGEST_LENGTH = 8
"""Hexadecimal digits of the cluster's id in the name of a file."""


@call("fetching credentials of cluster {}")
def kubeconfig(aks: Cluster, *, admin: bool = False, timeout: Timeout = READ_TIMEOUT) -> Path:
    """Write a cluster's kubeconfig into its own file, which only its owner can read.

    Args:
        aks: the cluster.
        admin: use the administrator's credentials, which clusters without local accounts do not have.
        timeout: seconds, or text such as ``"2m"``, to keep trying while Azure gives no usable response; None for no
            limit.

    Returns:
        The path of the file, for ``kubectl --kubeconfig`` and other programs. A cluster always has the same file. Each
        call fetches the credentials again, so that a cluster that was deleted and created again gets new ones.

    Raises:
        AzureNotFound: the cluster does not exist.
        LocalAccountsDisabled: with ``admin``, the cluster has no static credentials.
        AzureAuthError: the role "Azure Kubernetes Service Cluster User Role" is missing.
        AzureError: Azure returned something that is not a kubeconfig.
    """
    azure = azure_of(aks)
    clusters = azure.client.managed_clusters
    fetch = clusters.list_cluster_admin_credentials if admin else clusters.list_cluster_user_credentials
    what = f"credentials of cluster {aks.name}"
    with translated(what):
        response = fetch(aks.resource_group, aks.name)
    text = _kubeconfig_text(response, aks.name, what)
    path = _file_of(aks, admin)
    kubeconfig_files.write_text(path, text)
    return path


def _kubeconfig_text(response: Any, cluster: str, what: str) -> str:
    """Return the kubeconfig in Azure's response.

    Raises:
        AzureNotFound: the response has no kubeconfig.
        AzureError: it has something else.
    """
    try:
        # The SDK decodes fields when they are read, so any of these may fail.
        found = response.kubeconfigs or []
        text = bytes(found[0].value).decode() if found else ""
        document = yaml.safe_load(text)
    except (ValueError, TypeError, LookupError, AttributeError, yaml.YAMLError) as error:
        raise _not_a_kubeconfig(what) from error
    if not found:
        raise AzureNotFound(
            f"cluster {cluster} has no credentials yet", hint="Wait until its creation ends, then try again."
        )
    if not _is_kubeconfig(document):
        raise _not_a_kubeconfig(what)
    return text


def _is_kubeconfig(document: Any) -> bool:
    """Return whether a YAML document has the sections of a kubeconfig, with named entries."""
    if not isinstance(document, dict):
        return False
    for section in ("clusters", "contexts", "users"):
        entries = document.get(section)
        if not isinstance(entries, list) or not entries:
            return False
        if not all(isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in entries):
            return False
    return True


def _not_a_kubeconfig(what: str) -> AzureError:
    return AzureError(
        f"{what}: the response is not a kubeconfig",
        http_status=200,
        hint="Run the cell again. If the error persists, check whether a proxy changes Azure's responses.",
    )


def _file_of(aks: Cluster, admin: bool) -> Path:
    """Return the path of the file that has the cluster's credentials."""
    digest = hashlib.sha256(aks.id.lower().encode()).hexdigest()[:_DIGEST_LENGTH]
    return azure_of(aks).home / "kubeconfigs" / f"{aks.name}-{digest}{'-admin' if admin else ''}.yaml"


def delete_files(aks: Cluster) -> None:
    """Delete the credentials of a cluster that no longer exists. The user's own kubeconfig does not change."""
    for admin in (False, True):
        _file_of(aks, admin).unlink(missing_ok=True)


@call("fetching credentials of cluster {}")
def get_credentials(
    aks: Cluster,
    file: str | Path | None = None,
    *,
    overwrite_existing: bool = False,
    admin: bool = False,
    timeout: Timeout = READ_TIMEOUT,
) -> Path:
    """Merge a cluster's credentials into the user's kubeconfig, and make the cluster the current context.

    This is what ``az aks get-credentials`` does. The context has the cluster's name, followed by ``-admin`` for the
    administrator. The file is either written completely or does not change, and only its owner can read it then.
    Comments in it are lost, as with ``az`` and ``kubectl``.

    Args:
        aks: the cluster.
        file: kubeconfig to merge into; by default the first file of ``KUBECONFIG``, otherwise ``~/.kube/config``.
        overwrite_existing: replace entries of the same names that differ, such as those of an earlier cluster.
        admin: use the administrator's credentials.
        timeout: seconds, or text such as ``"2m"``, to keep trying while Azure gives no usable response; None for no
            limit.

    Returns:
        The path of the file.

    Raises:
        AzureConflict: the file has different entries of the same names.
        InvalidInput: the file is not a kubeconfig, or cannot be written.
        AzureError: the errors of :func:`kubeconfig`.
    """
    target = kubeconfig_files.expanded(file) if file is not None else kubeconfig_files.default_file()
    existing = kubeconfig_files.read(target)
    addition = kubeconfig_files.read(kubeconfig(aks, admin=admin))
    if admin:
        addition = kubeconfig_files.with_admin_context(addition)
    merged = kubeconfig_files.merge(existing, addition, where=str(target), overwrite=overwrite_existing)
    kubeconfig_files.write(target, merged)
    return target


def from_kubeconfig(path: str | Path | None = None, *, context: str | None = None) -> Cluster:
    """Return the cluster of a kubeconfig. Everything except the functions for Azure works with it.

    Args:
        path: the file; by default the one that kubectl uses: ``KUBECONFIG`` (several files are merged), otherwise
            ``~/.kube/config``.
        context: name of a context in it; by default the current one.

    Returns:
        The cluster, with the name of the context. No request is sent yet.

    Raises:
        InvalidInput: the file or the context does not exist.
        Unauthorized: the kubeconfig requires a login that does not work from Python.

    Example:
        >>> aks = cluster.from_kubeconfig("~/.kube/config")
    """
    # Lazy import: the Kubernetes client is only needed here.
    from aksgpu.kube.client import Kube

    config = kubeconfig_files.load(path)
    name = context or str(config.get("current-context") or "")
    if not name:
        names = ", ".join(sorted(entry["name"] for entry in config["contexts"])) or "none"
        raise InvalidInput(
            "`context` must be given, because the kubeconfig has no current context",
            hint=f"Existing contexts: {names}.",
        )
    refresh = _token_refresh(config, name, _default_token)
    return Cluster(name, kube=Kube.from_kubeconfig(path, context=name, refresh=refresh))


def connect(aks: Cluster) -> Kube:
    """Return the Kubernetes API of a cluster of Azure."""
    from aksgpu.kube.client import Kube

    path = kubeconfig(aks)
    config = kubeconfig_files.read(path)
    refresh = _token_refresh(config, None, azure_of(aks).kubernetes_token)
    kube = Kube.from_kubeconfig(path, refresh=refresh)
    if aks.access:
        _probe(aks, kube)
    return kube


def _probe(aks: Cluster, kube: Kube) -> None:
    """Raise ApiServerRestricted if the API of a private or restricted cluster does not respond to this machine."""
    is_private = bool(aks.access.get("enablePrivateCluster"))
    ranges = tuple(aks.access.get("authorizedIPRanges") or ())
    if not is_private and not ranges:
        return
    try:
        with waiting.deadline(_PROBE_TIMEOUT):
            kube.request("GET", "/version")
    except Unreachable as error:
        if is_private:
            raise ApiServerRestricted(
                f"cluster {aks.name} is private: only its virtual network reaches its Kubernetes API",
                private=True,
                hint="Run this in the virtual network (a VM, a peered network, a VPN), or use `az aks command invoke`.",
            ) from error
        raise ApiServerRestricted(
            f"the Kubernetes API of cluster {aks.name} accepts connections only from {', '.join(ranges)}",
            ranges=ranges,
            hint="Add this machine: `az aks update --api-server-authorized-ip-ranges RANGES,MY_IP/32`.",
        ) from error


def _token_refresh(
    config: dict[str, Any], context: str | None, get_token: Callable[[str], str]
) -> Callable[[], str] | None:
    """Return a function that gets a new token, if the kubeconfig requires one of Entra ID."""
    server = kubeconfig_files.entra_server(kubeconfig_files.user_of(config, context))
    if server is None:
        return None
    if server and not re.fullmatch(r"[0-9a-fA-F-]{36}", server):
        raise InvalidInput(
            f"the kubeconfig's server id must be the id of an application, got {server!r}",
            hint="Fetch the kubeconfig again with cluster.kubeconfig(aks).",
        )
    scope = f"{server}/.default" if server else AKS_SERVER_SCOPE
    return lambda: get_token(scope)


def _default_token(scope: str) -> str:
    with translated("logging in to the cluster"):
        return str(default_credential().get_token(scope).token)
