"""The laptop's certificates: an authority of its own, made once, and a server certificate for the loopback address.

The authority is kept, since kubeconfig files embed it. Private keys are readable by the user alone.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from aksgpu.local.home import write_private

MAKER = "aksgpu laptop AKS"


def server_context(home: Path) -> ssl.SSLContext:
    """The context to serve TLS with; makes what certificates are missing or broken in ``home``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        ssl.create_default_context(cafile=home / "ca.pem")
        context.load_cert_chain(home / "server.pem")
    except OSError:
        _issue(home)
        context.load_cert_chain(home / "server.pem")
    return context


def _issue(home: Path) -> None:
    import trustme

    ca = home / "ca.pem"
    key = home / "ca-key.pem"
    try:
        authority = trustme.CA.from_pem(ca.read_bytes(), key.read_bytes())
    except (OSError, ValueError):
        authority = trustme.CA(organization_name=MAKER)
        write_private(key, authority.private_key_pem.bytes())
        write_private(ca, authority.cert_pem.bytes())
    leaf = authority.issue_cert("127.0.0.1", "localhost", "::1", organization_name=MAKER)
    write_private(home / "server.pem", leaf.private_key_and_cert_chain_pem.bytes())
