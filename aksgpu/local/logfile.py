"""The log of the background process: bounded in size, and quiet about what is only a client's doing.

Whoever can reach the port can send what is no HTTP; that must neither fill the disk nor hide what matters.
"""

from __future__ import annotations

import logging
import os
from logging.handlers import RotatingFileHandler
from pathlib import Path
from ssl import SSLError
from typing import IO, Any

from aiohttp.http_exceptions import HttpProcessingError

from aksgpu.local.process import LOG_BYTES, LOG_OLD

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_THEIRS = (HttpProcessingError, SSLError, ConnectionError, TimeoutError)
"""What goes wrong on a connection when its client sends nonsense or leaves."""


class _File(RotatingFileHandler):
    """Puts a full log aside, as the starter of a process does, and keeps one such file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8")
        self.namer = lambda _: str(path.with_suffix(LOG_OLD))

    def _open(self) -> IO[Any]:  # type: ignore[override]
        return open(
            self.baseFilename, self.mode, encoding=self.encoding, opener=lambda path, flags: os.open(path, flags, 0o600)
        )


def _matters(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, _THEIRS)


def set_up(path: Path | None) -> None:
    """Log to a file, or to stderr when there is none."""
    handler: logging.Handler = _File(path) if path else logging.StreamHandler()
    handler.setFormatter(logging.Formatter(_FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name in ("aiohttp.server", "asyncio"):
        logging.getLogger(name).addFilter(_matters)
