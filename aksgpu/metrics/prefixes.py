"""Prefixes before a program's own text in a line: those of tools that show logs, of ranks, and of logging."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Prefixes", "server_time", "strip"]


class Prefixes(NamedTuple):
    """A line without its prefixes, and the content of the prefixes.

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


_POD_NAME = (
    r"[a-z0-9][a-z0-9.-]{0,240}-"
    r"(?:[bcdfghjklmnpqrstvwxz2456789]{5}|(?:master|worker|chief|ps|launcher|evaluator)-\d{1,5})"
)
"""A Job's pod ends in five characters of Kubernetes' alphabet for names, a training operator's pod in its role."""
_POD = re.compile(
    r"\[pod/(?P<kubectl>[a-z0-9.-]{1,253})/[a-z0-9.-]{1,253}\] "  # kubectl logs --prefix
    rf"|\[(?P<kubetail>{_POD_NAME})(?: [a-z0-9-]{{1,63}})?\] "  # kubetail
    r"|(?:[+\u203a>] |[a-z0-9-]{1,63} )?"  # stern shows the namespace of pods in several
    rf"(?P<stern>{_POD_NAME}) (?:[\u203a>] )?[a-z0-9][a-z0-9-]{{0,62}} (?=\S)"
)
_SERVER_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[-+]\d\d:\d\d)) ")
"""kubectl logs --timestamps."""
_RANK = re.compile(
    r"\[(?:rank|default)[ :]?(?P<torch>\d{1,5})\]:? ?"  # torch.distributed, torchrun
    r"|\[\d{1,5},(?P<mpi>\d{1,5})\]<std(?:out|err)>: ?"  # mpirun, horovodrun
    r"|\[(?P<horovod>\d{1,5})\]<std(?:out|err)>: ?"  # horovodrun with Gloo
    r"|\[(?P<plain>\d{1,5})\]: ?"
    r"|\[(?i:rank)[ :=]{0,2}(?P<word>\d{1,5})\]:? ?"
    r"|(?i:rank)[ :=]{0,2}(?P<bare>\d{1,5}): ?"
)
_LEVEL = r"(?:TRACE|DEBUG|INFO|SUCCESS|NOTICE|WARN|WARNING|ERROR|CRITICAL|FATAL|info|debug|warning)"
_DATE = r"(?:\d{4}[-/.]\d\d[-/.]\d\d|\d\d[-/]\d\d(?:[-/]\d\d(?:\d\d)?)?)"
_CLOCK = rf"(?:{_DATE}[ T])?\d\d:\d\d:\d\d(?:[.,]\d{{1,9}})?(?: ?[AP]M\b)?(?:Z|[-+]\d\d:?\d\d)?"
_LOGGER = r"[A-Za-z_][\w.<>/-]{0,127}"
_PLACE = rf"(?:{_LOGGER}(?::{_LOGGER})?:\d{{1,7}}|{_LOGGER}\.py)"
_LOGGING = re.compile(
    # absl, glog, klog: I0814 17:00:30.375129 140168988681984 main.py:115]
    r"[IWEF]\d{4} \d\d:\d\d:\d\d(?:\.\d{1,9})?\s{1,4}\d{1,24} [\w./-]{1,128}:\d{1,7}\] "
    # TensorFlow's C++ log
    rf"|{_CLOCK}: [IWEF] [\w./-]{{1,256}}:\d{{1,7}}\] "
    # loguru, fairseq: clock | LEVEL | name:function:line - message
    rf"|{_CLOCK} ?\| ?{_LEVEL} {{0,8}}\| ?[\w.<>-]{{1,128}}(?::[\w.<>-]{{0,128}}:\d{{0,7}})? (?:-|\|) "
    # asctime - name - level - message
    rf"|\[?{_CLOCK}\]?(?: - [\w./-]{{1,128}}){{0,2}} - {_LEVEL} - "
    # asctime - level - name - message
    rf"|\[?{_CLOCK}\]? - {_LEVEL} - {_LOGGER} - "
    # [clock][name][level] - message
    rf"|\[{_CLOCK}\](?:\[[\w./:-]{{1,64}}\]){{0,3}}(?:\s{{1,4}}-|:)?(?:\s{{1,4}}|$)"
    # clock (module:line) LEVEL: message, after [host] or [host:rank/processes], such as ESPnet's
    rf"|(?:\[[\w.-]{{1,64}}(?::\d{{1,5}}/\d{{1,5}})?\] )?{_CLOCK} \({_LOGGER}:\d{{1,7}}\) {_LEVEL}: "
    # clock host:rank  logger:line  LEVEL  message, such as OLMo's
    rf"|{_CLOCK}\s{{1,4}}[\w.-]{{1,64}}:\d{{1,5}}\s{{1,4}}{_LOGGER}:\d{{1,7}}\s{{1,4}}{_LEVEL}\s{{1,8}}"
    # [clock name level] message, as of detectron2: [01/01 10:00:00 d2.utils.events]:
    rf"|\[{_CLOCK} (?:{_LEVEL} ?)?(?:{_PLACE}|{_LOGGER})?\]:?\s{{1,4}}"
    # [LEVEL|file.py:10] clock >>
    rf"|\[{_LEVEL}\|[\w./-]{{1,128}}:\d{{1,7}}\] (?:{_CLOCK} )?>> "
    # [LEVEL|clock] name:line >>, such as LLaMA-Factory's
    rf"|\[{_LEVEL}\|{_CLOCK}\] {_LOGGER}:\d{{1,7}} >> "
    # clock message, with any separator
    rf"|{_CLOCK},?(?: - |: | \| |\s{{1,4}})(?=\S)"
    # logging.basicConfig: LEVEL:name:message
    rf"|{_LEVEL}:[\w.<>/-]{{0,128}}:(?:\d{{1,7}}:(?!\s?\t))? ?"
    # [LEVEL], [LEVEL    ] of structlog
    rf"|\[{_LEVEL} {{0,8}}\]:? {{0,4}}"
    # LEVEL name: message, LEVEL clock file.py:10] message
    rf"|{_LEVEL} {{1,8}}(?:{_CLOCK} )?{_PLACE}(?:\]|:| -)? "
    rf"|{_LEVEL} {{0,8}}(?:-|\||:) "
    # name LEVEL: message, such as Paddle's
    rf"|[a-z][\w.]{{0,127}} {_LEVEL}: "
    rf"|{_LEVEL} {{1,8}}(?=\S)"
    rf"|- {_LEVEL} - "
    # file.py:10] of absl's later versions, [logging.py:69:log_dist] of DeepSpeed
    r"|\[?[\w./-]{1,64}\.py:\d{1,7}(?::\w{1,64})?\]:? "
    # Ray
    r"|\((?:[\w.-]{1,64} )?pid=\d{1,9}(?:, ip=[\d.]{7,15})?\) "
)
_MAX_PREFIXES = 8
"""Prefixes that are removed from one line."""
_FIRST_CHARACTERS = frozenset("[(0123456789IWEFTDSNC+>\u203a-idwrRabcdefghijklmnopqrstuvwxyz")
"""Characters that a prefix can begin with."""


def strip(line: str) -> Prefixes:
    """Remove the prefixes of a line."""
    time = None
    pod = None
    rank = None
    text = line.lstrip(" \t")
    for _ in range(_MAX_PREFIXES):
        if text[:1] not in _FIRST_CHARACTERS:
            break
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
        if found:
            text = text[found.end() :]
            continue
        found = _POD.match(text)
        if not found:
            break
        pod = pod or next(filter(None, found.groups()))
        text = text[found.end() :]
    return Prefixes(text, time, pod, rank)


_SERVER_TIME_BYTES = re.compile(_SERVER_TIME.pattern.encode())


def server_time(line: bytes) -> str | None:
    """Return the server's time at the beginning of a line, or None."""
    found = _SERVER_TIME_BYTES.match(line)
    return found[1].decode() if found else None
