"""Check the arguments of :mod:`aksgpu.storage` before any request is sent."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from aksgpu.common.arguments import shown
from aksgpu.errors import InvalidInput
from aksgpu.kube import path_names

__all__ = ["checksum", "claim_name", "claim_path", "local_source", "namespace", "url"]

_LONGEST_PATH = 4000
"""Characters of a path in a claim. Linux allows 4,096 bytes."""


def claim_name(value: object) -> str:
    """Return the name of a claim."""
    return path_names.check_name("PersistentVolumeClaim", value)


def namespace(value: object) -> str | None:
    """Return the name of a namespace; None for the context's."""
    return None if value is None else path_names.check_namespace(value)


def claim_path(value: object, argument: str) -> str:
    """Return a path in a claim, without a slash at its ends; empty for the claim's top directory."""
    if isinstance(value, PurePosixPath):
        value = str(value)
    hint = f"Paths begin at the top of the claim, for example {argument}='images/train'."
    if not isinstance(value, str) or len(value) > _LONGEST_PATH or "\0" in value:
        raise InvalidInput(f"`{argument}` must be a path in the claim, got {shown(value)}", hint=hint)
    if value.startswith("/") or ".." in value.split("/"):
        raise InvalidInput(
            f"`{argument}` must be a path in the claim, without '/' at the beginning and without '..', "
            f"got {shown(value)}",
            hint=hint,
        )
    return "/".join(part for part in value.split("/") if part not in ("", "."))


def local_source(value: object) -> Path:
    """Return the path of a local file or directory that exists."""
    if isinstance(value, str | os.PathLike):
        path = Path(os.fspath(value)).expanduser()
        if path.exists():
            return path
        raise InvalidInput(
            f"`source` must be a file or directory that exists, got {shown(str(value))}",
            hint=f"The working directory is {Path.cwd()}.",
        )
    raise InvalidInput(f"`source` must be a file or directory, got {shown(value)}", hint="For example 'data/images'.")


def url(value: object) -> str:
    """Return a URL with http:// or https://."""
    if isinstance(value, str) and value.isprintable() and " " not in value:
        parts = urlsplit(value)
        if parts.scheme in ("http", "https") and parts.hostname:
            return value
    raise InvalidInput(
        f"`url` must begin with https:// or http://, got {shown(value)}",
        hint="For a file in Azure Blob Storage, make a URL with a signature (SAS) in the portal or with `az`.",
    )


def checksum(value: object) -> str:
    """Return a SHA-256 in hexadecimal digits; empty for None."""
    if value is None:
        return ""
    if isinstance(value, str) and re.fullmatch(r"[0-9a-fA-F]{64}", value):
        return value.lower()
    raise InvalidInput(
        f"`sha256` must have 64 hexadecimal digits, got {shown(value)}", hint="`sha256sum FILE` prints them."
    )
