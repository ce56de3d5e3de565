"""The decorator of every public function that talks to Azure.

It checks the arguments, sets the deadline, and raises a short error after an interrupt.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from aksgpu.azure import azure_arguments, throttling
from aksgpu.common.notices import warn
from aksgpu.waiting import Interrupted

__all__ = ["call", "warn"]

P = ParamSpec("P")
R = TypeVar("R")


def call(doing: str, continues: str = "") -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a public function.

    Args:
        doing: what the function does, for progress and errors; ``{}`` is replaced by the name of the resource.
        continues: what continues in Azure if the function is interrupted; empty if nothing does.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def limited(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            arguments = bound.arguments
            for name, value in arguments.items():
                check = azure_arguments.CHECKS.get(name)
                if check is not None:
                    check(value)
            what = doing.format(_resource_name(arguments))
            timeout = arguments.get("timeout", throttling.READ_TIMEOUT)
            with throttling.limit(timeout, what, arguments.get("progress")) as limit:
                try:
                    return function(*args, **kwargs)
                except KeyboardInterrupt as interrupt:
                    if isinstance(interrupt, Interrupted):
                        raise
                    message = f"{what}: nothing was started in Azure."
                    if limit.running and continues:
                        again = f"cluster.{function.__name__}(...)"
                        message = (
                            f"{what}: {continues} continues in Azure; {again} with the same arguments waits for it."
                        )
                # Raised outside the handler, so that the HTTP library's frames are not shown as its context.
                raise Interrupted(message)

        return limited

    return decorate


def _resource_name(arguments: Mapping[str, Any]) -> str:
    """Return the name of the resource that a call is about: a pool, otherwise a cluster."""
    for argument in ("pool", "name", "aks", "location"):
        value = arguments.get(argument)
        if isinstance(value, str):
            return value
        name = getattr(value, "name", None)
        if isinstance(name, str):
            return name
    return ""
