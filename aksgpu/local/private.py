"""A laptop AKS for a block of code, with nothing left of it: for tests, and for ``aksgpu tutorial``.

How one is started and stopped is :mod:`aksgpu.local.process`'s.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aksgpu.errors import LaptopError
from aksgpu.local.process import Endpoint, start, stop
from aksgpu.local.settings import Settings


@contextlib.contextmanager
def laptop(**settings: Any) -> Iterator[Endpoint]:
    """A private laptop AKS with a directory and a port of its own; stopped and removed at the end of the block.

    Args:
        **settings: fields of :class:`~aksgpu.local.settings.Settings`, such as ``time_scale=0.05``.

    Raises:
        LaptopError: it does not start. Its directory stays, for its log.
    """
    place = Path(tempfile.mkdtemp(prefix="aksgpu-"))
    with contextlib.ExitStack() as end:
        end.callback(shutil.rmtree, place, ignore_errors=True)
        end.callback(stop, home=place)
        try:
            endpoint = start(place, settings=Settings(**settings))
        except LaptopError:
            end.pop_all()
            with contextlib.suppress(LaptopError):  # the first error is the one to know
                stop(home=place)
            raise
        yield endpoint
