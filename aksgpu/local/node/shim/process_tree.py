"""Processes of this machine, read from ``/proc``."""

# ruff: noqa: PTH110, PTH123, PTH208

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Callable

PAGE = os.sysconf("SC_PAGE_SIZE")


def processes(root: int) -> list[int]:
    """All descendants of a process."""
    children = _children if os.path.exists(f"/proc/self/task/{os.getpid()}/children") else _search()
    found = []
    queue = [root]
    while queue:
        more = children(queue.pop())
        found += more
        queue += more
    return found


def _children(pid: int) -> list[int]:
    """The children of a process, as most kernels tell them at once."""
    found: list[int] = []
    with contextlib.suppress(OSError):  # it ended meanwhile
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    return found


def _search() -> Callable[[int], list[int]]:
    """The same from a look at every process of the machine."""
    parents: defaultdict[int, list[int]] = defaultdict(list)
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            parents[int(file.read().rpartition(b")")[2].split()[1])].append(int(name))
    return parents.__getitem__


def memory(pids: list[int], proportional: bool) -> int:
    """Bytes of memory of the processes that there still are: resident, or proportional set size."""
    total = 0
    name = "smaps_rollup" if proportional else "statm"
    for pid in pids:
        with contextlib.suppress(OSError, StopIteration), open(f"/proc/{pid}/{name}", "rb") as file:
            if proportional:
                total += next(int(line.split()[1]) * 1024 for line in file if line.startswith(b"Pss:"))
            else:
                total += int(file.read().split()[1]) * PAGE
    return total
