"""Credentials of clusters: fetched from Azure, kept in a file of each cluster's own, merged into the user's when asked.

Clusters with Entra ID give a kubeconfig that runs ``kubelogin``, without which Python clients go on with no credentials
at all. Here the token comes from the login that already talks to Azure, and is asked for again when it has expired.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aksgpu import waiting
from aksgpu.azure.calls import call
from aksgpu.azure.subscription import AKS_SERVER_SCOPE, default_credential, translated
from aksgpu.azure.throttling import READ_TIMEOUT
from aksgpu.cluster.cluster_model import Cluster, azure_of
from aksgpu.common.private_files import write_private
from aksgpu.errors import ApiServerRestricted, AzureNotFound, InvalidInput, Unreachable
from aksgpu.kube import kubeconfig as _kubeconfig

if TYPE_CHECKING:
    from aksgpu.kube.client import Kube

_PROBE = 10.0
"""Seconds that a private or restricted API server has to answer before it counts as closed to this machine."""


@call("fetching credentials of cluster {}")
def kubeconfig(aks: Cluster, *, admin: bool = False, timeout: float | None = READ_TIMEOUT) -> Path:
    """Fetch a cluster's kubeconfig into a file of its own, readable by its owner only.

    Args:
        aks: the cluster.
        admin: the administrator's credentials, which clusters with local accounts off do not give.
        timeout: seconds to go on trying while Azure gives no usable answer; None for no limit.

    Returns:
        The file's path, for ``kubectl --kubeconfig`` and others. The same cluster always has the same file, and each
        call fetches it anew, so that a cluster deleted and created again is not met with old credentials.

    Raises:
        AzureNotFound: no such cluster.
        LocalAccountsDisabled: with ``admin``: the cluster gives no static credentials.
        AzureAuthError: the role "Azure Kubernetes Service Cluster User Role" is missing.
    """
    azure = azure_of(aks)
    clusters = azure.client.managed_clusters
    fetch = clusters.list_cluster_admin_credentials if admin else clusters.list_cluster_user_credentials
    with translated(f"credentials of cluster {aks.name}"):
        found = fetch(aks.resource_group, aks.name).kubeconfigs or []
    if not found:
        raise AzureNotFound(f"cluster {aks.name} gave no credentials", hint="Wait until its creation has ended.")
    path = _own_file(aks, admin)
    write_private(path, bytes(found[0].value).decode())
    return path


def _own_file(aks: Cluster, admin: bool) -> Path:
    digest = hashlib.sha256(aks.id.lower().encode()).hexdigest()[:8]
    return azure_of(aks).home / "kubeconfigs" / f"{aks.name}-{digest}{'-admin' if admin else ''}.yaml"


def forget(aks: Cluster) -> None:
    """Remove the files of a cluster that is gone. The user's own kubeconfig is left as it is."""
    for admin in (False, True):
        _own_file(aks, admin).unlink(missing_ok=True)


@call("fetching credentials of cluster {}")
def get_credentials(
    aks: Cluster,
    file: str | Path | None = None,
    overwrite_existing: bool = False,
    *,
    admin: bool = False,
    timeout: float | None = READ_TIMEOUT,
) -> Path:
    """Merge a cluster's credentials into the user's kubeconfig, and make it the current context.

    As ``az aks get-credentials`` does it. The file is written whole or not at all and keeps its mode; comments in it
    are lost, as they are with ``az`` and ``kubectl``.

    Args:
        aks: the cluster.
        file: kubeconfig to merge into; by default the first file of ``KUBECONFIG``, else ``~/.kube/config``.
        overwrite_existing: replace entries of the same names that differ, such as those of an older cluster.
        admin: the administrator's credentials.
        timeout: seconds to go on trying while Azure gives no usable answer; None for no limit.

    Returns:
        The file's path.

    Raises:
        AzureConflict: the file has other entries of the same names.
        InvalidInput: the file is not a kubeconfig.
        AzureError: as for :func:`kubeconfig`.
    """
    target = Path(file).expanduser() if file is not None else _kubeconfig.default_file()
    existing = _kubeconfig.read(target)
    addition = _kubeconfig.read(kubeconfig(aks, admin=admin))
    _kubeconfig.write(target, _kubeconfig.merge(existing, addition, where=str(target), overwrite=overwrite_existing))
    return target


def from_kubeconfig(path: str | Path | None = None, context: str | None = None) -> Cluster:
    """Any Kubernetes cluster, by its kubeconfig: for everything but the Azure part.

    Args:
        path: the file; by default as kubectl finds it: ``KUBECONFIG`` (several files are merged), else
            ``~/.kube/config``.
        context: a context in it; by default the current one.

    Returns:
        The cluster, named like the context. Nothing is sent yet.

    Raises:
        InvalidInput: no such file or context.
        Unauthorized: the kubeconfig asks for a login that does not work from Python.
    """
    from aksgpu.kube.client import Kube

    config = _kubeconfig.load(path)
    chosen = context or str(config.get("current-context") or "")
    if not chosen:
        names = ", ".join(sorted(entry["name"] for entry in config["contexts"])) or "none"
        raise InvalidInput("the kubeconfig has no current context", hint=f"Give context=...; there are: {names}.")
    refresh = _refresh(config, chosen, _default_token)
    return Cluster(chosen, kube=Kube.from_kubeconfig(path, context=chosen, refresh=refresh))


def connect(aks: Cluster) -> Kube:
    """The Kubernetes API of a cluster made through Azure."""
    from aksgpu.kube.client import Kube

    path = kubeconfig(aks)
    config = _kubeconfig.read(path)
    kube = Kube.from_kubeconfig(path, refresh=_refresh(config, None, azure_of(aks).kubernetes_token))
    if aks.access:
        _probe(aks, kube)
    return kube


def _probe(aks: Cluster, kube: Kube) -> None:
    """Ask a cluster that does not answer everybody whether it answers here, so that silence has a reason."""
    private = bool(aks.access.get("enablePrivateCluster"))
    ranges = tuple(aks.access.get("authorizedIPRanges") or ())
    if not private and not ranges:
        return
    try:
        with waiting.deadline(_PROBE):
            kube.request("GET", "/version")
    except Unreachable as error:
        if private:
            raise ApiServerRestricted(
                f"cluster {aks.name} is private: its Kubernetes API answers in its virtual network only",
                private=True,
                hint="Run this in the virtual network (a VM, a peered network, a VPN), or use `az aks command invoke`.",
            ) from error
        raise ApiServerRestricted(
            f"the Kubernetes API of cluster {aks.name} answers only {', '.join(ranges)}",
            ranges=ranges,
            hint="Add this machine: `az aks update --api-server-authorized-ip-ranges RANGES,MY_IP/32`.",
        ) from error


def _refresh(config: dict[str, Any], context: str | None, token: Callable[[str], str]) -> Callable[[], str] | None:
    server = _kubeconfig.entra_server(_kubeconfig.user_of(config, context))
    if server is None:
        return None
    if server and not re.fullmatch(r"[0-9a-fA-F-]{36}", server):
        raise InvalidInput(f"the kubeconfig asks for tokens of {server!r}, which is not the id of an application")
    scope = f"{server}/.default" if server else AKS_SERVER_SCOPE
    return lambda: token(scope)


def _default_token(scope: str) -> str:
    with translated("logging in to the cluster"):
        return str(default_credential().get_token(scope).token)
