"""Interrupt the main thread of a test, as Ctrl-C does, when something is true."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from support.polling import wait_for


@contextmanager
def interrupt_when(check: Callable[[], object]) -> Iterator[None]:
    """Send SIGINT to this process during the block, once the result of ``check`` is true.

    Nothing is sent after the block, even if the block has failed.
    """
    has_ended = threading.Event()

    def interrupt() -> None:
        wait_for(lambda: has_ended.is_set() or check())
        if not has_ended.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    try:
        yield
    finally:
        has_ended.set()
        thread.join()
