"""Failures of the script that sets up a virtual machine as a node (AKS' extension ``vmssCSE``)."""

from __future__ import annotations

import re

from aksgpu.azure.refusal import Refusal, shell
from aksgpu.errors import AzureError, NodeBootstrapFailed

__all__ = ["node_setup_rule"]

_EXIT_CODE = re.compile(
    r'exit status\s?=\s?(?P<code>\d{1,9})\b|"ExitCode\\{0,4}":\s{0,3}\\{0,4}"?(?P<json>\d{1,9})\b|'
    r"\bexit code:?\s{1,3}(?P<words>\d{1,9})\b",
    re.I,
)
_CODE_NAMES = {
    "cnidownloadtimeout": 41,
    "outboundconnfail": 50,
    "k8sapiserverconnfail": 51,
    "k8sapiserverdnslookupfail": 52,
    "k8sdownloadtimeout": 31,
    "oraspullnetworktimeout": 211,
    "oraspullunauthorized": 212,
}
"""Parts of AKS' codes, such as ``VMExtensionError_OutBoundConnFail``, with the exit code that they mean."""

_DRIVER = {
    83: "Downloading the GPU driver took too long.",
    84: "The GPU driver did not start.",
    85: "Installing the GPU driver took too long.",
    86: "The GPU device plugin did not start.",
    87: "The GPU reports a corrupted InfoROM.",
    224: "The script could not determine whether a GPU driver is needed.",
    225: "NVIDIA's package repository key could not be fetched.",
    226: "NVIDIA's package repository could not be set up.",
    228: "The GPU monitoring service (DCGM) failed.",
    229: "The GPU monitoring service (DCGM) failed.",
    235: "The GPU monitoring service (DCGM) failed.",
}
"""Exit codes of the parts that concern the GPU."""
_NETWORK = {
    31: "The node could not download Kubernetes.",
    33: "The node could not download its images.",
    35: "The node could not pull an image.",
    41: "The node could not download the network plugin.",
    50: "The node has no outbound connection to mcr.microsoft.com.",
    51: "The node could not connect to the cluster's API server.",
    52: "The node could not resolve the name of the cluster's API server.",
    53: "The node could not resolve the name of the cluster's API server with Azure DNS.",
    124: "The script took too long, in most cases because a download is blocked.",
    211: "The node could not reach the container registry from which it starts.",
    212: "The container registry from which the node starts refused its identity.",
}
"""Exit codes that mean that a firewall, a network security group, a route or DNS is in the way."""
_OTHER = {
    34: "The kubelet did not start.",
    100: "The virtual machine did not receive the script.",
}

_SENTENCES = {
    "unable to establish outbound connection": 50,
    "err_outbound_conn_fail": 50,
    "unable to establish connection from agents": 51,
    "agents are unable to resolve": 52,
    "bootstrap container registry is not reachable": 211,
}
"""Parts of AKS' sentences about a failed set-up, with the exit code that they mean."""
_TEXT = re.compile(r"vmssCSE|VMExtension(?:Provisioning)?Error|VMExtensionProvisioningTimeout", re.I)
_TABLE = "https://aka.ms/aks-vmssCSE-errors"
"""The page that lists the exit codes."""
_RULES = "https://aka.ms/aks-required-ports-and-addresses"
"""The page that lists what the nodes must reach."""


def node_setup_rule(refusal: Refusal) -> AzureError | None:
    """Recognise a failed set-up of a node, with its exit code."""
    text = refusal.message
    by_name = _named_code(f"{refusal.code} {text[:200]}") or _code_of_sentence(text)
    known = _TEXT.search(refusal.code) or _TEXT.search(text)
    if not known and by_name is None:
        return None
    found = _EXIT_CODE.search(text)
    exit_code = by_name
    if found:
        exit_code = int(found["code"] or found["json"] or found["words"])
    if _DRIVER_EXTENSION.search(text):
        return NodeBootstrapFailed("", hint=_EXTENSION_HINT, exit_code=exit_code or None)
    return NodeBootstrapFailed("", hint=_hint(exit_code), exit_code=exit_code)


def _named_code(text: str) -> int | None:
    """Return the exit code that AKS' name of an error means; None if the text has no such name."""
    lower = text.lower()
    if "vmextension" not in lower:
        return None
    return next((code for name, code in _CODE_NAMES.items() if name in lower), None)


def _code_of_sentence(text: str) -> int | None:
    """Return the exit code that a sentence of AKS means; None if the text has no such sentence."""
    lower = text.lower()
    return next((code for sentence, code in _SENTENCES.items() if sentence in lower), None)


def _hint(exit_code: int | None) -> str:
    if exit_code in _NETWORK:
        return (
            f"{_NETWORK[exit_code]} Open outbound traffic from the nodes' subnet in the firewall, the network security "
            f"group and the routes, and check DNS: {_RULES} lists the addresses. Until then, a new pool fails in "
            "the same way." + shell("az network nsg list --output table")
        )
    again = (
        'Delete the pool and add it again: cluster.delete_pool(aks, "gpunp"), then cluster.add_gpu_pool(aks, "gpunp").'
    )
    if exit_code in _DRIVER:
        return (
            f"{_DRIVER[exit_code]} {again} If that fails too, choose another size from sizes.gpu_sizes(azure, location)"
            ', or pass gpu_driver="none" and install your own driver.' + shell(_DELETE)
        )
    if exit_code is None:
        return (
            f"The set-up of the node did not end in time. {again} If that fails too, choose another size from "
            "sizes.gpu_sizes(azure, location)." + shell(_DELETE)
        )
    meaning = _OTHER.get(exit_code, f"The set-up of the node failed with exit code {exit_code}.")
    return f"{meaning} {again} If that fails too, look up exit code {exit_code} at {_TABLE}.{shell(_DELETE)}"


_DRIVER_EXTENSION = re.compile(r"extension '(?:NvidiaGpuDriver|AmdGpuDriver)\w{1,20}'", re.I)
_EXTENSION_HINT = (
    "The extension that installs the GPU driver failed. AKS installs the driver of its nodes itself, so remove the "
    'extension from the scale set, or delete the pool and add it again: cluster.delete_pool(aks, "gpunp"), then '
    'cluster.add_gpu_pool(aks, "gpunp").'
    + shell("az vmss extension list --resource-group NODE_RESOURCE_GROUP --vmss-name SCALE_SET --output table")
)
_DELETE = "az aks nodepool delete --resource-group GROUP --cluster-name CLUSTER --name gpunp"
