"""Log lines to a tidy DataFrame: the accuracy at each step, and the facts around it.

What is read is what the tutorial's program prints, ``Accuracy at step 10: 0.7457``. A line may be prefixed as
``kubectl logs`` does with ``--timestamps`` and ``--prefix``, may be coloured (ANSI), and may end in a carriage return
or follow one, as progress bars do. Everything else in a log is passed over. Where the text comes from is no business
of this module.
"""

from __future__ import annotations

import io
import re
from collections.abc import Hashable, Iterable, Iterator
from itertools import chain
from typing import Any

import pandas as pd

__all__ = ["facts", "parse"]

_BLOCK = 4 << 20  # characters that are looked at in one go
_EDGE = 256 << 10  # characters at either end of a log in which facts are looked for

_COLUMNS: dict[Hashable, Any] = {"step": "int64", "accuracy": "float64"}
# Before 3.1, pandas rounds the last digit of a third of all numbers unless told; since then, it warns when told.
_EXACT: dict[str, Any] = (
    {"float_precision": "round_trip"} if tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1) else {}
)
_MARKER = b"Accuracy at step "
_STEP = rb"\d{1,15}"  # 15 digits fit into an int64
_NUMBER = rb"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|nan|NaN|-?inf|-?Infinity"
_PREFIX = rb"(?:\[pod/[^\]\n]*\] )?(?:\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[-+]\d\d:\d\d) )?"
# Python's re looks for a literal prefix at memory speed, and for ^ line by line, 5 times slower. So the usual lines
# are found by the first; only a block in which it does not account for every marker is read again with the second.
_USUAL = re.compile(rb"\nAccuracy at step (" + _STEP + rb": \d+\.\d+)(?=\n)")
_ANY = re.compile(
    rb"^" + _PREFIX + rb"[ \t]*Accuracy at step (" + _STEP + rb": (?:" + _NUMBER + rb"))[ \t]*$", re.MULTILINE
)

_COLOUR = re.compile(rb"\x1b(?:\[[\d;?]*[A-Za-z]|\(B)")

_DEVICE = re.compile(
    r"Creat(?:ing|ed) (?:TensorFlow )?device \(?(?P<device>/\S*?device:GPU:\d+)\)?.*?"
    r" -> \(?device: \d+, name: (?P<model>[^,\n]+),"
)
_MODEL = re.compile(r"name: (?P<model>[^\n]+?) major: \d+ minor: \d+")
_MEMORY = re.compile(r"totalMemory: (?P<memory>[\d.]+ ?[KMGT]i?B)")
_ERRORS = (  # how CUDA, TensorFlow and nvidia-smi tell that the driver is missing or does not fit
    "CUDA driver version is insufficient for CUDA runtime version",
    "CUDA_ERROR_",
    "no CUDA-capable device is detected",
    "couldn't communicate with the NVIDIA driver",
)
_SIMULATED = " (simulated)"


def parse(text: str | bytes | Iterable[str] | Iterable[bytes]) -> pd.DataFrame:
    """The accuracies in a log.

    A last line without its end counts if it reads as a whole one. Steps come in the log's order, and as often as they
    are logged: a container that was restarted starts again at step 0.

    Args:
        text: a log, whole; or its lines, with or without their ends, such as an open file or ``job.follow()``.

    Returns:
        One row a line that tells an accuracy; none for a log without.

        - ``step`` (int64): training step, from 0;
        - ``accuracy`` (float64): share of the test images that were recognised, 0 to 1; may be NaN where the
          program printed ``nan``.

        ``.attrs["facts"]`` is what :func:`facts` gives.
    """
    head, tail = b"", b""
    parts = [_points(b"")]
    for block in _blocks(text):
        head = head or block[:_EDGE]
        tail = (tail + block)[-_EDGE:] if len(block) < _EDGE else block[-_EDGE:]
        parts.append(_points(block))
    frame = pd.concat(parts, ignore_index=True)
    frame.attrs["facts"] = _facts(head, tail)
    return frame


def facts(text: str | bytes | Iterable[str] | Iterable[bytes]) -> dict[str, Any]:
    """What a log says about the GPU, in its first and last 256 KiB.

    Args:
        text: as for :func:`parse`.

    Returns:
        - ``gpu_model`` (str or None): such as ``Tesla K80``;
        - ``device`` (str or None): TensorFlow's name of it, such as ``/device:GPU:0``;
        - ``memory`` (str or None): such as ``11.17GiB``;
        - ``simulated`` (bool): the log calls that GPU simulated;
        - ``error`` (str or None): the first line that tells of missing or unfit drivers.
    """
    head, tail = b"", b""
    for block in _blocks(text):
        head = head or block[:_EDGE]
        tail = (tail + block)[-_EDGE:]
    return _facts(head, tail)


def _facts(head: bytes, tail: bytes) -> dict[str, Any]:
    text = (head if head == tail else head + b"\n" + tail).decode(errors="replace")
    device, properties, memory = (pattern.search(text) for pattern in (_DEVICE, _MODEL, _MEMORY))
    named = device or properties
    model = named["model"].strip() if named else None
    return {
        "gpu_model": model.removesuffix(_SIMULATED) if model else None,
        "device": device["device"] if device else None,
        "memory": memory["memory"] if memory else None,
        "simulated": bool(model and model.endswith(_SIMULATED)),
        "error": _first_error(text),
    }


def _first_error(text: str) -> str | None:
    places = [place for sign in _ERRORS if (place := text.find(sign)) >= 0]
    if not places:
        return None
    start = max(text.rfind(end, 0, min(places)) for end in "\r\n") + 1
    return re.split(r"[\r\n]", text[start : start + 1000], maxsplit=1)[0].strip()


def _points(block: bytes) -> pd.DataFrame:
    """Steps and accuracies of whole lines."""
    block = b"\n" + block + b"\n"
    found = _USUAL.findall(block)
    if len(found) != block.count(_MARKER):
        found = _ANY.findall(_COLOUR.sub(b"", block).replace(b"\r", b"\n"))
    table = io.BytesIO(b"\n".join(found).replace(b" ", b"") or b"\n")
    points: pd.DataFrame = pd.read_csv(  # three times as fast as float() of each
        table, sep=":", names=list(_COLUMNS), dtype=_COLUMNS, skip_blank_lines=True, **_EXACT
    )
    return points


def _blocks(text: str | bytes | Iterable[str] | Iterable[bytes]) -> Iterator[bytes]:
    """A log as blocks of whole lines: the memory that parsing takes is theirs, not the log's."""
    if not isinstance(text, (str, bytes)):
        yield from _batches(text)
        return
    newline: Any = "\n" if isinstance(text, str) else b"\n"
    start = 0
    while start < len(text):
        stop = start + _BLOCK
        if stop < len(text):
            cut = text.rfind(newline, start, stop)
            if cut < 0:  # a line longer than a block
                cut = text.find(newline, stop)
            stop = cut + 1 if cut >= 0 else len(text)
        block = text[start:stop]
        yield block.encode(errors="replace") if isinstance(block, str) else block
        start = stop


def _batches(lines: Iterable[str] | Iterable[bytes]) -> Iterator[bytes]:
    batch: list[Any] = []
    size = 0
    for line in chain(lines):
        batch.append(line)
        size += len(line)
        if size >= _BLOCK:
            yield _join(batch)
            batch, size = [], 0
    if batch:
        yield _join(batch)


def _join(lines: list[Any]) -> bytes:
    if isinstance(lines[0], bytes):
        return b"\n".join(line.rstrip(b"\n") for line in lines)
    return "\n".join(line.rstrip("\n") for line in lines).encode(errors="replace")
