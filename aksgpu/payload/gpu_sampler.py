"""Samples of a pod's GPUs: read from NVML while the program runs, thinned, and kept in a small file.

The runner starts the sampler in its own process, so the program and its log are not touched. In the pod this is the
file ``aksgpu_gpu_sampler.py`` beside ``runner.py``, so it uses the standard library only, and works with Python 3.8.

A row is a dict: ``time`` (seconds since 1970), ``gpu`` (number in the pod, from 0), ``count`` (samples in the row),
``utilization``, ``utilization_min`` and ``utilization_max`` (percent), ``memory_used`` and ``memory_total`` (bytes),
``power`` (W) and ``temperature`` (C). What the GPU does not report is None. As text, a row is a line
``aksgpu1-gpu {JSON}``. A line ``aksgpu1-gpu {"problem": ...}`` says why there are no samples.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    Row = dict[str, Any]

__all__ = [
    "COARSE_SECONDS",
    "FINE_SECONDS",
    "INTERVAL_SECONDS",
    "MARK",
    "Nvml",
    "NvmlProblem",
    "Samples",
    "from_lines",
    "read_lines",
    "sampling",
    "to_line",
]

MARK = "aksgpu1-gpu"
"""The first word of each line."""
INTERVAL_SECONDS = 5.0
"""Seconds between two samples."""
FINE_SECONDS = 600.0
"""Seconds for which each sample is a row of its own."""
COARSE_SECONDS = 60.0
"""Seconds of which a row has the minimum, the mean and the maximum after that."""
MOST_ROWS = 6000
"""Rows that are kept, at about 200 bytes each. Beyond that, the rows of twice as many seconds are joined."""
_STOP_SECONDS = 5.0
"""Longest wait for the thread's last row."""
_LIBRARY = "libnvidia-ml.so.1"
_NO_GPU = ("", "void", "none")
"""Values of ``NVIDIA_VISIBLE_DEVICES`` of a container without a GPU."""
_MEANS = ("utilization", "memory_used", "memory_total", "power", "temperature")
_FILE = "gpu.jsonl"
"""File with the rows that no longer change."""
_OPEN_FILE = "gpu-open.jsonl"
"""File with the rows of the minute that has not ended."""


class NvmlProblem(Exception):
    """NVML cannot be used. The text says why."""


# Rows


class Samples:
    """Rows of samples: each sample for ten minutes, then one row a minute."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.width = COARSE_SECONDS
        self.was_thinned = False
        self._began: float | None = None
        self._open: dict[int, Row] = {}
        self._bucket = -1

    def add(self, sample: Sequence[Row]) -> None:
        """Add the rows of one moment, one for each GPU."""
        if not sample:
            return
        now = float(sample[0]["time"])
        if self._began is None:
            self._began = now
        if now - self._began <= FINE_SECONDS:
            self.rows.extend(sample)
            return
        bucket = int((now - self._began) // self.width)
        if bucket != self._bucket:
            self.close()
            self._bucket = bucket
        for row in sample:
            before = self._open.get(row["gpu"])
            self._open[row["gpu"]] = dict(row) if before is None else join(before, row)

    def open_rows(self) -> list[Row]:
        """Return the rows of the minute that has not ended. They have ``open``, and are replaced by later ones."""
        return [dict(row, open=True) for row in self._open.values()]

    def close(self) -> None:
        """End the minute: its rows no longer change."""
        self.rows.extend(self._open.values())
        self._open = {}
        if len(self.rows) > MOST_ROWS:
            self._thin()

    def _thin(self) -> None:
        """Join rows until there are few enough."""
        began = self._began or 0.0
        while len(self.rows) > MOST_ROWS // 2:
            self.width *= 2
            joined: dict[Any, Row] = {}
            for row in self.rows:
                key = (row["gpu"], int((row["time"] - began) // self.width))
                joined[key] = join(joined[key], row) if key in joined else row
            self.rows = sorted(joined.values(), key=lambda row: (row["time"], row["gpu"]))
        self._bucket = -1
        self.was_thinned = True


def join(first: Row, second: Row) -> Row:
    """Return one row for two rows of the same GPU. Its time is the later one."""
    found = {
        "time": max(first["time"], second["time"]),
        "gpu": first["gpu"],
        "count": first["count"] + second["count"],
        "utilization_min": _extreme(min, first["utilization_min"], second["utilization_min"]),
        "utilization_max": _extreme(max, first["utilization_max"], second["utilization_max"]),
    }
    for name in _MEANS:
        found[name] = _mean(first[name], first["count"], second[name], second["count"])
    return found


def _extreme(choose: Any, first: Any, second: Any) -> Any:
    known = [each for each in (first, second) if each is not None]
    return choose(known) if known else None


def _mean(first: Any, first_count: int, second: Any, second_count: int) -> Any:
    if first is None or second is None:
        return second if first is None else first
    return round((first * first_count + second * second_count) / (first_count + second_count), 3)


def row_of(
    now: float, gpu: int, utilization: Any, memory_used: Any, memory_total: Any, power: Any, temperature: Any
) -> Row:
    """Return the row of one sample."""
    return {
        "time": round(now, 3),
        "gpu": gpu,
        "count": 1,
        "utilization": utilization,
        "utilization_min": utilization,
        "utilization_max": utilization,
        "memory_used": memory_used,
        "memory_total": memory_total,
        "power": power,
        "temperature": temperature,
    }


# Lines


def to_line(content: Row) -> str:
    """Return a row, or a problem, as a line without its newline."""
    return MARK + " " + json.dumps(content, separators=(",", ":"))


def from_lines(lines: Iterable[str]) -> list[Row]:
    """Return the rows and problems in lines. Other lines, and lines that are cut, are left out."""
    found = []
    for line in lines:
        mark, _, text = line.strip().partition(" ")
        if mark != MARK:
            continue
        with contextlib.suppress(ValueError):
            content = json.loads(text)
            if isinstance(content, dict) and ("problem" in content or "time" in content):
                found.append(content)
    return found


def read_lines(directory: Path, since: float = 0.0) -> Iterator[str]:
    """Yield the lines that a sampler has written.

    Args:
        directory: the sampler's directory.
        since: leaves out rows up to this time (seconds since 1970).
    """
    for name in (_FILE, _OPEN_FILE):
        try:
            text = (directory / name).read_text()
        except OSError:
            continue
        for content in from_lines(text.splitlines()):
            if "problem" in content or content["time"] > since:
                yield to_line(content)


# NVML


class _Utilization(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class Nvml:
    """The container's GPUs, read through NVIDIA's management library.

    Args:
        visible: the value of ``NVIDIA_VISIBLE_DEVICES``. Only the GPUs that it names are read.
        library: the library; None loads the driver's.

    Raises:
        NvmlProblem: there is no library, no driver or no GPU.
    """

    def __init__(self, visible: str, library: Any = None) -> None:
        if library is None:
            try:
                library = ctypes.CDLL(_LIBRARY)
            except OSError as error:
                raise NvmlProblem("the container has no NVML (" + str(error) + ")") from None
        self._library = library
        self._library.nvmlErrorString.restype = ctypes.c_char_p
        self._check(library.nvmlInit_v2())
        self._handles = self._find(visible)
        if not self._handles:
            raise NvmlProblem("NVML shows none of the GPUs that the container was given (" + visible + ")")

    def _find(self, visible: str) -> list[Any]:
        """Return the handles of the GPUs and MIG instances that the container was given."""
        names = [name.strip() for name in visible.split(",") if name.strip()]
        if any(name.startswith("MIG-") for name in names):
            found = [self._by_uuid(name) for name in names if name.startswith(("MIG-", "GPU-"))]
            return [handle for handle in found if handle is not None]
        count = ctypes.c_uint()
        self._check(self._library.nvmlDeviceGetCount_v2(ctypes.byref(count)))
        handles = {}
        for index in range(count.value):
            handle = ctypes.c_void_p()
            if self._library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle)) == 0:
                handles[index] = handle
        uuids = {name for name in names if name.startswith("GPU-")}
        if uuids:
            return [handle for handle in handles.values() if self._uuid(handle) in uuids]
        if names and all(name.isdigit() for name in names) and len(names) < len(handles):
            return [handles[int(name)] for name in names if int(name) in handles]
        return list(handles.values())

    def _by_uuid(self, name: str) -> Any:
        handle = ctypes.c_void_p()
        status = self._library.nvmlDeviceGetHandleByUUID(ctypes.c_char_p(name.encode()), ctypes.byref(handle))
        return handle if status == 0 else None

    def _uuid(self, handle: Any) -> str:
        text = ctypes.create_string_buffer(96)
        if self._library.nvmlDeviceGetUUID(handle, text, ctypes.c_uint(96)) != 0:
            return ""
        return text.value.decode("ascii", "replace")

    def _check(self, status: int) -> None:
        if status:
            text = self._library.nvmlErrorString(status) or b"unknown error"
            raise NvmlProblem("NVML: " + text.decode("utf-8", "replace"))

    def sample(self, now: float) -> list[Row]:
        """Return one row for each GPU. What a GPU does not report, such as the utilization of MIG, is None."""
        rows = []
        for number, handle in enumerate(self._handles):
            utilization = _Utilization()
            memory = _Memory()
            power = ctypes.c_uint()
            temperature = ctypes.c_uint()
            library = self._library
            busy = library.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(utilization)) == 0
            sized = library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == 0
            powered = library.nvmlDeviceGetPowerUsage(handle, ctypes.byref(power)) == 0
            warm = library.nvmlDeviceGetTemperature(handle, ctypes.c_uint(0), ctypes.byref(temperature)) == 0
            rows.append(
                row_of(
                    now,
                    number,
                    utilization.gpu if busy else None,
                    memory.used if sized else None,
                    memory.total if sized else None,
                    power.value / 1000 if powered else None,
                    temperature.value if warm else None,
                )
            )
        return rows

    def close(self) -> None:
        """Release the library."""
        self._library.nvmlShutdown()


# The sampler


@contextlib.contextmanager
def sampling(directory: Path, environment: Any = os.environ) -> Iterator[None]:
    """Sample the container's GPUs in a thread during a block.

    Args:
        directory: where the rows are written.
        environment: the container's environment.
    """
    stop = threading.Event()
    sampler = _Sampler(directory, environment, stop)
    thread = threading.Thread(target=sampler.run, name="aksgpu-gpu", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_STOP_SECONDS)


class _Sampler:
    """Writes the rows of one run."""

    def __init__(self, directory: Path, environment: Any, stop: threading.Event) -> None:
        self._directory = directory
        self._environment = environment
        self._stop = stop
        self._samples = Samples()
        self._written = 0

    def run(self) -> None:
        """Sample until the end. A failure never reaches the program."""
        nvml = None
        try:
            nvml = self._open()
            while True:
                self._samples.add(nvml.sample(time.time()))
                self._write()
                if self._stop.wait(INTERVAL_SECONDS):
                    break
            self._samples.close()
            self._write()
        except NvmlProblem as problem:
            self._note(str(problem))
        except Exception as error:
            self._note("the sampler stopped: " + type(error).__name__ + ": " + str(error))
        finally:
            if nvml is not None:
                nvml.close()

    def _open(self) -> Nvml:
        visible = self._environment.get("NVIDIA_VISIBLE_DEVICES", "all")
        if visible in _NO_GPU:
            raise NvmlProblem("the container has no GPU")
        with contextlib.suppress(ValueError):
            if any(gpu.get("simulated") for gpu in json.loads(self._environment.get("AKSGPU_GPUS") or "[]")):
                raise NvmlProblem("the GPU is simulated by the laptop AKS")
        return Nvml(visible)

    def _write(self) -> None:
        """Write the rows that are new."""
        rows = self._samples.rows
        if self._samples.was_thinned:
            self._samples.was_thinned = False
            self._replace(_FILE, rows)
        elif len(rows) > self._written:
            with (self._directory / _FILE).open("a") as file:
                file.write("".join(to_line(row) + "\n" for row in rows[self._written :]))
        self._written = len(rows)
        self._replace(_OPEN_FILE, self._samples.open_rows())

    def _replace(self, name: str, rows: Iterable[Row]) -> None:
        temporary = self._directory / (name + ".new")
        temporary.write_text("".join(to_line(row) + "\n" for row in rows))
        temporary.replace(self._directory / name)

    def _note(self, problem: str) -> None:
        with contextlib.suppress(OSError), (self._directory / _FILE).open("a") as file:
            file.write(to_line({"problem": problem}) + "\n")
