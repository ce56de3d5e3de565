"""Find the first error of the process that failed first in a log.

The last lines of a training's log are often not about its error: torchrun prints a summary, wrappers print tracebacks
of their own, and the other processes report that they lost their connection. The error is above them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from aksgpu.diagnose.failure_text import Failure, FailureText, Place, Weight

__all__ = ["FirstError", "find_first_error"]

_RANK = re.compile(
    r"^\s{0,4}(?:\[(?:rank|default|trainer|worker)?(?P<rank>\d{1,6})\]:|\[1,(?P<mpi>\d{1,6})\]<std(?:err|out)>:"
    r"|\((?:\w{1,40} )?pid=(?P<pid>\d{1,9})(?:, ip=[\d.]{7,15})?(?:, [^()\n]{0,80})?\)|(?P<srun>\d{1,5}):)\s?"
)
"""How launchers mark the lines of a process: torch, torchrun, MPI, Ray, Slurm."""
_NUMBER = re.compile(r"\d{1,30}(?:\.\d{1,30})?")
_TRACEBACK = "Traceback (most recent call last):"
_WRAPPER = re.compile(
    r"ChildFailedError|CalledProcessError|ProcessExitedException|ProcessRaisedException|SystemExit|KeyboardInterrupt"
    r"|SignalException|BrokenProcessPool|concurrent\.futures\.process|returned non-zero exit status|LaunchError"
    r"|torch\.distributed\.elastic|ray\.exceptions\.RayTaskError|RuntimeError: Engine (?:core|process)|EngineDeadError"
    r"|EngineCore (?:initialization )?(?:failed|encountered)"
)
"""Errors of launchers, which say only that a program failed."""
_FIRST_RANK = re.compile(r"Root Cause \(first observed failure\)[^\0]{0,400}?\brank\s{0,8}: (\d{1,6})")
_SIGNS = (
    "error", "fail", "fault", "cannot", "can't", "unable", "not found", "out of memory", "no space", "lost",
    "xid", "nccl warn", "denied", "killed", "sig", "exceed", "nvml", "no devices", "exhausted", "no such",
    "incompatible", "busy", "insufficient", "unsatisfied", "unhealthy", "too old", "bad_alloc", "toomany",
    "timed out", "falling back", "not be used", "gpu available", "no gpu", "no cuda", "is not available",
    "not compatible", "unsupported", "non-nvml", "invalid", "illegal", "oom", "assert", "abort", "mismatch",
    "not available", "not installed", "may be present", "skipping", "null cdi", "bus", "shm", "closed",
    "reset by peer", "broken", "refused", "resolution", "unreachable", "not compiled", "undefined", "heap",
    "warning:", "no module", "missing", "eof", "restricted", "gated", "api_key", "unexpected", "unknown",
    "detected", "requires", "timeout", "compiled", "only supported", "double bit", "driver", "signal",
    "no supported", "pin_memory", "ignored", "waiting",
)  # fmt: skip
"""Parts of lines that can be about a failure, in lower case. In a long log, no other lines are compared."""
_ALWAYS_COMPARED = 300
"""Lines from the end of a log that are all compared with the table."""
_MOST_COMPARED = 2_000
"""Lines before them that are compared: the first ones that differ and look like errors. Each takes a millisecond."""
_RETRIED = re.compile(
    r"\btrying (?:the )?next|\bretrying\b|\bwill (?:be )?retr|\btrying again\b|\bRetrying \(Retry\("
    r"|\[c10d\] The IPv[46] network addresses of |\bthrown while requesting (?:HEAD|GET)\b|\bentering retry loop\b",
    re.I,
)
"""What a program says about a failure after which it continues."""
_FELL_BACK = re.compile(
    r"\bf(?:all(?:ing|s)?|ell) back\b|\bcontinuing (?:without|with)\b|\bis optional\b"
    r"|\bUsing the latest cached version of |\bUnable to initialize backend '(?:tpu|rocm)'",
    re.I,
)
"""What a program says about something that it does not need."""
_AT_END = 3
"""Lines from the end of a log in which a failure counts although the program tries again."""
_WARNING = re.compile(
    r"^[ *\[(|-]{0,3}(?:WARN(?:ING)?\b|[Ww]arning:|W(?:\d{3,4})? )|^[\d/:,. -]{8,30}[ *\[(|-]{0,3}WARN(?:ING)?\b"
    r"|^[\w/.:-]{1,200}: UserWarning: "
)
"""The beginning of a line that its program calls a warning. Errors count before warnings."""
_CONTINUED_BLOCK = 20
_CONTINUED_LINE = 100
"""Ordinary lines after a traceback or after another error from which a program evidently continued."""
_SEVERAL = re.compile(r"torch\.distributed|torch/distributed|torchrun|mpirun|horovod|deepspeed|NCCL", re.I)
"""What logs of several processes contain."""
_FRAME = re.compile(r"(?:frame )?#\d{1,4}\b|0x[0-9a-f]{4,16}\b|[-=*+|]{3}")
"""The beginning of a line of a C++ stack or of a table, which is not an ordinary line of a program."""
_NEAR = 40
"""Lines before a traceback that belong to the error."""
_MESSAGE_LINES = 12
"""Lines of an exception's message that are read."""
_EXCERPT_BEFORE = 2
_EXCERPT_AFTER = 8
"""Lines around the error that are evidence."""
_LONGEST_LINE = 2000
"""Characters of a line that are compared with the table."""


@dataclass(frozen=True)
class FirstError:
    """The first error in a log.

    Attributes:
        line: the line that names it, such as ``torch.OutOfMemoryError: CUDA out of memory``.
        excerpt: some lines around it.
        failure: the known failure; None if no row of the table recognises it.
        certain: whether it is an error of the program itself. If not, the cause may be further up in the log, or in
            another process.
    """

    line: str
    excerpt: str
    failure: Failure | None
    certain: bool


@dataclass(frozen=True)
class _Block:
    """A traceback.

    Attributes:
        start: number of its first line.
        end: number of the line with the exception.
        rank: the process that printed it; empty if the lines are not marked.
        text: the exception with its message.
    """

    start: int
    end: int
    rank: str
    text: str

    @property
    def is_wrapper(self) -> bool:
        """Whether a launcher printed it."""
        return _WRAPPER.search(self.text.split("\n", 1)[0]) is not None


@dataclass(frozen=True)
class _Line:
    """A line of a log.

    Attributes:
        rank: the process that printed it; empty if the line is not marked.
        text: the line without the mark.
    """

    rank: str
    text: str


def find_first_error(text: str, rows: Sequence[FailureText]) -> FirstError | None:
    """Return the first error of the process that failed first; None if the log shows no error.

    Args:
        text: the log, or its end.
        rows: the table of failure texts.
    """
    lines = [_read_line(each) for each in re.split(r"\r?\n|\r", text)]
    known = [row for row in rows if Place.LOG in row.places]
    failed_rank = _failed_rank(text, lines)
    blocks = _of_rank([block for block in _blocks(lines) if not block.is_wrapper], failed_rank)
    causes = [row for row in known if row.weight is Weight.CAUSE]
    symptoms = [row for row in known if row.weight is Weight.SYMPTOM]
    own = [block for block in blocks if _match(causes, block.text) or not _match(symptoms, block.text)]
    survived = _survived_until(lines)
    if own:
        block = _first_fatal(lines, own)
        later = _from_lines(lines, causes, failed_rank, start=survived) if block.end < survived else None
        return later or _from_block(lines, block, causes)
    warnings = [row for row in known if row.weight is Weight.WARNING]
    return (
        _from_lines(lines, causes, failed_rank, start=survived)
        or _from_lines(lines, symptoms, failed_rank)
        or _from_lines(lines, causes, failed_rank, end=survived)
        or _from_lines(lines, warnings, "")
    )


def _read_line(text: str) -> _Line:
    match = _RANK.match(text)
    if match is None:
        return _Line("", text[:_LONGEST_LINE])
    rank = next(value for value in match.groups() if value is not None)
    return _Line(rank, text[match.end() :][:_LONGEST_LINE])


def _failed_rank(text: str, lines: Sequence[_Line]) -> str:
    """Return the rank that torchrun names as the first that failed, if its lines are marked; else an empty text."""
    named = _FIRST_RANK.search(text[-20_000:])
    if named is None or not any(line.rank == named[1] for line in lines):
        return ""
    return named[1]


def _of_rank(blocks: list[_Block], rank: str) -> list[_Block]:
    """Return the tracebacks of a rank; all of them if it has none."""
    if not rank:
        return blocks
    return [block for block in blocks if block.rank == rank] or blocks


def _blocks(lines: Sequence[_Line]) -> list[_Block]:
    """Return the tracebacks, in the order of their first lines."""
    found = []
    for number, line in enumerate(lines):
        if _TRACEBACK in line.text:
            block = _block(lines, number)
            if block is not None:
                found.append(block)
    return found


def _block(lines: Sequence[_Line], start: int) -> _Block | None:
    """Return the traceback that begins at a line; None if it has no exception, because the log ends before."""
    rank = lines[start].rank
    margin = lines[start].text.find(_TRACEBACK) if lines[start].text.lstrip().startswith(_TRACEBACK) else 0
    message: list[str] = []
    end = start
    for number in range(start + 1, len(lines)):
        if lines[number].rank != rank:
            continue  # lines of other processes come between
        text = lines[number].text[margin:]
        if not message:
            if text[:1].isspace() or not text.strip():
                continue
            if _TRACEBACK in text:
                return None
            end = number
        elif _TRACEBACK in text or len(message) >= _MESSAGE_LINES or text.startswith(("During handling", "The above")):
            break
        message.append(text)
    if not message:
        return None
    return _Block(start, end, rank, "\n".join(message))


def _match(rows: Iterable[FailureText], text: str) -> Failure | None:
    """Return the failure of the first row that matches."""
    for row in rows:
        found = row.find(text)
        if found is not None:
            return found
    return None


def _from_block(lines: Sequence[_Line], block: _Block, causes: Sequence[FailureText]) -> FirstError:
    """Return the error of a traceback. Lines shortly before it may name the cause more exactly."""
    failure = _match(causes, block.text.split("\n", 1)[0]) or _match(causes, block.text)
    if failure is None:
        before = [
            lines[number].text
            for number in range(max(0, block.start - _NEAR), block.start)
            if lines[number].rank == block.rank and not _continues_after(lines, number)
        ]
        failure = _match(causes, "\n".join(before))
    return FirstError(block.text.split("\n", 1)[0].strip(), _excerpt(lines, block.end), failure, certain=True)


def _first_fatal(lines: Sequence[_Line], blocks: Sequence[_Block]) -> _Block:
    """Return the first traceback after which its process does not go on to another one with ordinary lines between."""
    for block, later in pairwise(blocks):
        between = [line for line in lines[block.end + 1 : later.start] if line.rank == block.rank]
        if later.rank != block.rank or sum(_is_ordinary(line.text) for line in between) < _CONTINUED_BLOCK:
            return block
    return blocks[-1]


def _survived_until(lines: Sequence[_Line]) -> int:
    """Return the number of the first line after which few ordinary lines follow. Errors before it were survived.

    With several processes, the others may go on for a while after the one that failed. Nothing counts as survived then.
    """
    if any(line.rank or _SEVERAL.search(line.text) for line in lines):
        return 0
    ordinary = 0
    for number in range(len(lines) - 1, -1, -1):
        ordinary += _is_ordinary(lines[number].text)
        if ordinary >= _CONTINUED_LINE:
            return number
    return 0


def _is_ordinary(text: str) -> bool:
    """Whether a line is neither empty nor part of a stack, and is not about a failure."""
    return bool(text.strip()) and not text[0].isspace() and not _FRAME.match(text) and not _is_sign(text)


def _from_lines(
    lines: Sequence[_Line], rows: Sequence[FailureText], rank: str, *, start: int = 0, end: int | None = None
) -> FirstError | None:
    """Return the first line that a row recognises. Lines that their program calls warnings count after all others.

    Args:
        lines: the log.
        rows: the rows of one weight.
        rank: the rank that failed first, whose lines count before those of other ranks; empty if that is not known.
        start: the number of the first line that is compared.
        end: the number of the first line after those that are compared; None if the last line is compared too.
    """
    others: FirstError | None = None
    warned: FirstError | None = None
    seen: set[str] = set()
    compared = 0
    for number in range(start, len(lines) if end is None else end):
        line = lines[number]
        if number < len(lines) - _ALWAYS_COMPARED:
            # Lines that differ only in their numbers, such as those of a progress bar, are compared once.
            shape = _NUMBER.sub("0", line.text)
            if shape in seen:
                continue
            seen.add(shape)
            if not _is_sign(line.text) or compared >= _MOST_COMPARED:
                continue
            compared += 1
        is_warning = _WARNING.match(line.text) is not None
        if is_warning and warned is not None:
            continue
        failure = None if _is_retried(lines, number) else _match_line(rows, lines, number)
        if failure is None or (failure.weight is Weight.CAUSE and _continues_after(lines, number)):
            continue
        error = FirstError(line.text.strip(), _excerpt(lines, number), failure, certain=failure.weight is Weight.CAUSE)
        if is_warning:
            warned = error
        elif not rank or line.rank == rank:
            return error
        else:
            others = others or error
    return others or warned


def _match_line(rows: Iterable[FailureText], lines: Sequence[_Line], number: int) -> Failure | None:
    """Return the failure of the first row whose text begins in a line. Some texts have two lines."""
    text = _with_next(lines, number)
    for row in rows:
        found = row.find(text)
        if found is not None and found.start < len(lines[number].text):
            return found
    return None


def _is_retried(lines: Sequence[_Line], number: int) -> bool:
    """Return whether a program continues after the failure of a line, as it says in this line or the one before."""
    if number >= len(lines) - _AT_END:
        return False
    return any(_RETRIED.search(line.text) for line in lines[max(0, number - 1) : number + 1])


def _continues_after(lines: Sequence[_Line], number: int) -> bool:
    """Return whether a program tries again after the failure of a line, or does not need what failed."""
    if number >= len(lines) - _AT_END:
        return False
    return _FELL_BACK.search(lines[number].text) is not None or _is_retried(lines, number)


def _with_next(lines: Sequence[_Line], number: int) -> str:
    """Return a line, followed by the next ones of the same process unless they can be about failures themselves."""
    texts = [lines[number].text]
    for line in lines[number + 1 : number + 3]:
        if line.rank == lines[number].rank and not _is_sign(line.text):
            texts.append(line.text)
    return "\n".join(texts)


def _is_sign(text: str) -> bool:
    """Whether a line can be about a failure."""
    lower = text.lower()
    return any(sign in lower for sign in _SIGNS)


def _excerpt(lines: Sequence[_Line], number: int) -> str:
    """Return the lines around a line of the log, without those of other processes."""
    rank = lines[number].rank
    chosen = lines[max(0, number - _EXCERPT_BEFORE) : number + _EXCERPT_AFTER + 1]
    return "\n".join(line.text.rstrip() for line in chosen if line.rank == rank and line.text.strip()).rstrip()
