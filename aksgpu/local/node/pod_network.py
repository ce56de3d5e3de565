"""The network of pods: their addresses, and their files ``/etc/hosts`` and ``/etc/hostname``.

All pods use this machine's network. Each pod has its own address in 127.64.0.0/10, so that programs in different
pods can listen on the same port if each binds its own address.

:class:`HostsFiles` replaces the cluster's DNS. It writes the names of Services and of their pods into the
``/etc/hosts`` of each pod. The files are written in place, because the containers have mounted them.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import random
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from aksgpu.local.control.informer import Informer
from aksgpu.local.objects import Object

log = logging.getLogger(__name__)

DOMAIN = "cluster.local"
CACHE_SECONDS = 30.0
"""Time for which the name of an ended pod can still be looked up, as in the cache of AKS' CoreDNS."""
WRITE_INTERVAL_SECONDS = 0.05
"""Shortest time between two updates of the files."""
MAX_HOSTNAME = 64
"""Bytes of a host name on Linux."""

_NETWORK = ipaddress.ip_network("127.64.0.0/10")
_LOCALHOST = (
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::0\tip6-localnet",
    "fe00::0\tip6-mcastprefix",
    "fe00::1\tip6-allnodes",
    "fe00::2\tip6-allrouters",
)
"""The first lines of the file that a kubelet writes."""


class AddressPool:
    """The addresses of the pods of all clusters of a laptop.

    They are chosen at random, so that the pods of two laptops on one machine have different addresses too.
    """

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._random = random.SystemRandom()

    def allocate(self) -> str:
        """Return an address that no other pod has."""
        while True:
            # The last byte is neither 0 nor 255, because some programs do not accept such addresses.
            offset = self._random.randrange(_NETWORK.num_addresses // 256) * 256 + self._random.randrange(1, 255)
            address = str(_NETWORK[offset])
            if address not in self._used:
                self._used.add(address)
                return address

    def reserve(self, address: str) -> None:
        """Mark the address of a pod from before a restart of the laptop as used."""
        self._used.add(address)

    def release(self, address: str) -> None:
        """Make the address of an ended pod available again."""
        self._used.discard(address)


def pod_hostname(pod: Object, node: str) -> str:
    """Return a pod's host name.

    Args:
        pod: the pod.
        node: the name of its node, which is the host name of a pod on the node's network.
    """
    spec = pod["spec"]
    if spec.get("hostNetwork"):
        return node[:MAX_HOSTNAME]
    name = str(spec.get("hostname") or pod["metadata"]["name"])[:63].rstrip("-.")
    if spec.get("setHostnameAsFQDN") and spec.get("subdomain"):
        return _full_name(pod, name)[:MAX_HOSTNAME]
    return name


def _full_name(pod: Object, hostname: str) -> str:
    return f"{hostname}.{pod['spec']['subdomain']}.{pod['metadata']['namespace']}.svc.{DOMAIN}"


def _own_lines(pod: Object, address: str) -> list[str]:
    """Return the lines of a pod's file that never change, as a kubelet writes them."""
    spec = pod["spec"]
    lines = ["# Kubernetes-managed hosts file.", *_LOCALHOST]
    if spec.get("hostNetwork"):
        lines.append(f"127.0.0.1\t{pod_hostname(pod, spec['nodeName'])}")
    else:
        hostname = str(spec.get("hostname") or pod["metadata"]["name"])[:63].rstrip("-.")
        full = [_full_name(pod, hostname)] if spec.get("subdomain") else []
        lines.append("\t".join([address, *full, hostname]))
    aliases = spec.get("hostAliases") or []
    if aliases:
        lines += ["", "# Entries added by HostAliases."]
        lines += ["\t".join([alias["ip"], *(alias.get("hostnames") or [])]) for alias in aliases]
    return lines


def _machine_lines() -> list[str]:
    """Return the entries of this machine's ``/etc/hosts``, because pods use its network."""
    try:
        lines = Path("/etc/hosts").read_text(errors="replace").splitlines()
    except OSError:
        return []
    entries = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return ["", "# Entries of this machine.", *entries] if entries else []


def write_in_place(path: Path, text: str) -> None:
    """Replace the content of a mounted file. A reader sees the old text or the new one.

    The text is padded to the old length before the file is truncated, so that no reader sees part of an old line.
    """
    data = text.encode()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        padding = os.fstat(fd).st_size - len(data)
        os.pwrite(fd, data + b"\n" * max(0, padding), 0)
        os.ftruncate(fd, len(data))
    finally:
        os.close(fd)


class ServiceNames:
    """The names of Services and of their pods, from the cluster's Endpoints."""

    def __init__(self) -> None:
        self._endpoints: dict[tuple[str, str], Object] = {}
        self._former: dict[tuple[str, str, str], tuple[str, float]] = {}

    def change(self, old: Object | None, new: Object | None) -> None:
        """Store a new version of an Endpoints object."""
        meta = (new or old or {})["metadata"]
        key = (meta["namespace"], meta["name"])
        hosts = _hosts(new) if new else {}
        old_hosts = _hosts(old) if old else {}
        for host, address in old_hosts.items():
            if host not in hosts:
                self._former[(*key, host)] = (address, time.monotonic() + CACHE_SECONDS)
        for host in hosts:
            self._former.pop((*key, host), None)
        if new is None:
            self._endpoints.pop(key, None)
            self._former = {former: value for former, value in self._former.items() if former[:2] != key}
        else:
            self._endpoints[key] = new

    def lines(self, namespace: str) -> list[str]:
        """Return the lines for a pod in this namespace. Names in the same namespace have a short form too."""
        lines: list[str] = []
        now = time.monotonic()
        self._former = {key: value for key, value in self._former.items() if value[1] > now}
        for (own, service), endpoints in sorted(self._endpoints.items()):
            short = own == namespace
            for address in _addresses(endpoints):
                lines.append("\t".join([address["ip"], *_forms(service, own, short)]))
                if address.get("hostname"):
                    lines.append("\t".join([address["ip"], *_forms(f"{address['hostname']}.{service}", own, short)]))
        for (own, service, host), (ip, _) in sorted(self._former.items()):
            lines.append("\t".join([ip, *_forms(f"{host}.{service}", own, own == namespace)]))
        return ["", "# Services.", *lines] if lines else []


def _addresses(endpoints: Object) -> Iterable[Object]:
    for subset in endpoints.get("subsets") or ():
        yield from subset.get("addresses") or ()


def pod_uids(endpoints: Object) -> set[str]:
    """Return the uids of the ready pods of Endpoints."""
    return {str((each.get("targetRef") or {}).get("uid", "")) for each in _addresses(endpoints)}


def _hosts(endpoints: Object) -> Mapping[str, str]:
    return {each["hostname"]: each["ip"] for each in _addresses(endpoints) if each.get("hostname")}


def _forms(name: str, namespace: str, short: bool) -> list[str]:
    forms = [f"{name}.{namespace}.svc.{DOMAIN}", f"{name}.{namespace}.svc", f"{name}.{namespace}"]
    return [*forms, name] if short else forms


class HostsFiles:
    """Keeps the ``/etc/hosts`` of all running pods of a cluster up to date.

    Args:
        endpoints: the informer of Endpoints.
    """

    def __init__(self, endpoints: Informer) -> None:
        self._endpoints = endpoints
        self._names = ServiceNames()
        self._pods: dict[str, tuple[Object, str, Path]] = {}
        self._written: dict[str, str] = {}
        self._changed = asyncio.Event()

    def start(self) -> None:
        """Read the Endpoints. The informer must have listed them."""
        self._endpoints.on_change(self._endpoints_changed)

    def _endpoints_changed(self, old: Object | None, new: Object | None) -> None:
        self._names.change(old, new)
        self._changed.set()

    async def run(self) -> None:
        """Write the files whenever a name changes, without end."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            services: dict[str, list[str]] = {}
            for uid, (pod, _, _) in list(self._pods.items()):
                namespace = pod["metadata"]["namespace"]
                if namespace not in services:
                    services[namespace] = self._names.lines(namespace)
                try:
                    self._write(uid, services[namespace])
                except OSError as error:  # the disk is full
                    log.warning("hosts file of pod %s: %s", uid, error)
            await asyncio.sleep(WRITE_INTERVAL_SECONDS)

    def add(self, pod: Object, address: str, directory: Path) -> None:
        """Write the file of a pod, and keep it up to date.

        Args:
            pod: the pod.
            address: its address.
            directory: the directory of the pod's files.
        """
        uid = pod["metadata"]["uid"]
        self._pods[uid] = (pod, address, hosts_path(directory))
        self._written.pop(uid, None)
        self._write(uid, self._names.lines(pod["metadata"]["namespace"]))

    def remove(self, uid: str) -> None:
        """Stop updating the file of a pod that has ended."""
        self._pods.pop(uid, None)
        self._written.pop(uid, None)

    def _write(self, uid: str, services: list[str]) -> None:
        pod, address, path = self._pods[uid]
        text = "\n".join([*_own_lines(pod, address), *services, *_machine_lines(), ""])
        if text != self._written.get(uid):
            write_in_place(path, text)
            self._written[uid] = text


def hosts_path(directory: Path) -> Path:
    """Return the path of a pod's ``/etc/hosts`` on this machine."""
    return directory / "etc-hosts"


def hostname_path(directory: Path) -> Path:
    """Return the path of a pod's ``/etc/hostname`` on this machine."""
    return directory / "hostname"
