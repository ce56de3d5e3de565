"""The log of the background process: bounded in size, and quiet about what is only a client's doing.

Whoever can reach the port can send what is no HTTP; that must neither fill the disk nor hide what matters.
"""

from __future__ import annotations

import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path
from ssl import SSLError
from typing import IO, Any

from aiohttp.http_exceptions import HttpProcessingError

from aksgpu.local.home import private

LOG_BYTES = 5 * 1024 * 1024
_THEIRS = (HttpProcessingError, SSLError, ConnectionError, TimeoutError)
"""What goes wrong on a connection when its client sends nonsense or leaves."""


class _PrivateFile(RotatingFileHandler):
    def _open(self) -> IO[Any]:  # type: ignore[override]
        return open(self.baseFilename, self.mode, encoding="utf-8", opener=private)


def _matters(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], _THEIRS))


def set_up(path: Path) -> None:
    """Log to a file; one older file is kept."""
    handler = _PrivateFile(path, maxBytes=LOG_BYTES, backupCount=1)
    layout = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.INFO, format=layout, handlers=[handler])
    for name in ("aiohttp.server", "asyncio"):
        logging.getLogger(name).addFilter(_matters)
