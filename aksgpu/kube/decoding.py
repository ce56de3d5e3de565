"""Decode JSON responses.

The cyclic garbage collector is off while a large response is decoded. Otherwise it runs hundreds of times over objects
that cannot be garbage yet, which takes three quarters of the time of a long list. Reference counting goes on.
"""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["decode"]

LARGE_RESPONSE = 100_000
"""Bytes from which the garbage collector is off while a response is decoded."""

_lock = threading.Lock()
_decoding = 0
"""Number of threads that decode a large response now."""
_was_enabled = False
"""Whether the garbage collector was on when the first of them began."""


def decode(body: bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: the text is not JSON.
    """
    if len(body) < LARGE_RESPONSE:
        return json.loads(body)
    with _without_collector():
        return json.loads(body)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Turn the garbage collector off; the last of several threads restores it."""
    global _decoding, _was_enabled
    with _lock:
        if _decoding == 0:
            _was_enabled = gc.isenabled()
            gc.disable()
        _decoding += 1
    try:
        yield
    finally:
        with _lock:
            _decoding -= 1
            if _decoding == 0 and _was_enabled:
                gc.enable()
