"""Connections to the ports of a pod.

All pods use this machine's network, so a connection to a port could reach the program of another pod. Therefore the
listening sockets of the pod's own processes are read first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

import psutil

ANY_ADDRESSES = ("0.0.0.0", "::")
"""Addresses of programs that listen on all addresses."""


async def connect(
    supervisors: Iterable[int], pod_ip: str, uid: str, port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a port.

    Args:
        supervisors: the pids of the supervisors of the pod's containers.
        pod_ip: the pod's address; empty if it uses the node's.
        uid: the pod's uid, which the error names.
        port: the port.

    Raises:
        ConnectionRefusedError: no process of the pod listens on the port.
    """
    addresses = await asyncio.to_thread(listening_addresses, list(supervisors), port)
    for address in addresses:
        host = (pod_ip or "127.0.0.1") if address in ANY_ADDRESSES else address
        with contextlib.suppress(OSError):
            return await asyncio.open_connection(host, port)
        if address == "::":  # a program that accepts IPv6 alone
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("::1", port)
    where = f'failed to connect to localhost:{port} inside namespace "{uid}"'
    raise ConnectionRefusedError(f"{where}, IPv4: dial tcp4 127.0.0.1:{port}: connect: connection refused")


def listening_addresses(supervisors: Iterable[int], port: int) -> list[str]:
    """Return the addresses on which descendants of these processes listen at a port."""
    found: list[str] = []
    for pid in supervisors:
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(pid).children(recursive=True):
                found += _addresses(process, port)
    return list(dict.fromkeys(found))


def _addresses(process: psutil.Process, port: int) -> list[str]:
    """Return the addresses on which one process listens; none if it has ended."""
    with contextlib.suppress(psutil.Error, OSError):
        sockets = process.net_connections(kind="tcp")
        return [each.laddr.ip for each in sockets if each.status == psutil.CONN_LISTEN and each.laddr.port == port]
    return []
