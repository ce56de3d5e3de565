"""The runs that were saved on this machine: list, read and compare them, also after their Jobs were deleted.

    runs.list()
    runs.compare([job_a, job_b])

``job.wait()``, ``job.result()`` and the live view save a Job's log, metrics, GPU samples and facts when the Job has
ended, and ``job.delete()`` does so before it deletes the Job. They are saved in one directory, :func:`directory`. It
keeps the newest 500 runs and at most 1 GiB. :func:`clear` deletes them. ``AKSGPU_HISTORY=0`` in the environment turns
saving off.
"""

from __future__ import annotations

import builtins
import io
import json
import warnings
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aksgpu import history
from aksgpu.common.arguments import integer, shown
from aksgpu.common.frames import frame
from aksgpu.errors import InvalidInput, KubernetesError, NotFound
from aksgpu.jobs.call_parameters import split_options
from aksgpu.jobs.gpu_sample_table import gpu_table
from aksgpu.jobs.job import Job
from aksgpu.metrics import canonical
from aksgpu.metrics.values import better_value

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Comparison", "Run", "clear", "compare", "delete", "directory", "get", "list"]

_LONGEST_SHOWN = 60
"""Characters of a fact in the text of a comparison. A longer one is cut."""


def __dir__() -> builtins.list[str]:
    return sorted(__all__)


_LIST_COLUMNS = {
    "run": "string",
    "job": "string",
    "namespace": "string",
    "cluster": "string",
    "phase": "string",
    "started": "datetime64[ns, UTC]",
    "seconds": "Float64",
    "gpus": "Int64",
    "gpu_model": "string",
    "usd": "Float64",
    "image": "string",
}
_COMPARED = ("phase", "seconds", "usd", "image", "gpus", "gpu_model", "vm_size", "spot", "pods", "cluster")
"""Facts that are compared besides the arguments, the environment and the annotations."""
_POSITIONS = ("step", "epoch", "time", "pod", "index", "rank", "attempt", "run")
"""Columns of a table of metrics that are not metrics."""


class Run:
    """A run that was saved in the history. Returned by :func:`get`.

    Attributes:
        id: the run's name in the history, such as ``20261129T101500Z-train-1f6b0c9e``.
        name: name of the Job.
        facts: what is known about the run; see :func:`list` and :func:`compare` for the more important ones.
    """

    def __init__(self, stored: history.StoredRun) -> None:
        self.id = stored.id
        self.name = str(stored.facts["job"])
        self.facts: Mapping[str, Any] = stored.facts
        self._stored = stored

    def __repr__(self) -> str:
        return f"Run({self.id!r})"

    def logs(self) -> str:
        """Return the log as it was saved, without the times of its lines. The middle of a long log is omitted.

        A line ``[aksgpu: ...]`` marks the gap.
        """
        return "".join(_without_time(line) for line in self._stored.log().splitlines(keepends=True))

    def metrics(self) -> pd.DataFrame:
        """Return the metrics, as ``job.metrics()`` did when the run was saved; empty if the log was gone by then."""
        found = self._stored.table("metrics")
        if found is None:
            from aksgpu import metrics

            return metrics.parse("")
        return found

    def gpu(self) -> pd.DataFrame:
        """Return the GPU samples, as ``job.gpu()`` did when the run was saved.

        Returns:
            The table of :meth:`aksgpu.jobs.Job.gpu`. ``attrs["sources"]`` says why there are no samples.
        """
        found = self._stored.table("gpu")
        return gpu_table([], {}) if found is None else found

    def plot(self, *metrics: str, gpu: bool = False, **options: Any) -> Figure:
        """Draw the run's metrics. The arguments are those of :meth:`aksgpu.jobs.Job.plot`."""
        from aksgpu import plots

        options.setdefault("title", self.name)
        figure: Figure
        if gpu:
            figure = plots.with_gpu(self.metrics(), self.gpu(), self.facts, *metrics, **options)
        else:
            figure = plots.curve(self.metrics(), *metrics, **options)
        return figure


def directory() -> Path:
    """Return the directory in which runs are saved. It may not exist yet."""
    return history.directory()


def list(*, job: str | None = None) -> pd.DataFrame:
    """Return the saved runs, newest first.

    Args:
        job: only the runs of Jobs of this name; None means all.

    Returns:
        One row for each run:

        - run (string): its name in the history, for :func:`get`, :func:`compare` and :func:`delete`.
        - job, namespace, cluster (string): the Job, and the name of its cluster.
        - phase (string): as in :class:`aksgpu.jobs.JobStatus`. A Job that was deleted while it ran is ``Running``.
        - started (datetime64[ns, UTC]): when the first container started; NaT if none did.
        - seconds (Float64): from then until the last container ended, or until the run was saved. It is exact to one
          second, as the times that Kubernetes records.
        - gpus (Int64): GPUs of one pod; gpu_model (string): NA if the node was gone.
        - usd (Float64): the nodes' prices for that time, by the pods' share of the nodes' GPUs, in US dollars; NA if
          unknown.
        - image (string): image of the first container.

    Warns:
        DamagedRun: a run cannot be read. It is left out.

    Example:
        >>> runs.list(job="samples-tf-mnist-demo")  # doctest: +SKIP
    """
    found = [run for run in history.load() if job is None or run.facts.get("job") == job]
    rows = []
    for run in reversed(found):
        started = run.facts.get("started")
        rows.append({**run.facts, "run": run.id, "started": datetime.fromisoformat(started) if started else None})
    return frame(rows, _LIST_COLUMNS)


def get(run: str) -> Run:
    """Return a saved run.

    Args:
        run: its name in the history, or the name of a Job, whose newest run is returned.

    Raises:
        InvalidInput: ``run`` is not a string.
        NotFound: there is no such run. The hint has the newest runs.

    Example:
        >>> runs.get("samples-tf-mnist-demo").plot()  # doctest: +SKIP
    """
    if not isinstance(run, str):
        raise InvalidInput(f"`run` must be the name of a run or of a Job, got {shown(run)}")
    found = history.load()
    for stored in reversed(found):
        if run in (stored.id, stored.facts.get("job")):
            return Run(stored)
    newest = ", ".join(stored.id for stored in found[-3:])
    raise NotFound(
        f"`run` must be the name of a saved run or of its Job, got {shown(run)}",
        hint=f"The newest runs are {newest}. runs.list() returns all." if newest else "No run has been saved yet.",
    )


def delete(run: str) -> None:
    """Delete a saved run from the history. The Job in the cluster is not deleted.

    Args:
        run: its name in the history.

    Raises:
        NotFound: there is no such run.
    """
    for stored in history.load():
        if stored.id == run:
            history.delete(stored)
            return
    raise NotFound(f"`run` must be the name of a saved run, got {shown(run)}", hint="runs.list() returns all.")


def clear(*, keep: int = 0) -> int:
    """Delete the saved runs. The Jobs in the cluster are not deleted.

    Args:
        keep: number of the newest runs that stay.

    Returns:
        The number of runs that were deleted.

    Raises:
        InvalidInput: ``keep`` is not an integer of 0 or more.
    """
    integer("keep", keep, 0)
    found = history.load()
    to_delete = found[: len(found) - keep]
    for stored in to_delete:
        history.delete(stored)
    return len(to_delete)


def compare(runs: Sequence[Job | Run | str] | Mapping[str, Job | Run | str]) -> Comparison:
    """Compare runs: their curves, and what differs between them.

    Args:
        runs: two or more Jobs, saved runs, or names of saved runs or of their Jobs. A dict's keys name them. A Job
            that was deleted is read from the history.

    Returns:
        The comparison. As a cell's last line, it shows the curves and the differences.

    Raises:
        InvalidInput: there are fewer than two runs, or one of them is something else.
        NotFound: a run is neither in the cluster nor in the history.

    Warns:
        UserWarning: a Job cannot be read, for example because the cluster was deleted. Its newest saved run is used.

    Example:
        >>> runs.compare({"lr 0.1": first, "lr 0.01": second})  # doctest: +SKIP
    """
    facts = {}
    tables = {}
    for name, run in _named(runs).items():
        facts[name], tables[name] = _side(run)
    return Comparison(facts, tables)


@dataclass(frozen=True)
class Comparison:
    """A comparison of runs. Returned by :func:`compare`.

    Attributes:
        facts: the facts of each run, by its name.
        tables: the metrics of each run, by its name.
    """

    facts: Mapping[str, Mapping[str, Any]]
    tables: Mapping[str, pd.DataFrame]

    def metrics(self) -> pd.DataFrame:
        """Return the metrics of all runs in one table, with the run's name as first column ``run`` (string)."""
        import pandas as pd

        parts = [table.assign(run=name).astype({"run": "string"}) for name, table in self.tables.items()]
        together = pd.concat(parts, ignore_index=True)
        return together[["run", *(column for column in together.columns if column != "run")]]

    def differences(self) -> pd.DataFrame:
        """Return what differs: one row for each fact that is not the same in all runs, one column for each run.

        Returns:
            The index has the names of the facts: ``--lr`` for an argument of a program, ``argument lr`` for one of a
            function, ``env LR`` for an environment variable, and ``phase``, ``seconds``, ``usd``, ``image``, ``gpus``,
            ``gpu_model``, ``vm_size`` and others. A value is text; NA if the run does not have it, or if it is unknown.
        """
        import pandas as pd

        flat = {name: _flat(facts) for name, facts in self.facts.items()}
        names = dict.fromkeys(fact for facts in flat.values() for fact in facts)
        different = [fact for fact in names if len({facts.get(fact) for facts in flat.values()}) > 1]
        columns = {
            run: pd.Series([facts.get(fact) for fact in different], index=different, dtype="string")
            for run, facts in flat.items()
        }
        return pd.DataFrame(columns, index=pd.Index(different, dtype="string", name="fact"))

    def best(self, *metrics: str) -> pd.DataFrame:
        """Return each run's best and last value of each metric.

        Args:
            metrics: names of metrics, as printed or in general (``accuracy``, ``val_loss``). None given takes those
                whose names say whether high or low is better.

        Returns:
            One row for each run and metric:

            - run, metric (string): the run, and the metric as printed.
            - best (float64): its highest value, or the lowest of a loss or an error; NaN if there is none.
            - best_step (Int64), best_epoch (Float64): where that was; NA if the log does not say.
            - last (float64): its last value.
        """
        rows = [row for run, table in self.tables.items() for row in _best_rows(run, table, metrics)]
        columns = {
            "run": "string",
            "metric": "string",
            "best": "float64",
            "best_step": "Int64",
            "best_epoch": "Float64",
            "last": "float64",
        }
        return frame(rows, columns)

    def plot(self, *metrics: str, **options: Any) -> Figure:
        """Draw the runs' curves in one figure. The arguments are those of :func:`aksgpu.plots.curve`."""
        from aksgpu import plots

        figure: Figure = plots.curve(dict(self.tables), *metrics, **options)
        return figure

    def __repr__(self) -> str:
        best = self.best()
        values = "" if best.empty else f"{best.to_string(index=False)}\n"
        facts = self.differences().to_string(max_colwidth=_LONGEST_SHOWN)
        return f"Comparison of {', '.join(self.facts)}\n{values}{facts}"

    def _repr_html_(self) -> str:
        picture = io.BytesIO()
        self.plot(best=True).savefig(picture, format="png")
        data = b64encode(picture.getvalue()).decode()
        image = f'<img alt="curves of the runs" src="data:image/png;base64,{data}"/>'
        return f"{image}{self.best().to_html(index=False, na_rep='')}{self.differences().to_html(na_rep='')}"


def _named(runs: Any) -> dict[str, Any]:
    """Return the runs by unique names."""
    if isinstance(runs, Mapping):
        given = {str(name): run for name, run in runs.items()}
    elif isinstance(runs, Iterable) and not isinstance(runs, str):
        items = builtins.list(runs)
        names = [str(getattr(run, "name", run)) for run in items]
        if len(set(names)) < len(names):
            names = [str(getattr(run, "id", name)) for run, name in zip(items, names, strict=True)]
        if len(set(names)) < len(names):
            names = [f"{name} ({number})" for number, name in enumerate(names, 1)]
        given = dict(zip(names, items, strict=True))
    else:
        raise InvalidInput(f"`runs` must be a list or a dict of Jobs and runs, got {shown(runs)}")
    if len(given) < 2:
        raise InvalidInput(f"`runs` must be two runs or more, got {len(given)}")
    return given


def _side(run: Any) -> tuple[Mapping[str, Any], pd.DataFrame]:
    """Return the facts and the metrics of a run."""
    if isinstance(run, str):
        run = get(run)
    if isinstance(run, Run):
        return run.facts, run.metrics()
    if not isinstance(run, Job):
        raise InvalidInput(f"each of `runs` must be a Job, a Run or the name of a run, got {shown(run)}")
    try:
        return run.facts(), run.metrics()
    except KubernetesError as failed:
        stored = _newest(run)
        if stored is None:
            raise
        if not isinstance(failed, NotFound):
            text = f"job {run.name} cannot be read, so its newest saved run is used, {stored.id}: {failed.message}"
            warnings.warn(text, stacklevel=3)
        return stored.facts, Run(stored).metrics()


def _newest(job: Job) -> history.StoredRun | None:
    """Return the newest saved run of a Job."""
    for stored in reversed(history.load()):
        if stored.facts.get("job") == job.name and stored.facts.get("namespace") == job.namespace:
            return stored
    return None


def _flat(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the facts that are compared as texts."""
    flat: dict[str, str] = {}
    flat.update(_arguments(facts))
    for name, value in (facts.get("env") or {}).items():
        flat[f"env {name}"] = str(value)
    for name, value in (facts.get("annotations") or {}).items():
        if name == "parameters":
            flat.update(_parameters(str(value)))
        else:
            flat[name] = str(value)
    for name in _COMPARED:
        known = facts.get(name)
        if known is not None:
            flat[name] = f"{known:.4g}" if isinstance(known, float) else str(known)
    return flat


def _parameters(text: str) -> dict[str, str]:
    """Return the arguments of a function's call."""
    try:
        found = json.loads(text)
    except ValueError:
        return {"parameters": text}
    if not isinstance(found, dict):
        return {"parameters": text}
    return {f"argument {name}": str(value) for name, value in found.items()}


def _arguments(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the program's arguments: the options by their names, the rest in one value."""
    words = [str(word) for word in (*(facts.get("command") or ()), *(facts.get("args") or ()))]
    found, rest = split_options(words)
    if rest:
        found["command"] = json.dumps(rest) if any(" " in word for word in rest) else " ".join(rest)
    return found


def _best_rows(run: str, table: pd.DataFrame, metrics: Sequence[str]) -> Iterable[dict[str, Any]]:
    for name in table.columns:
        if name in _POSITIONS:
            continue
        if metrics and name not in metrics and canonical(name) not in metrics:
            continue
        better = better_value(str(name))
        values = table[name].to_numpy(dtype=float)
        measured = np.flatnonzero(~np.isnan(values))
        if better is None or not len(measured):
            continue
        known = values[measured]
        place = int(measured[known.argmax() if better == "max" else known.argmin()])
        yield {
            "run": run,
            "metric": name,
            "best": float(values[place]),
            "best_step": table["step"].iloc[place],
            "best_epoch": table["epoch"].iloc[place],
            "last": float(known[-1]),
        }


def _without_time(line: str) -> str:
    """Return a line of the saved log without the time that the node put before it."""
    time, space, text = line.partition(" ")
    return text if space and time.endswith("Z") and time[4:5] == "-" else line
