"""The Kubernetes versions that the laptop AKS offers.

The patch versions are the laptop's own choice. Every version is served with the schemas and the behaviour of the
default one.
"""

from __future__ import annotations

PATCH_VERSIONS = {"1.35": "1.35.4", "1.36": "1.36.2", "1.37": "1.37.0"}
"""The offered patch version, by minor version."""
DEFAULT_MINOR = "1.36"
"""The minor version of a cluster whose request does not name a version."""
DEFAULT_VERSION = PATCH_VERSIONS[DEFAULT_MINOR]


def is_offered(version: str) -> bool:
    """Return whether a version is offered. It can be a minor version, such as 1.36, or a patch version."""
    return version in PATCH_VERSIONS or version in PATCH_VERSIONS.values()


def patch_version(version: str | None) -> str:
    """Return the patch version that is served for a version. It is the default one for None and unknown versions."""
    minor = ".".join((version or "").split(".")[:2])
    return PATCH_VERSIONS.get(minor, DEFAULT_VERSION)
