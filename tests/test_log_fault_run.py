"""Many faults on many lines: no line is lost without a marker, and none is repeated.

Pods are followed through the fault proxy while they write, restart in place, are rotated and are removed. Every line
has its own number, so that each lost and each repeated line is counted. The run prints its seed and figures:

    pytest -s -m "slow or not slow" tests/test_log_fault_run.py
    AKSGPU_FAULTS=10000 AKSGPU_SEED=7 pytest -s -m slow tests/test_log_fault_run.py
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import fault_proxy as faults
from support.fault_proxy import Call, Fault, FaultProxy
from support.kubelet import ApiServer, Pod

from aksgpu import logs
from aksgpu.kube import Kube
from aksgpu.logs import follower, retrying

FAULTS = int(os.environ.get("AKSGPU_FAULTS", "1000"))
"""Faults of the long run."""
SEED = int(os.environ.get("AKSGPU_SEED", "8"))
"""Seed of the faults and of what the pods do."""
SILENCE = 0.5
"""Seconds of silence after which a stream is renewed."""

KINDS = ["steady"] * 5 + ["restarts"] * 4 + ["rotates"] * 2 + ["removed"] * 1
"""What the pods do, in turn."""


class Driver:
    """Runs a pod, and follows its log."""

    def __init__(self, number: int, kind: str, aks: Any, seed: int, status_lag: float) -> None:
        self.kind = kind
        self.aks = aks
        self.random = random.Random(f"{seed} {number}")
        policy = "OnFailure" if kind == "restarts" else "Never"
        self.pod = Pod(f"p{number}", policy=policy, status_lag=status_lag if kind == "restarts" else 0.0)
        self.given: list[logs.LogLine] = []
        self.errors: list[BaseException] = []
        self.runs_begin = 0
        self.restarts = 0
        self.losses: list[tuple[int, int]] = []
        self.rotations = 0

    def text(self, number: int) -> str:
        """Return a line with its number: short or long, a progress bar, or with non-ASCII letters."""
        shape = self.random.random()
        if shape < 0.0005:
            return f"{number} " + "\r".join("#" * width for width in range(0, 300, 1))
        if shape < 0.01:
            return f"{number} " + "x" * self.random.randrange(3000)
        return f"{number} µ {'y' * self.random.randrange(40)}"

    def live(self, lines: int, enough: Any) -> None:
        """Write at least ``lines`` lines, and continue until enough faults have occurred."""
        try:
            self._live(lines, enough)
        except BaseException as error:
            self.errors.append(error)
            raise

    def _live(self, lines: int, enough: Any) -> None:
        pod = self.pod.start()
        block = max(lines // 150, 10)
        while len(pod.texts) < lines or not enough():
            if len(pod.texts) >= lines:
                block = 2  # streams must run for a while so that faults can break them
            start = len(pod.texts)
            pod.write(*[self.text(number) for number in range(start, start + block)])
            if self.kind == "restarts" and self.random.random() < 0.05 and len(self.given) > self.runs_begin:
                # The node keeps one previous run: the next restart waits until this run is being read.
                self.runs_begin = len(pod.texts)
                self.restarts += 1
                pod.restart()
            # If a log is rotated before its first line is read, missing lines cannot be detected.
            if self.kind == "rotates" and self.random.random() < 0.05 and self.given:
                self.rotations += 1
                pod.rotate()
            if self.kind == "removed" and len(pod.texts) >= lines:
                pod.end(1)
                pod.delete()
                return
            time.sleep(self.random.random() * 0.06)
        pod.write(self.text(len(pod.texts))).end(0)

    def follow(self) -> None:
        try:
            for line in logs.follow(self.aks, self.pod.name, read_timeout=SILENCE):
                self.given.append(line)
        except BaseException as error:
            self.errors.append(error)
            raise

    def account(self) -> Counter[str]:
        """Count lines that were yielded, that were repeated, and that are missing with and without a marker."""
        counted: Counter[str] = Counter(lines=len(self.pod.texts))
        expected = 0
        marked = False
        for line in self.given:
            if line.gap is not None:
                marked = True
                counted["markers"] += 1
                continue
            number = int(line.text.partition(" ")[0])
            if number < expected:
                counted["doubled"] += 1
                continue
            if line.text != self.pod.texts[number]:
                counted["wrong"] += 1
            counted["missing with a marker" if marked else "lost"] += number - expected
            if number > expected and not marked:
                self.losses.append((expected, number))
            counted["given"] += 1
            expected = number + 1
            marked = False
        counted["missing with a marker" if marked else "lost"] += len(self.pod.texts) - expected
        return counted


def any_fault(call: Call) -> Fault | None:
    """Return a fault for most streams, and for some of the other requests."""
    chance = call.random
    is_log = call.path.endswith("/log")
    stays = call.query.get("follow") == "true"
    if chance.random() > (0.95 if stays else 0.3):
        return None
    if chance.random() < 0.003:
        return faults.refused(0.1)
    answers = [
        faults.status(500),
        faults.status(502),
        faults.status(503),
        faults.status(504),
        faults.status(429, retry_after=0),
        faults.unauthorized(),
        faults.gone(),
        faults.rbac_not_ready(),
        faults.etcd_hangs(),
        faults.no_answer(),
        faults.cut(0),
    ]
    if not is_log:
        return chance.choice([*answers, faults.half_open(None, seconds=0.2), faults.cut(chance.randrange(300))])
    if not stays or chance.random() < 0.2:
        answers += [
            faults.not_found(),
            faults.kubelet_away(),
            faults.tunnel_broken(),
            faults.kubelet_message(),
            faults.kubelet_message("failed to create fsnotify watcher: too many open files"),
            faults.early_end(0),
            faults.half_open(None),
        ]
        if chance.random() < 0.5:
            return chance.choice(answers)
    at = int(10 ** (chance.random() * 5))
    breaks = [faults.cut(at)] * 6 + [faults.early_end(at)] * 6 + [faults.half_open(at)]
    return chance.choice([*breaks, faults.trickle(200, 0.0005)])


def run(
    folder: Path, wanted: int, lines: int, seed: int, kinds: list[str], status_lag: float = 0.3
) -> tuple[Counter[str], str]:
    began = time.monotonic()
    with ApiServer() as server, FaultProxy(server.url, seed=seed) as proxy:
        kube = Kube.from_kubeconfig(proxy.kubeconfig(folder))
        aks = SimpleNamespace(name="scripted", kube=kube)
        drivers = [Driver(number, kind, aks, seed, status_lag) for number, kind in enumerate(kinds)]
        server.pods = [driver.pod for driver in drivers]

        def enough() -> bool:
            return len(proxy.faults) >= wanted

        proxy.plan = lambda call: None if enough() else any_fault(call)
        each = lines // len(drivers) + 1
        threads = [threading.Thread(target=driver.follow, daemon=True) for driver in drivers]
        threads += [threading.Thread(target=driver.live, args=(each, enough), daemon=True) for driver in drivers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        errors = [error for driver in drivers for error in driver.errors]
        assert not errors, (proxy.summary(), errors)
        total: Counter[str] = Counter()
        for driver in drivers:
            counted = driver.account()
            bad = {key: counted[key] for key in ("lost", "doubled", "wrong") if counted[key]}
            assert not bad, (proxy.summary(), driver.kind, driver.pod.name, bad, driver.losses)
            if driver.kind in ("steady", "restarts"):
                assert not counted["markers"], (proxy.summary(), driver.kind, [g for g in driver.given if g.gap])
            total += counted
            total["restarts"] += driver.restarts
            total["rotations"] += driver.rotations
        kube.close()
        total["faults"] = len(proxy.faults)
        total["seconds"] = round(time.monotonic() - began)
        figures = ", ".join(f"{total[key]:,} {key}" for key in REPORTED)
        return total, f"{figures}; {proxy.summary()}"


REPORTED = (
    "faults",
    "lines",
    "given",
    "lost",
    "doubled",
    "missing with a marker",
    "markers",
    "restarts",
    "rotations",
    "seconds",
)


def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(follower, "STATUS_LAG_SECONDS", 1.0)
    monkeypatch.setattr(retrying, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(retrying, "LONGEST_PAUSE", 0.5)


def test_a_short_run_of_faults(tmp_path: Path, record_property: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    short_pauses(monkeypatch)
    total, figures = run(tmp_path, 100, 5_000, SEED, ["steady", "steady", "restarts", "restarts", "rotates", "removed"])
    print(figures)  # noqa: T201  # the figures are the result of the run
    record_property("figures", figures)
    assert total["lost"] == total["doubled"] == 0


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_run_of_faults_with_the_real_pauses(tmp_path: Path, record_property: Any) -> None:
    kinds = ["steady", "restarts", "restarts", "rotates", "removed"]
    total, figures = run(tmp_path, 200, 10_000, SEED, kinds, status_lag=1.5)
    print(figures)  # noqa: T201  # the figures are the result of the run
    record_property("figures", figures)
    assert total["lost"] == total["doubled"] == 0


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_long_run_of_faults(tmp_path: Path, record_property: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    short_pauses(monkeypatch)
    total, figures = run(tmp_path, FAULTS, max(100_000, 10 * FAULTS), SEED, KINDS)
    print(figures)  # noqa: T201  # the figures are the result of the run
    record_property("seed", SEED)
    record_property("figures", figures)
    assert total["faults"] >= FAULTS
    assert total["lines"] >= 100_000
    assert total["lost"] == total["doubled"] == 0
