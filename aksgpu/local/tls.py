"""The laptop's certificate authority and its server certificate for the loopback address.

The authority is kept, because kubeconfig files contain it. Only the user can read the private keys.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from aksgpu.common.private_files import write_private

ORGANIZATION = "aksgpu laptop AKS"


def server_context(home: Path) -> ssl.SSLContext:
    """Return the server's TLS context. Create certificates that are missing or broken in ``home``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        ssl.create_default_context(cafile=home / "ca.pem")
        context.load_cert_chain(home / "server.pem")
    except OSError:
        _issue(home)
        context.load_cert_chain(home / "server.pem")
    return context


def _issue(home: Path) -> None:
    import trustme  # slow to import, and needed only the first time

    ca = home / "ca.pem"
    key = home / "ca-key.pem"
    try:
        authority = trustme.CA.from_pem(ca.read_bytes(), key.read_bytes())
    except (OSError, ValueError):
        authority = trustme.CA(organization_name=ORGANIZATION)
        write_private(key, authority.private_key_pem.bytes())
        write_private(ca, authority.cert_pem.bytes())
    leaf = authority.issue_cert("127.0.0.1", "localhost", "::1", organization_name=ORGANIZATION)
    write_private(home / "server.pem", leaf.private_key_and_cert_chain_pem.bytes())
