"""The metrics and the end of the log of a Job while it runs. Each line is read and parsed once."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from aksgpu.jobs.device_words import DeviceWords
from aksgpu.kube.client import HasKube
from aksgpu.logs.growing_logs import GrowingLogs, Piece
from aksgpu.logs.job_logs import choose_pods

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["JobFeed", "in_order"]

_KEPT_LINES = 2000
"""Lines of each run's end that are kept."""


class JobFeed:
    """Follows a Job's metrics by repeated reads.

    Args:
        aks: the cluster.
        job: name of the Job.
        namespace: the Job's namespace.

    Attributes:
        devices: what the log says about the device.
    """

    def __init__(self, aks: HasKube, job: str, namespace: str) -> None:
        from aksgpu.metrics import MetricsReader

        self._logs = GrowingLogs(aks, job, namespace)
        self._reader = MetricsReader()
        self._ends: dict[tuple[str, int], _End] = {}
        self._table: pd.DataFrame | None = None
        self.devices = DeviceWords()

    def read(self) -> None:
        """Read what is new in the logs.

        Raises:
            NotFound: the Job does not exist.
            LogsGone: the Job has run, and its pods are gone; nothing of its logs was read.
            LogUnavailable: a node does not serve a log.
            Unreachable: the API server does not answer.
        """
        for piece in self._logs.read():
            self._take(piece)

    def _take(self, piece: Piece) -> None:
        self._reader.feed(piece.data, pod=piece.pod, index=piece.index, attempt=piece.attempt)
        self._table = None
        end = self._ends.setdefault((piece.pod, piece.attempt), _End())
        for line in end.feed(piece.data):
            self.devices.feed(line)

    def table(self) -> pd.DataFrame:
        """Return the metrics: the table of :meth:`aksgpu.jobs.Job.metrics` for what was read."""
        if self._table is None:
            table = self._reader.frame()
            table.attrs["pods_gone"] = self._logs.pods_gone
            self._table = in_order(table, [pod["metadata"]["name"] for pod in self._logs.pods])
        return self._table

    def text(self) -> str:
        """Return the end of the log of each part's newest run, as :meth:`aksgpu.jobs.Job.logs` does."""
        if self._logs.job is None:
            return ""
        texts = []
        for pod in choose_pods(self._logs.job, self._logs.pods):
            name = pod["metadata"]["name"]
            runs = [attempt for of_pod, attempt in self._ends if of_pod == name]
            if runs:
                texts.append(self._ends[name, max(runs)].text())
        return "".join(texts)


class _End:
    """The last lines of one run, without their times."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Add the next bytes of the log, and return the lines that are whole now."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        lines = [_without_time(line) for line in whole]
        self._lines.extend(lines)
        return lines

    def text(self) -> str:
        """Return the lines."""
        return "".join(line + "\n" for line in self._lines) + _without_time(self._rest)


def _without_time(line: bytes) -> str:
    return line.partition(b" ")[2].decode("utf-8", "replace")


def in_order(table: pd.DataFrame, pods: list[str]) -> pd.DataFrame:
    """Return a table of metrics whose rows are ordered by index, attempt and pod, whatever order they were read in.

    Args:
        table: the metrics.
        pods: names of the pods, oldest first.
    """
    place = {name: number for number, name in enumerate(pods)}
    keys = {
        "index": table["index"].fillna(-1).astype("int64"),
        "attempt": table["attempt"].fillna(-1).astype("int64"),
        "pod": table["pod"].map(lambda name: place.get(name, -1)).astype("int64"),
    }
    order = table.assign(**keys).sort_values(list(keys), kind="stable").index
    ordered: pd.DataFrame = table.loc[order].reset_index(drop=True)
    ordered.attrs.update(table.attrs)
    return ordered
