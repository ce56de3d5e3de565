"""How values come back: the limits, lost pods, rotated logs, several readers, and few rights."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.polling import wait_for

import aksgpu
from aksgpu import cluster, errors, jobs
from aksgpu.cluster import Cluster
from aksgpu.jobs import job_outcome
from aksgpu.local.process import laptop as private_laptop
from aksgpu.payload import records, runner
from aksgpu.payload.records import BadRecord

from .limited_user import limited
from .pod_process import pack, run_payload

TIMEOUT = 150
HERE = Path(__file__).parent
KEY = b"k" * 32
BIG = list(range(300_000))


def noise(size: int) -> bytes:
    return os.urandom(size)


def talk(lines: int, size: int) -> bytes:
    for number in range(lines):
        sys.stdout.write(f"line {number}\n")
    return b"\xa5" * 10 + os.urandom(size)


def pid() -> int:
    return os.getpid()


# Limits


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Report a value as a pod does, and return the message and the record that a client reads."""
    monkeypatch.setattr(runner, "MESSAGE", tmp_path / "message")
    monkeypatch.setattr(runner, "RESULT", tmp_path / "result")
    monkeypatch.setattr(runner, "READY", tmp_path)

    def call(body: bytes, **fields: str) -> tuple[str, records.Record]:
        runner.report({"kind": "value", "text": "a value", **fields}, body, KEY)
        message = (tmp_path / "message").read_text()
        record = records.decode(records.record_text(message), KEY)
        if record.header["where"] == "log":
            lines = list(records.to_frames((tmp_path / "result").read_text()))
            assert max(map(len, lines)) <= 8192
            record = records.decode(records.from_frames(lines), KEY)
        return message, record

    return call


def test_a_value_moves_from_the_message_to_the_log_at_the_limit(report: Any) -> None:
    bodies = [os.urandom(size) for size in range(2600, 3000)]
    places = []
    for body in bodies:
        message, record = report(body)
        assert record.body == body
        assert len(message.encode()) <= records.LARGEST_MESSAGE
        places.append(record.header["where"])
    limit = places.index("log")
    assert limit > 0
    assert places == ["message"] * limit + ["log"] * (len(places) - limit)
    whole = len(report(bodies[limit - 1])[0])
    assert records.LARGEST_MESSAGE - 4 < whole <= records.LARGEST_MESSAGE


def test_a_value_above_the_limit_of_the_log_comes_back_nowhere(report: Any) -> None:
    largest = os.urandom(records.LARGEST_FRAMED_BODY)
    assert report(largest)[1].body == largest
    _, record = report(largest + b"x")
    assert record.header["where"] == "nowhere"
    assert record.header["size"] == records.LARGEST_FRAMED_BODY + 1
    assert record.body == b""


@pytest.mark.parametrize("size", [0, 2_000, 20_000, 4_000_000])
def test_values_of_each_way_come_back(cpu: jobs.Executor, size: int) -> None:
    assert len(cpu.submit(noise, size).result(TIMEOUT)) == size


def test_a_value_that_is_too_large_is_said_to_be(cpu: jobs.Executor) -> None:
    job = cpu.submit(noise, 5_000_000)
    with pytest.raises(errors.ResultTooLarge) as raised:
        job.result(TIMEOUT)
    assert raised.value.size is not None
    assert raised.value.size > 5_000_000
    assert job.status().phase == "Complete" or job.done()


@pytest.mark.parametrize("damage", ["missing", "swapped", "changed", "none"])
def test_frames_that_are_not_complete_are_no_value(damage: str) -> None:
    text = records.encode({"kind": "value"}, os.urandom(40_000), KEY)
    frames = list(records.to_frames(text))
    if damage == "missing":
        del frames[1]
    elif damage == "swapped":
        frames[1:3] = frames[2:0:-1]
    elif damage == "changed":
        frames[1] = frames[1][:-4] + "AAAA"
    else:
        frames = []
    with pytest.raises(BadRecord):
        records.decode(records.from_frames(frames), KEY)


def test_a_text_that_cannot_be_encoded_does_not_lose_the_outcome(report: Any) -> None:
    assert records.message("\udcff failed", "aksgpu1.x").startswith("? failed\n")
    assert report(b"value")[1].body == b"value"


def test_a_text_of_any_length_and_script_leaves_room_for_the_record(report: Any) -> None:
    for text in ("x" * 5_000_000, "\u8bad\u7ec3" * 300, "\N{FIRE}" * 500):
        message, record = report(noise(100_000), text=text, lost="\N{FIRE}" * 400)
        assert len(message.encode()) <= records.LARGEST_MESSAGE
        assert record.header["text"].startswith(text[:20])
        assert len(record.body) == 100_000


def test_a_cut_or_forged_message_is_not_a_value() -> None:
    text = records.encode({"kind": "value"}, b"value", KEY)
    assert records.decode(text, KEY).body == b"value"
    for wrong in (text[:-1], text[: len(text) // 2], text.replace("aksgpu1", "aksgpu2"), text + "A", ""):
        with pytest.raises(BadRecord):
            records.decode(wrong, KEY)
    with pytest.raises(BadRecord, match="HMAC"):
        records.decode(text, b"another key")


def test_code_of_another_python_is_not_loaded() -> None:
    marker = []
    body = b"cloudpickle" + pickle.dumps(marker)
    record = records.Record({"kind": "value", "where": "message", "python": "3.7"}, body)
    with pytest.raises(errors.ResultUnpicklable, match=r"Python 3\.7"):
        job_outcome.value_of(record, "name", raw=False)
    assert job_outcome.value_of(record, "name", raw=True) == body
    plain = records.Record({"kind": "value", "where": "message", "python": "3.7"}, pickle.dumps([1]))
    assert job_outcome.value_of(plain, "name", raw=False) == [1]


def test_a_function_that_the_pod_could_not_load_says_what_is_missing() -> None:
    body = {"type": "ModuleNotFoundError", "module": "builtins", "text": "No module named 'timm'", "traceback": "..."}
    header = {"kind": "unloadable", "where": "message", "text": "the function could not be loaded: No module 'timm'"}
    with pytest.raises(errors.RemoteError, match="timm") as raised:
        job_outcome.value_of(records.Record(header, json.dumps(body).encode()), "name", raw=False)
    assert raised.value.type_name == "ModuleNotFoundError"
    assert "packages" in raised.value.hint


# Arguments


def test_a_large_captured_variable_is_named_in_a_warning(cpu: jobs.Executor) -> None:
    with pytest.warns(UserWarning, match="the variable 'BIG'"):
        job = cpu.submit(lambda: len(BIG))
    assert job.result(TIMEOUT) == len(BIG)


def test_arguments_of_several_secrets_arrive(cpu: jobs.Executor, aks: Cluster) -> None:
    data = os.urandom(2_500_000)
    with pytest.warns(UserWarning, match="argument 1"):
        job = cpu.submit(len, data)
    assert job.result(TIMEOUT) == len(data)
    assert len(aks.kube.list("Secret", label_selector=f"aksgpu.dev/executor={job.name}")) >= 3


def test_arguments_above_the_limit_are_refused(cpu: jobs.Executor, aks: Cluster) -> None:
    before = len(aks.kube.list("Job"))
    with pytest.raises(errors.InvalidInput, match=r"at most 8,388,608 bytes.* the largest is argument 1") as raised:
        cpu.submit(len, os.urandom(9_000_000))
    assert "Pass a path" in raised.value.hint
    assert len(aks.kube.list("Job")) == before


# Pods that disappear, and several readers


def test_a_value_outlives_its_pod_once_it_was_read(cpu: jobs.Executor, aks: Cluster) -> None:
    job = cpu.submit(noise, 1_000_000)
    value = job.result(TIMEOUT)
    remove_pods(job)
    assert jobs.get(aks, job.name).result(TIMEOUT) == value


def test_a_wait_keeps_the_value(cpu: jobs.Executor, aks: Cluster) -> None:
    job = cpu.submit(pid).wait(TIMEOUT)
    remove_pods(job)
    assert jobs.get(aks, job.name).result(TIMEOUT) != os.getpid()


def test_a_value_whose_node_is_gone_before_anybody_asks_is_lost(cpu: jobs.Executor) -> None:
    job = cpu.submit(pid)
    wait_for(lambda: job.status().phase == "Complete", 60)
    remove_pods(job)
    with pytest.raises(errors.ResultLost, match="lost with its pod"):
        job.result(TIMEOUT)
    assert isinstance(job.exception(TIMEOUT), errors.ResultLost)


def succeed_at_second_attempt() -> str:
    if os.environ["AKSGPU_ATTEMPT"] == "0":
        raise RuntimeError("the first attempt")
    return "value"


@pytest.mark.parametrize("was_read", [True, False])
def test_an_earlier_attempt_does_not_replace_a_value_whose_pod_is_gone(aks: Cluster, was_read: bool) -> None:
    job = jobs.Executor(aks, gpus=0, retries=1, root=HERE).submit(succeed_at_second_attempt)
    wait_for(lambda: job.status().phase == "Complete", TIMEOUT)
    if was_read:
        assert job.result(TIMEOUT) == "value"
    pods = aks.kube.list("Pod", label_selector=f"batch.kubernetes.io/job-name={job.name}")
    assert sorted(pod["status"]["phase"] for pod in pods) == ["Failed", "Succeeded"]
    gone = next(pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] == "Succeeded")
    aks.kube.delete("Pod", gone)
    wait_for(lambda: aks.kube.find("Pod", gone) is None, 60)
    if was_read:
        assert job.result(TIMEOUT) == "value"
    else:
        with pytest.raises(errors.ResultLost):
            job.result(TIMEOUT)


def remove_pods(job: jobs.Job) -> None:
    """Remove the pods of a Job, as the garbage collector does after their node is gone."""
    wait_for(lambda: job.status().ended, 60)
    kube = job.cluster.kube
    selector = f"batch.kubernetes.io/job-name={job.name}"
    for pod in kube.list("Pod", job.namespace, label_selector=selector):
        kube.delete("Pod", pod["metadata"]["name"], job.namespace)
    wait_for(lambda: kube.list("Pod", job.namespace, label_selector=selector) == [], 60)


def test_several_kernels_get_one_value_at_the_same_time(cpu: jobs.Executor, aks: Cluster) -> None:
    job = cpu.submit(noise, 100_000)
    with ThreadPoolExecutor(4) as pool:
        values = list(pool.map(lambda _: jobs.get(aks, job.name).result(TIMEOUT), range(4)))
    assert len(set(values)) == 1
    selector = f"aksgpu.dev/executor={job.name}"
    names = [secret["metadata"]["name"] for secret in aks.kube.list("Secret", label_selector=selector)]
    assert names.count(f"{job.name}-outcome-0") == 1


def test_a_clock_that_is_off_by_minutes_does_not_matter(cpu: jobs.Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 600)
    assert cpu.submit(pid).result(TIMEOUT) != os.getpid()
    monkeypatch.setattr(time, "time", lambda: real() + 600)
    assert cpu.submit(pid).result(TIMEOUT) != os.getpid()


# Logs


@pytest.mark.slow
def test_output_never_displaces_a_value_and_a_rotated_value_is_lost() -> None:
    with private_laptop(time_scale=0.05, container_log_max_mb=2) as endpoint:
        made = cluster.create(aksgpu.connect(endpoint), "rotated", resource_group="rotated", location="eastus")
        cpu = jobs.Executor(made, gpus=0, root=HERE)
        for size in (100, 900_000):
            job = cpu.submit(talk, 1_000_000, size)
            assert len(job.result(TIMEOUT)) == size + 10
            assert "line 999999\n" in job.logs(tail_lines=5)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert "line 0\n" not in job.logs()
        with pytest.raises(errors.ResultLost, match="frame"):
            cpu.submit(noise, 4_000_000).result(TIMEOUT)


# Few rights


def test_the_edit_role_of_a_namespace_suffices(aks: Cluster, tmp_path: Path) -> None:
    team = limited(aks, tmp_path)
    cpu = jobs.Executor(team, gpus=0, namespace="team", root=HERE, secrets={"TOKEN": "secret"})
    job = cpu.submit(lambda: os.environ["TOKEN"])
    assert job.result(TIMEOUT) == "secret"
    assert job.done()
    waiting = cpu.submit(time.sleep, 3600)
    wait_for(waiting.running, 60)
    assert waiting.cancel(timeout=TIMEOUT)
    gpu = jobs.Executor(team, gpus=1, namespace="team", root=HERE)
    with pytest.warns(UserWarning, match="may not list the cluster's nodes"):
        assert gpu.submit(pid).result(TIMEOUT) != os.getpid()
    for each in (job, waiting):
        each.delete()


# The container's system


READ_ONLY = (
    "unshare",
    "-Urm",
    "sh",
    "-c",
    'mount --bind "$AKSGPU_PAYLOAD/.." "$AKSGPU_PAYLOAD/.." && mount -o remount,bind,ro / && exec "$@"',
    "sh",
)


needs_namespaces = pytest.mark.skipif(
    subprocess.run(["unshare", "-Urm", "true"], capture_output=True, check=False).returncode != 0,
    reason="this system allows no mount namespaces",
)


def try_to_write() -> dict[str, bool]:
    places = {"home": Path.home(), "root": Path("/usr"), "work": Path()}
    return {name: os.access(path, os.W_OK) for name, path in places.items()}


@needs_namespaces
def test_a_read_only_root_file_system_suffices(tmp_path: Path) -> None:
    run = run_payload(pack(try_to_write), tmp_path, wrapper=READ_ONLY, env={"HOME": "/root"})
    assert run.record is not None, run.output
    assert pickle.loads(run.record.body) == {"home": True, "root": False, "work": True}


@needs_namespaces
def test_a_user_without_a_home_and_without_root_suffices(tmp_path: Path) -> None:
    run = run_payload(pack(os.geteuid), tmp_path, wrapper=("unshare", "-U"), env={"HOME": "/"})
    assert run.record is not None, run.output
    assert pickle.loads(run.record.body) != 0
