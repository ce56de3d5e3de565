"""The type of Kubernetes objects."""

from __future__ import annotations

from typing import Any

__all__ = ["Object"]

Object = dict[str, Any]
"""A Kubernetes object, or a part of one, as the API sends it in JSON."""
