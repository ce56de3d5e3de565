"""What is worth saying about the GPUs of a Job that runs: their use now, and money that they waste."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aksgpu.jobs.device_words import DeviceWords

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["GpuNotes", "gpu_notes"]

_NEWEST = 150.0
"""Seconds for which a sample counts as the present state."""
_IDLE = 600.0
"""Seconds without any use of the GPU after which there is a warning."""
_LONGEST_GAP = 200.0
"""Seconds between two samples. After a longer pause, nothing is known about the time between them."""
_GUESS_AFTER = 120.0
"""Seconds of training without any use of the GPU after which the warning guesses that the CPU trains."""


@dataclass(frozen=True)
class GpuNotes:
    """What is known about the GPUs of a Job.

    Attributes:
        line: their use now, such as ``GPU 87 %, 12.1 of 16.0 GB``; empty if it is not known.
        warnings: sentences about money that is wasted.
    """

    line: str = ""
    warnings: tuple[str, ...] = ()


def gpu_notes(
    samples: pd.DataFrame,
    facts: Mapping[str, Any],
    devices: DeviceWords,
    metrics: pd.DataFrame,
    now: datetime | None = None,
) -> GpuNotes:
    """Return the notes about a Job that runs.

    Args:
        samples: the table of :meth:`aksgpu.jobs.Job.gpu`.
        facts: of :func:`aksgpu.jobs.run_record.read_facts`.
        devices: what the log says about the device.
        metrics: the table of :meth:`aksgpu.jobs.Job.metrics`.
        now: the time; None is the clock's.
    """
    if not facts.get("gpus"):
        return GpuNotes()
    seconds = _seconds_ago(samples, now or datetime.now(UTC))
    warnings = (_idle(samples, seconds, facts), _on_cpu(samples, seconds, devices, metrics))
    return GpuNotes(_line(samples, seconds), tuple(filter(None, warnings)))


def _seconds_ago(samples: pd.DataFrame, now: datetime) -> pd.Series:
    ages: pd.Series = (now - samples["time"]).dt.total_seconds()
    return ages


def _line(samples: pd.DataFrame, seconds: pd.Series) -> str:
    """Return the use of the GPUs now."""
    newest = samples[seconds <= _NEWEST].groupby(["pod", "gpu"]).tail(1)
    if newest.empty:
        return ""
    several = len(newest) > 1
    parts = [f"{len(newest)} GPUs" if several else "GPU"]
    used = newest["utilization"].dropna()
    if len(used):
        text = f"{used.mean():.0f} %"
        parts[0] += f" {text}"
        if several:
            parts[0] += f" ({used.min():.0f} to {used.max():.0f} %)"
    sized = newest.dropna(subset=["memory_used_gb", "memory_total_gb"])
    if len(sized):
        parts.append(f"{sized['memory_used_gb'].sum():.1f} of {sized['memory_total_gb'].sum():.1f} GB")
    if len(parts) == 1 and not len(used):
        return f"{parts[0]} in use, which reports neither utilization nor memory"
    return ", ".join(parts)


def _idle(samples: pd.DataFrame, seconds: pd.Series, facts: Mapping[str, Any]) -> str:
    """Return a warning about GPUs that were not used for a long time; empty if they were used, or nothing is known."""
    idle = _idle_seconds(samples, seconds)
    if idle < _IDLE:
        return ""
    price = facts.get("usd_per_hour")
    pods = samples["pod"].nunique()
    cost = ", at a price that is not known" if price is None else f", {pods * price * idle / 3600:.2f} USD so far"
    what = "GPU" if samples.groupby(["pod", "gpu"]).ngroups == 1 else "All GPUs"
    return f"{what} at 0 % for {idle // 60:.0f} minutes{cost}"


def _idle_seconds(samples: pd.DataFrame, seconds: pd.Series) -> float:
    """Return for how many seconds up to now all samples show 0 %."""
    if samples.empty or samples["utilization_max"].isna().any():
        return 0.0
    used = samples["utilization_max"] > 0
    last_use = seconds[used].min() if used.any() else float("inf")
    idle = sorted(seconds[seconds < last_use])
    reached = 0.0
    for age in idle:
        if age - reached > _LONGEST_GAP:
            break
        reached = age
    return float(reached)


def _on_cpu(samples: pd.DataFrame, seconds: pd.Series, devices: DeviceWords, metrics: pd.DataFrame) -> str:
    """Return a warning about a program that does not use the GPU; empty if it does, or nothing is known."""
    was_used = bool((samples["utilization_max"].fillna(0) > 0).any())
    if devices.uses_gpu or was_used:
        return ""
    if devices.cpu:
        return f'Training on the CPU although a GPU is paid for: the log says "{devices.cpu}"'
    idle = _idle_seconds(samples, seconds)
    if len(metrics) and idle >= _GUESS_AFTER:
        return (
            f"Training on the CPU although a GPU is paid for: a guess, because the log has metrics and the GPU was at "
            f"0 % in all {len(samples)} samples of {idle / 60:.0f} minutes"
        )
    return ""
