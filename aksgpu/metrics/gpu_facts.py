"""What a log says about the GPU that a program found."""

from __future__ import annotations

import re
from typing import Any

from aksgpu.metrics.lines import Log, pieces

__all__ = ["EDGE", "FactsReader", "facts"]

EDGE = 256 * 1024
"""Bytes at each end of a log that are searched for facts."""

# Each of these patterns takes linear time. One pattern for two of them, with .* in between, would backtrack.
_DEVICE = re.compile(r"Creat(?:ing|ed) (?:TensorFlow )?device \(?(?P<device>/\S*?device:GPU:\d+)")
_DEVICE_MODEL = re.compile(r" -> \(?device: \d+, name: (?P<model>[^,\n]+),")
_NAME = "name: "
_VERSION = re.compile(r" major: \d+ minor: \d+")
_MEMORY = re.compile(r"totalMemory: (?P<memory>[\d.]+ ?[KMGT]i?B)")
_DRIVER_ERRORS = (
    "CUDA driver version is insufficient for CUDA runtime version",
    "CUDA_ERROR_",
    "no CUDA-capable device is detected",
    "couldn't communicate with the NVIDIA driver",
)
"""Texts of CUDA, TensorFlow and nvidia-smi about a driver that is missing or does not match."""
_SIMULATED = " (simulated)"


class FactsReader:
    """Keeps the two ends of a log, which are searched for facts."""

    def __init__(self) -> None:
        self._head = b""
        self._tail = b""

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the log."""
        room = EDGE - len(self._head)
        if room > 0:
            self._head += piece[:room]
            piece = piece[room:]
        if piece:
            self._tail = (self._tail + piece[-EDGE:])[-EDGE:]

    def facts(self) -> dict[str, Any]:
        """Return what :func:`facts` returns."""
        text = (self._head + self._tail).decode(errors="replace")
        # A search for a fixed string is many times faster than a search for a pattern.
        device, model = _first_device(text) if "device:GPU:" in text else (None, None)
        if model is None and " major: " in text:
            model = _model(text)
        memory = _MEMORY.search(text) if "totalMemory: " in text else None
        return {
            "gpu_model": model.removesuffix(_SIMULATED) if model else None,
            "device": device,
            "memory": memory["memory"] if memory else None,
            "simulated": bool(model and model.endswith(_SIMULATED)),
            "error": _first_error(text),
        }


def facts(text: Log) -> dict[str, Any]:
    """Return what a log says about the GPU, in its first and last 256 KiB.

    Args:
        text: a whole log, or its lines.

    Returns:
        - ``gpu_model`` (str or None): such as ``Tesla K80``;
        - ``device`` (str or None): TensorFlow's name of it, such as ``/device:GPU:0``;
        - ``memory`` (str or None): such as ``11.17GiB``;
        - ``simulated`` (bool): the log says that the GPU is simulated;
        - ``error`` (str or None): the first line about a driver that is missing or does not match.

    Raises:
        InvalidInput: ``text`` is neither text nor lines of text.
    """
    reader = FactsReader()
    for piece in pieces(text):
        reader.feed(piece)
    return reader.facts()


def _first_device(text: str) -> tuple[str | None, str | None]:
    """Return the name and GPU model of the first device that TensorFlow created."""
    position = 0
    while True:
        found = _DEVICE.search(text, position)
        if not found:
            return None, None
        end = text.find("\n", found.end())
        if end < 0:
            end = len(text)
        model = _DEVICE_MODEL.search(text, found.end(), end)
        if model:
            return found["device"], model["model"].strip()
        position = end


def _model(text: str) -> str | None:
    """Return the GPU model in the first line that lists a device's properties."""
    start = 0
    for version in _VERSION.finditer(text):
        start = max(start, text.rfind("\n", start, version.start()) + 1)
        name = text.rfind(_NAME, start, version.start())
        if name >= 0:
            return text[name + len(_NAME) : version.start()].strip()
        start = version.end()
    return None


def _first_error(text: str) -> str | None:
    places = [text.find(sign) for sign in _DRIVER_ERRORS if sign in text]
    if not places:
        return None
    start = max(text.rfind(end, 0, min(places)) for end in "\r\n") + 1
    return re.split(r"[\r\n]", text[start : start + 1000], maxsplit=1)[0].strip()
