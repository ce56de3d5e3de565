"""Why a request got no answer, in words: read out of the exceptions that SDKs wrap around each other. Sends nothing.

Their own texts name objects of the HTTP library and repeat each other; here are the address and the innermost reason.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

__all__ = ["CONNECT_AGAIN", "address", "chain", "permanent", "reason", "refused", "timed_out", "unsent"]

CONNECT_AGAIN = "Connect again: azure = aksgpu.connect(...)"
"""What helps wherever an endpoint went away or moved; how each hint begins."""


def chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and those that it was made of, outermost first.

    Python's ``__context__`` is left out: it may be an error of the caller's own that was being handled.
    """
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        found = waiting.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        inside = (getattr(found, "inner_exception", None), getattr(found, "reason", None), *found.args, found.__cause__)
        waiting += [each for each in inside if isinstance(each, BaseException)]


def refused(error: BaseException) -> bool:
    """Whether nobody listens at the address: the machine is there, and refused the connection."""
    return any(isinstance(each, ConnectionRefusedError) for each in chain(error))


def timed_out(error: BaseException) -> bool:
    """Whether nothing came in time."""
    return any(isinstance(each, TimeoutError) or "Timeout" in type(each).__name__ for each in chain(error))


def unsent(error: BaseException) -> bool:
    """Whether there was no connection, so that the request surely did not reach the server."""
    if refused(error):
        return True
    for each in chain(error):
        if isinstance(each, socket.gaierror | ssl.SSLCertVerificationError):
            return True
        # urllib3's names, matched as text so that nothing is imported for it.
        if type(each).__name__ in ("NewConnectionError", "ConnectTimeoutError", "NameResolutionError"):
            return True
    return False


def permanent(error: BaseException) -> bool:
    """Whether trying again cannot help: the server is another one than the one whose certificate is trusted."""
    return any(isinstance(each, ssl.SSLCertVerificationError) for each in chain(error))


def reason(error: BaseException) -> str:
    """The innermost reason in words; the exception's own text where it is the only one."""
    *_, innermost = found = [*chain(error)]
    if refused(error):
        return "nobody listens there"
    for each in found:
        if isinstance(each, socket.gaierror):
            return "its name cannot be resolved"
        if isinstance(each, ssl.SSLError):
            return f"TLS failed ({getattr(each, 'verify_message', '') or each.reason or 'SSLError'})"
    if timed_out(error):
        return "nothing came in time"
    return type(innermost).__name__ if len(found) > 1 else str(getattr(error, "message", error))


def address(error: BaseException) -> str:
    """Host and port that the request was for; empty where no exception knows."""
    for each in chain(error):
        url = getattr(getattr(each, "request", None), "url", None)
        if url:
            return urlsplit(str(url)).netloc.rpartition("@")[2]
        for part in (getattr(each, "conn", None), *each.args):  # urllib3's connections, which have no address as text
            if hasattr(part, "host") and hasattr(part, "port"):
                return f"{part.host}:{part.port}" if part.port else str(part.host)
    return ""
