"""Check the address and the certificates of a kubeconfig before the first request.

A wrong one would look like a server that does not respond, and the request would be repeated.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from aksgpu.common.arguments import shown
from aksgpu.kube import login

__all__ = ["check", "check_certificates"]


def check(config: Mapping[str, Any], context: str) -> None:
    """Check the address of a context's API server.

    Raises:
        ValueError: it is not the address of an API server.
        InvalidInput: the context or its cluster does not exist.
    """
    details = login.entry(config, "contexts", context, "context")
    server = login.entry(config, "clusters", str(details.get("cluster")), "cluster").get("server")
    if not _is_address(server):
        raise ValueError(
            f"`server` of its cluster must be an address such as https://10.0.0.1:6443, got {shown(server)}"
        )


def _is_address(server: object) -> bool:
    if not isinstance(server, str):
        return False
    try:
        url = urlsplit(server)
        return url.scheme in ("http", "https") and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        return False


def check_certificates(configuration: Any) -> None:
    """Check that the certificates in a configuration of the ``kubernetes`` package can be read.

    Raises:
        ValueError: one is not a certificate, or the key does not belong to it.
        OSError: a file cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if configuration.verify_ssl and configuration.ssl_ca_cert:
        try:
            context.load_verify_locations(configuration.ssl_ca_cert)
        except ssl.SSLError as wrong:
            raise ValueError("its certificate authority is not a certificate in PEM format") from wrong
    if configuration.cert_file:
        try:
            # With a password, OpenSSL does not ask for one in the terminal. A key without encryption needs none.
            context.load_cert_chain(configuration.cert_file, configuration.key_file, password="")
        except ssl.SSLError as wrong:
            raise ValueError("its client certificate and key are not a pair in PEM format") from wrong
