"""Decode JSON responses, with orjson.

Before Python 3.12, the cyclic garbage collector runs hundreds of times while a large response is decoded, over objects
that cannot be garbage yet. This takes as long as the decoding itself, so there the collector is off during the
decoding. Since Python 3.12 the collector runs only between bytecode instructions, never within the decoder, and it
is left alone.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

__all__ = ["decode"]

LARGE_RESPONSE = 100_000
"""Bytes from which the garbage collector is off while a response is decoded."""
_COLLECTOR_INTERRUPTS = sys.version_info < (3, 12)
"""Whether the garbage collector can run within the decoder."""

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
    if len(body) < LARGE_RESPONSE or not _COLLECTOR_INTERRUPTS:
        return orjson.loads(body)
    with _without_collector():
        return orjson.loads(body)


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
