"""The laptop's certificate authority, its server certificate for the loopback address, and client certificates.

The authority is kept, because kubeconfig files contain it. Only the user can read the private keys. A cluster's
administrator has a certificate, as on AKS. It names the cluster, because all clusters have the same authority.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aksgpu.common.private_files import write_private

if TYPE_CHECKING:
    import trustme

ORGANIZATION = "aksgpu laptop AKS"
ADMINISTRATOR = "masterclient"
ADMINISTRATORS = "system:masters"


def server_context(home: Path) -> ssl.SSLContext:
    """Return the server's TLS context. Create certificates that are missing or broken in ``home``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        ssl.create_default_context(cafile=home / "ca.pem")
        context.load_cert_chain(home / "server.pem")
    except OSError:
        _issue(home)
        context.load_cert_chain(home / "server.pem")
    context.verify_mode = ssl.CERT_OPTIONAL  # A client may have a certificate instead of a token.
    context.load_verify_locations(home / "ca.pem")
    return context


def client_certificate(home: Path, cluster_id: str) -> tuple[bytes, bytes]:
    """Return the certificate and the private key of a cluster's administrator. Create them the first time."""
    directory = home / "clusters" / cluster_id
    certificate = directory / "client.pem"
    key = directory / "client-key.pem"
    if not certificate.exists() or not key.exists():
        leaf = _authority(home).issue_cert(
            ADMINISTRATOR,
            common_name=ADMINISTRATOR,
            organization_name=ADMINISTRATORS,
            organization_unit_name=cluster_id,
        )
        write_private(key, leaf.private_key_pem.bytes())
        write_private(certificate, leaf.cert_chain_pems[0].bytes())
    return certificate.read_bytes(), key.read_bytes()


def administered_cluster(peer: Mapping[str, Any] | None) -> str:
    """Return the id of the cluster whose administrator has a client's certificate; empty if it is no such certificate.

    Args:
        peer: the verified certificate as ``ssl.SSLSocket.getpeercert`` returns it, or None without one.
    """
    subject = {name: value for parts in (peer or {}).get("subject", ()) for name, value in parts}
    given = (subject.get("commonName"), subject.get("organizationName"))
    return str(subject.get("organizationalUnitName", "")) if given == (ADMINISTRATOR, ADMINISTRATORS) else ""


def _authority(home: Path) -> trustme.CA:
    """Return the certificate authority. Create it if its files are missing or broken."""
    import trustme  # slow to import, and seldom needed

    ca = home / "ca.pem"
    key = home / "ca-key.pem"
    try:
        return trustme.CA.from_pem(ca.read_bytes(), key.read_bytes())
    except (OSError, ValueError):
        authority = trustme.CA(organization_name=ORGANIZATION)
        write_private(key, authority.private_key_pem.bytes())
        write_private(ca, authority.cert_pem.bytes())
        return authority


def _issue(home: Path) -> None:
    leaf = _authority(home).issue_cert("127.0.0.1", "localhost", "::1", organization_name=ORGANIZATION)
    write_private(home / "server.pem", leaf.private_key_and_cert_chain_pem.bytes())
