"""The container image that runs Python where the user names none."""

from __future__ import annotations

import os
import sys

__all__ = ["IMAGE_VARIABLE", "default_image"]

IMAGE_VARIABLE = "AKSGPU_IMAGE"
"""The environment variable with another default image."""
_OFFICIAL = "docker.io/library/python:{}-slim"


def default_image(version: str = "") -> str:
    """Return the image for a minor version of Python.

    Args:
        version: such as ``3.12``; empty for the version of this process, or the image of :data:`IMAGE_VARIABLE`.
    """
    configured = os.environ.get(IMAGE_VARIABLE)
    if configured and not version:
        return configured
    return _OFFICIAL.format(version or f"{sys.version_info.major}.{sys.version_info.minor}")
