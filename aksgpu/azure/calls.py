"""What every public call that talks to Azure does: check its arguments, keep its time, and end an interrupt plainly."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from aksgpu.azure import azure_arguments, throttling
from aksgpu.waiting import Interrupted

P = ParamSpec("P")
R = TypeVar("R")


def call(doing: str, goes_on: str = "") -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a public call.

    Args:
        doing: what it does, for progress and errors; ``{}`` is replaced by the name of what it is about.
        goes_on: what goes on in Azure when the call is interrupted; empty where nothing does.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def bounded(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = bound.arguments
            for name, value in given.items():
                if name in azure_arguments.CHECKS:
                    azure_arguments.CHECKS[name](value)
            what = doing.format(_subject(given))
            timeout = given.get("timeout", throttling.READ_TIMEOUT)
            with throttling.limit(timeout, what, given.get("progress")) as limit:
                try:
                    return function(*args, **kwargs)
                except KeyboardInterrupt as interrupt:
                    if isinstance(interrupt, Interrupted):
                        raise
                    sentence = f"{what}: nothing was begun in Azure."
                    if limit.running and goes_on:
                        again = f"cluster.{function.__name__}(...)"
                        sentence = f"{what}: {goes_on} goes on in Azure; {again} with the same arguments waits again."
                # Raised outside of the handler, so that the frames of the HTTP library are not shown as its context.
                raise Interrupted(sentence)

        return bounded

    return decorate


def warn(message: str) -> None:
    """Issue a warning that points at the line which calls the public function; called by that function itself."""
    warnings.warn(message, stacklevel=4)


def _subject(given: dict[str, Any]) -> str:
    """The name of what a call is about: a pool, else a cluster."""
    for argument in ("pool", "name", "aks", "location"):
        value = given.get(argument)
        if isinstance(value, str):
            return value
        if value is not None and isinstance(getattr(value, "name", None), str):
            return str(value.name)
    return ""
