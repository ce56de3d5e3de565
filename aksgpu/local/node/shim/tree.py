"""Processes of this machine, read from ``/proc``."""

# ruff: noqa: PTH123, PTH208

from __future__ import annotations

import os

PAGE = os.sysconf("SC_PAGE_SIZE")


def processes(root: int) -> list[int]:
    """All descendants of a process."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(name))
    found, queue = [], [root]
    while queue:
        children = parents.get(queue.pop(), [])
        found += children
        queue += children
    return found


def memory(pids: list[int], proportional: bool) -> int:
    """Bytes of memory of the processes: resident, or proportional set size."""
    total = 0
    for pid in pids:
        try:
            if proportional:
                with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
                    total += next(int(line.split()[1]) * 1024 for line in file if line.startswith(b"Pss:"))
            else:
                with open(f"/proc/{pid}/statm", "rb") as file:
                    total += int(file.read().split()[1]) * PAGE
        except (OSError, StopIteration):
            continue  # it ended meanwhile
    return total
