"""The laptop's certificates: an authority of its own, made once, and a server certificate for the loopback address.

The authority is kept as long as it is valid, since kubeconfig files embed it. Private keys are readable by the user
alone.
"""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

NAMES = ("127.0.0.1", "localhost", "::1")
RENEW_BEFORE = timedelta(days=7)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only the user can read; readers see the old content or the new, never a part."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def server_context(home: Path) -> ssl.SSLContext:
    """The context to serve TLS with; makes or renews the certificates in ``home``."""
    ca, ca_key, server = home / "ca.pem", home / "ca-key.pem", home / "server.pem"
    if not (_valid(ca) and ca_key.exists() and _valid(server)):
        _issue(ca, ca_key, server)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(server)
    except (ssl.SSLError, OSError):
        _issue(ca, ca_key, server)
        context.load_cert_chain(server)
    return context


def _valid(path: Path) -> bool:
    """Whether the certificate is there and stays valid for a while."""
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return False
    return certificate.not_valid_after_utc - RENEW_BEFORE > datetime.now(UTC)


def _issue(ca: Path, ca_key: Path, server: Path) -> None:
    import trustme

    authority: trustme.CA | None = None
    if _valid(ca):
        try:
            authority = trustme.CA.from_pem(ca.read_bytes(), ca_key.read_bytes())
        except (OSError, ValueError, TypeError):
            authority = None
    if authority is None:
        authority = trustme.CA(organization_name="aksgpu laptop AKS")
        write_private(ca_key, authority.private_key_pem.bytes())
        write_private(ca, authority.cert_pem.bytes())
    leaf = authority.issue_cert(*NAMES, organization_name="aksgpu laptop AKS")
    write_private(server, leaf.private_key_and_cert_chain_pem.bytes())
