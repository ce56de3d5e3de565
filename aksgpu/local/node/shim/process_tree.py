"""Process trees and their memory, read from ``/proc``. The shim cannot use psutil, because it must start quickly."""

# ruff: noqa: PTH110, PTH123, PTH208

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Callable

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def descendants(root: int) -> list[int]:
    """Return the pids of all descendants of a process."""
    children = _children if os.path.exists(f"/proc/self/task/{os.getpid()}/children") else _scan_parents()
    found = []
    queue = [root]
    while queue:
        more = children(queue.pop())
        found += more
        queue += more
    return found


def _children(pid: int) -> list[int]:
    """Return the children of a process. Most kernels provide the file for it."""
    found: list[int] = []
    with contextlib.suppress(OSError):  # the process has ended
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    return found


def _scan_parents() -> Callable[[int], list[int]]:
    """Return a function like :func:`_children` that uses the parents of all processes of the machine."""
    parents: defaultdict[int, list[int]] = defaultdict(list)
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            parents[int(file.read().rpartition(b")")[2].split()[1])].append(int(name))
    return parents.__getitem__


def memory_bytes(pids: list[int], proportional: bool) -> int:
    """Return the memory of processes: the proportional or the resident set size. Ended processes count as 0."""
    total = 0
    name = "smaps_rollup" if proportional else "statm"
    for pid in pids:
        with contextlib.suppress(OSError, StopIteration), open(f"/proc/{pid}/{name}", "rb") as file:
            if proportional:
                total += next(int(line.split()[1]) * 1024 for line in file if line.startswith(b"Pss:"))
            else:
                total += int(file.read().split()[1]) * PAGE_BYTES
    return total
