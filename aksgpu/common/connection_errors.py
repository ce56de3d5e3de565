"""Find out why a request got no response, from the nested exceptions of HTTP libraries and SDKs.

The texts of these exceptions are long and repeat each other. The functions return only the address and the reason.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

__all__ = ["CONNECT_AGAIN", "address", "chain", "permanent", "reason", "refused", "timed_out", "unsent"]

CONNECT_AGAIN = "Connect again: azure = aksgpu.connect(...)"
"""Start of the hints for an endpoint that has moved or no longer exists."""


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and the exceptions that it contains, outermost first.

    Python's ``__context__`` is omitted: it may be an error that the caller was handling.
    """
    seen: set[int] = set()
    queue = [error]
    while queue:
        found = queue.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        inside = (getattr(found, "inner_exception", None), getattr(found, "reason", None), *found.args, found.__cause__)
        queue += [each for each in inside if isinstance(each, BaseException)]


def refused(error: BaseException) -> bool:
    """Return whether the connection was refused, because no server listens at the address."""
    return any(isinstance(each, ConnectionRefusedError) for each in chain(error))


def timed_out(error: BaseException) -> bool:
    """Return whether the request timed out."""
    return any(isinstance(each, TimeoutError) or "Timeout" in type(each).__name__ for each in chain(error))


def unsent(error: BaseException) -> bool:
    """Return whether there was no connection, so that the request certainly did not reach the server."""
    if refused(error):
        return True
    for each in chain(error):
        if isinstance(each, socket.gaierror | ssl.SSLCertVerificationError):
            return True
        # Classes of urllib3, compared by name so that urllib3 need not be imported.
        if type(each).__name__ in ("NewConnectionError", "ConnectTimeoutError", "NameResolutionError"):
            return True
    return False


def permanent(error: BaseException) -> bool:
    """Return whether trying again cannot help, because the server's certificate is not trusted."""
    return any(isinstance(each, ssl.SSLCertVerificationError) for each in chain(error))


def reason(error: BaseException) -> str:
    """Return a description of the innermost reason, or the text of the exception if it has no inner one."""
    found = list(chain(error))
    if refused(error):
        return "the connection was refused"
    for each in found:
        if isinstance(each, socket.gaierror):
            return "the host name cannot be resolved"
        if isinstance(each, ssl.SSLError):
            return f"TLS failed ({getattr(each, 'verify_message', '') or each.reason or 'SSLError'})"
    if timed_out(error):
        return "the request timed out"
    return type(found[-1]).__name__ if len(found) > 1 else str(getattr(error, "message", error))


def address(error: BaseException) -> str:
    """Return the host and port of the request; empty if no exception has them."""
    for each in chain(error):
        url = getattr(getattr(each, "request", None), "url", None)
        if url:
            return urlsplit(str(url)).netloc.rpartition("@")[2]
        for part in (getattr(each, "conn", None), *each.args):  # a connection of urllib3
            if hasattr(part, "host") and hasattr(part, "port"):
                return f"{part.host}:{part.port}" if part.port else str(part.host)
    return ""
