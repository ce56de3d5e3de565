"""The log file of the background process. Its size is limited, and it contains no errors that clients cause.

Any program that can reach the port can send bytes that are not HTTP. They must not fill the disk or hide real errors.
"""

from __future__ import annotations

import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path
from ssl import SSLError
from typing import IO, Any

from aiohttp.http_exceptions import HttpProcessingError

from aksgpu.common.home import private

LOG_BYTES = 5 * 1024 * 1024
"""Size at which the file is rotated."""

_CLIENT_ERRORS = (HttpProcessingError, SSLError, ConnectionError, TimeoutError)
"""Exceptions of a connection whose client sends invalid data or disconnects."""


class _PrivateFileHandler(RotatingFileHandler):
    def _open(self) -> IO[Any]:  # type: ignore[override]  # the base class declares a TextIOWrapper
        return open(self.baseFilename, self.mode, encoding="utf-8", opener=private)


def _is_server_error(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], _CLIENT_ERRORS))


def set_up(path: Path) -> logging.Handler:
    """Log to a file, keep one older file, and return the handler."""
    handler = _PrivateFileHandler(path, maxBytes=LOG_BYTES, backupCount=1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("aksgpu", "aiohttp.server", "asyncio"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
    for name in ("aiohttp.server", "asyncio"):
        logging.getLogger(name).addFilter(_is_server_error)
    return handler
