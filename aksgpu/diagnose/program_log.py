"""Read as much of a program's log as it takes to find its first error."""

from __future__ import annotations

from dataclasses import dataclass

from aksgpu.diagnose.cluster_reader import ClusterReader
from aksgpu.diagnose.diagnosis import Rows
from aksgpu.diagnose.failure_text import Failure, Place, Weight
from aksgpu.diagnose.first_error import FirstError, find_first_error
from aksgpu.diagnose.gpu_failures import LOG_RULES
from aksgpu.kube import pod_facts
from aksgpu.kube.client import Object

__all__ = ["ProgramLog", "fallback", "read"]

_STEPS = (400, 5_000, 50_000)
"""Lines from the end of the log that are read, one step after the other, until the error of the program is found."""
_BEGINNING = 65_536
"""Bytes from the beginning of a log in which a program says that it does not use the GPU."""
_FALLBACKS = tuple(row for row in LOG_RULES if row.weight is Weight.WARNING and Place.LOG in row.places)


@dataclass(frozen=True)
class ProgramLog:
    """What is known of a log.

    Attributes:
        text: its end; empty if it has none or could not be read.
        error: its first error; None if no error was found.
    """

    text: str
    error: FirstError | None

    @property
    def failure(self) -> Failure | None:
        """The known failure that it shows; None if it shows none."""
        return self.error.failure if self.error else None

    @property
    def has_error(self) -> bool:
        """Whether it has an error of the program itself."""
        return self.error is not None and self.error.certain

    @property
    def line(self) -> str:
        """The line that names the error, or else the last line; empty without a log."""
        if self.error is not None:
            return self.error.line
        lines = [line.strip() for line in self.text.splitlines() if line.strip(" -=*#")]
        return lines[-1] if lines else ""

    def rows(self, shown: int) -> Rows:
        """Return the first error and the last lines as evidence.

        Args:
            shown: how many of the last lines.
        """
        if not self.text:
            return ()
        tail = "\n".join(self.text.splitlines()[-shown:])
        if self.error is None or self.error.line in tail:
            return (("log", tail),)
        return (("first error", self.error.excerpt), ("log", tail))


def read(reader: ClusterReader, pod: Object, container: str, *, previous: bool = False) -> ProgramLog:
    """Read the log of a container that has failed.

    Args:
        reader: reads the cluster.
        pod: the Pod object.
        container: name.
        previous: read the run before the last restart.
    """
    text = ""
    error: FirstError | None = None
    for lines in _STEPS:
        found = reader.log(pod, container, previous=previous, lines=lines)
        if found is None:
            break
        text = found.rstrip()
        error = find_first_error(text, LOG_RULES)
        is_whole = text.count("\n") + 1 < lines
        if is_whole or (error is not None and error.certain):
            break
    return ProgramLog(text, error)


def fallback(reader: ClusterReader, pod: Object) -> tuple[Failure, str] | None:
    """Return how a program with a GPU says that it does not use it, and the line; None if it does not say so.

    Args:
        reader: reads the cluster.
        pod: the Pod object of a program that runs or has succeeded.
    """
    if not pod_facts.gpus(pod["spec"]):
        return None
    for container in pod["spec"]["containers"]:
        if pod_facts.gpus({"containers": [container]}):
            for line in (reader.beginning(pod, container["name"], _BEGINNING) or "").splitlines():
                for row in _FALLBACKS:
                    failure = row.find(line)
                    if failure is not None:
                        return failure, line.strip()
    return None
