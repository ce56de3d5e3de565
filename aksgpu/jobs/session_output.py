"""Show the output of a session's call where the caller is: a terminal or a notebook cell."""

from __future__ import annotations

import codecs
import json
import sys

from aksgpu.kube.exec_stream import STDERR, STDOUT
from aksgpu.notebook import in_kernel
from aksgpu.payload.session_frames import DISPLAY

__all__ = ["SessionOutput"]


class SessionOutput:
    """Writes output to the streams of this process. Characters that come in pieces are put together."""

    def __init__(self) -> None:
        make = codecs.getincrementaldecoder("utf-8")
        self._decoders = {stream: make(errors="replace") for stream in (STDOUT, STDERR)}

    def show(self, stream: int, data: bytes) -> None:
        """Show a piece of output.

        Args:
            stream: standard output, error output, or an object to display.
            data: its bytes.
        """
        if stream == DISPLAY:
            _display(json.loads(data))
        elif stream in self._decoders:
            _write(stream, self._decoders[stream].decode(data))

    def flush(self) -> None:
        """Show what is left of characters that did not come completely."""
        for stream, decoder in self._decoders.items():
            _write(stream, decoder.decode(b"", final=True))


def _write(stream: int, text: str) -> None:
    if text:
        target = sys.stderr if stream == STDERR else sys.stdout
        target.write(text)
        target.flush()


def _display(bundle: dict[str, str]) -> None:
    if in_kernel() or _in_shell():
        from IPython.display import display

        display(dict(bundle), raw=True)
    else:
        _write(STDOUT, bundle["text/plain"] + "\n")


def _in_shell() -> bool:
    """Whether this process is an IPython shell."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return get_ipython() is not None
