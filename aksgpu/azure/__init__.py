"""Azure subscriptions, reached through Azure Resource Manager.

    azure = aksgpu.connect("azure")

:func:`connect` returns an :class:`Azure`, the first argument of most functions of :mod:`aksgpu.cluster` and
:mod:`aksgpu.sizes`.
"""

from __future__ import annotations

from aksgpu.azure.subscription import Azure, KubeconfigTarget, StaticToken, connect, default_credential

__all__ = ["Azure", "KubeconfigTarget", "StaticToken", "connect", "default_credential"]


def __dir__() -> list[str]:
    return __all__
