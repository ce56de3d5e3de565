"""Code that both the library and the laptop AKS use. It imports nothing else from the package."""

from __future__ import annotations

__all__: list[str] = []


def __dir__() -> list[str]:
    return __all__
