"""What a program's log says about the device that it trains on."""

from __future__ import annotations

import re

__all__ = ["DeviceWords"]

_ON_CPU = re.compile(
    r"\busing (?:device:? ?)?['\"]?cpu\b"
    r"|\bdevice ?[:=] ?(?:device\(type=|torch\.device\()?['\"]?cpu\b"
    r"|GPU available: False"
    r"|GPU available: True[^\n]{0,40}, used: False"
    r"|GPU will not be used"
    r"|Skipping registering GPU devices"
    r"|falling back to cpu\b"
    r"|\bCUDA (?:is )?not available"
    r"|\bCUDA available ?[:=] ?False"
    r"|\bis_available\(\)[:= ]{1,4}False"
    r"|Num GPUs Available:? {0,4}0\b"
    r"|No visible GPU is found"
    r"|\btorch-\S{1,40} CPU \(",
    re.IGNORECASE,
)
"""Lines of PyTorch's examples, Lightning, TensorFlow, JAX, XGBoost and Ultralytics about training without a GPU."""
_ON_GPU = re.compile(
    r"\busing (?:device:? ?)?['\"]?(?:cuda|gpu)\b"
    r"|\bdevice ?[:=] ?(?:device\(type=|torch\.device\()?['\"]?(?:cuda|gpu)\b"
    r"|GPU available: True[^\n]{0,40}, used: True"
    r"|Created device \S{0,80}GPU:\d"
    r"|\bCUDA available ?[:=] ?True"
    r"|Num GPUs Available:? {0,4}[1-9]"
    r"|\bCUDA:\d{1,2} \(",
    re.IGNORECASE,
)
_SIGNS = ("cpu", "gpu", "cuda")
"""Every such line has one of these."""
_LONGEST_LINE = 1000
"""Characters of a line that are read."""
_LONGEST_QUOTE = 120
"""Characters of a line that are kept."""


class DeviceWords:
    """Reads lines of a log.

    Attributes:
        cpu: the first line that says that the program trains on the CPU; empty if there is none.
        uses_gpu: whether a line says that it uses a GPU.
    """

    def __init__(self) -> None:
        self.cpu = ""
        self.uses_gpu = False

    def feed(self, line: str) -> None:
        """Read a line of the program, without its time."""
        text = line[:_LONGEST_LINE]
        lowered = text.lower()
        if not any(sign in lowered for sign in _SIGNS):
            return
        if _ON_GPU.search(text):
            self.uses_gpu = True
        elif not self.cpu and _ON_CPU.search(text):
            self.cpu = " ".join(text.split())[:_LONGEST_QUOTE]
