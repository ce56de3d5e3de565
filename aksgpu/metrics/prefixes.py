"""What stands before a program's own words in a line: the tools that showed the log, ranks, and logging prefixes."""

from __future__ import annotations

import re
from typing import NamedTuple


class Prefixes(NamedTuple):
    """A line without its prefixes, and what they said.

    Attributes:
        text: the rest of the line.
        time: the server's time of the line (RFC 3339), or None.
        pod: the pod's name, or None.
        rank: the process's rank in a distributed program, or None.
    """

    text: str
    time: str | None = None
    pod: str | None = None
    rank: int | None = None


_POD = re.compile(
    r"\[pod/(?P<kubectl>[a-z0-9.-]{1,253})/[a-z0-9.-]{1,253}\] "  # kubectl logs --prefix
    r"|\[(?P<kubetail>[a-z0-9][a-z0-9.-]{0,240}-[a-z0-9]{5})(?: [a-z0-9-]{1,63})?\] "  # kubetail
    r"|(?P<stern>[a-z0-9][a-z0-9.-]{0,240}-[a-z0-9]{5}) [a-z0-9][a-z0-9-]{0,62} (?=\S)"  # stern
)
_SERVER_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[-+]\d\d:\d\d)) ")
"""kubectl logs --timestamps."""
_RANK = re.compile(
    r"\[(?:rank|default)[ :]?(?P<torch>\d{1,5})\]:? ?"  # torch.distributed, torchrun
    r"|\[\d{1,5},(?P<mpi>\d{1,5})\]<std(?:out|err)>: ?"  # mpirun, horovodrun
    r"|\[(?P<plain>\d{1,5})\]: ?"
    r"|\[?(?i:rank)[ :=]{0,2}(?P<word>\d{1,5})(?:\]:?|:) ?"
)
_LEVEL = r"(?:TRACE|DEBUG|INFO|SUCCESS|NOTICE|WARN|WARNING|ERROR|CRITICAL|FATAL)"
_CLOCK = r"(?:\d{4}[-/]\d\d[-/]\d\d[ T])?\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[-+]\d\d:?\d\d)?"
_LOGGING = re.compile(
    r"[IWEF]\d{4} \d\d:\d\d:\d\d(?:\.\d{1,9})?\s{1,4}\d{1,24} [\w./-]{1,128}:\d{1,7}\] "  # absl, glog, klog
    rf"|{_CLOCK}: [IWEF] [\w./-]{{1,256}}:\d{{1,7}}\] "  # TensorFlow's C++ log
    rf"|{_CLOCK} ?\| ?{_LEVEL} {{0,8}}\| ?[\w.<>-]{{1,128}}(?::[\w.<>-]{{0,128}}:\d{{0,7}})? (?:-|\|) "  # loguru, fairseq
    rf"|\[?{_CLOCK}\]?(?: - [\w.-]{{1,128}}){{0,2}} - {_LEVEL} - "  # asctime - name - level - message
    rf"|\[{_CLOCK}\](?:\[[\w./:-]{{1,128}}\]){{0,3}}(?:\s{{1,4}}-|:)?\s{{1,4}}"  # [asctime][name]
    rf"|{_CLOCK},?(?: - |: | \| |\s{{1,4}})(?=\S)"
    rf"|{_LEVEL}:[\w.<>/-]{{0,128}}:(?:\d{{1,7}}:)? ?"  # logging.basicConfig
    rf"|\[{_LEVEL}\](?::)? {{0,4}}"
    rf"|{_LEVEL} ?(?:-|\||:) "
    r"|\[[\w./-]{1,64}\.py:\d{1,7}(?::\w{1,64})?\] "  # DeepSpeed's [logging.py:69:log_dist]
)
_MOST = 6
"""Prefixes that one line may carry."""


def strip(line: str) -> Prefixes:
    """Take the prefixes off a line."""
    time = None
    pod = None
    rank = None
    text = line.lstrip(" \t")
    for _ in range(_MOST):
        found = _POD.match(text)
        if found:
            pod = pod or next(filter(None, found.groups()))
            text = text[found.end() :]
            continue
        found = _SERVER_TIME.match(text)
        if found:
            time = time or found[1]
            text = text[found.end() :]
            continue
        found = _RANK.match(text)
        if found:
            rank = int(next(filter(None, found.groups()))) if rank is None else rank
            text = text[found.end() :]
            continue
        found = _LOGGING.match(text)
        if not found:
            break
        text = text[found.end() :]
    return Prefixes(text, time, pod, rank)


_SERVER_TIME_BYTES = re.compile(_SERVER_TIME.pattern.encode())


def server_time(line: bytes) -> str | None:
    """Return the server's time at the beginning of a line, or None."""
    found = _SERVER_TIME_BYTES.match(line)
    return found[1].decode() if found else None
