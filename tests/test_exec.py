"""Programs in containers: output, input, exit codes, and connections that end early."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted import Request, Server
from support.polling import wait_for
from support.tcp_relay import relayed

from aksgpu import errors, jobs
from aksgpu.cluster import Cluster
from aksgpu.kube import Kube, retry_policy
from aksgpu.kube.exec_stream import STDERR, STDOUT

pytest_plugins = ["aksgpu.local.testing", "support.laptop_cluster"]


@pytest.fixture(scope="module")
def pod(aks: Cluster) -> Iterator[str]:
    """The name of a pod that runs."""
    job = jobs.submit(aks, image="docker.io/library/busybox:1", command=["sleep", "3600"], name="exec-target", gpus=0)
    wait_for(lambda: job.status().ready == 1)
    yield str(job.pods()["pod"].iloc[0])
    job.delete()


def run(aks: Cluster, pod: str, script: str, data: bytes | None = None) -> Any:
    with aks.kube.exec(pod, ["sh", "-c", script], stdin=data is not None) as program:
        return program.communicate(data, timeout=60)


def test_output_error_output_and_exit_code(aks: Cluster, pod: str) -> None:
    done = run(aks, pod, "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


def test_input_ends(aks: Cluster, pod: str) -> None:
    data = bytes(range(256)) * 4000
    done = run(aks, pod, "cat", data)
    assert done.stdout == data
    assert done.returncode == 0


def test_a_large_output_is_whole(aks: Cluster, pod: str) -> None:
    done = run(aks, pod, "i=0; while [ $i -lt 200 ]; do head -c 50000 /dev/zero; i=$((i+1)); done")
    assert len(done.stdout) == 10_000_000


def test_lines_come_as_they_are_printed(aks: Cluster, pod: str) -> None:
    with aks.kube.exec(pod, ["sh", "-c", "echo one; read line; printf 'two %s' $line"], stdin=True) as program:
        lines = program.lines(timeout=60)
        assert next(lines) == b"one"
        program.write(b"answer\n")
        assert list(lines) == [b"two answer"]
        assert program.returncode == 0


def test_a_read_without_output_times_out_and_can_be_repeated(aks: Cluster, pod: str) -> None:
    with aks.kube.exec(pod, ["sh", "-c", "read line; echo $line; echo bad >&2"], stdin=True) as program:
        with pytest.raises(TimeoutError):
            program.read(timeout=0.3)
        program.write(b"go\n")
        pieces = iter(lambda: program.read(60), None)
        assert sorted(pieces) == [(STDOUT, b"go\n"), (STDERR, b"bad\n")]
        assert program.returncode == 0


def test_a_program_that_does_not_exist(aks: Cluster, pod: str) -> None:
    with (
        aks.kube.exec(pod, ["no-such-program"]) as program,
        pytest.raises(errors.KubernetesError, match="no-such-program"),
    ):
        program.communicate(timeout=60)


def test_a_pod_that_does_not_exist(aks: Cluster) -> None:
    with pytest.raises(errors.NotFound, match="no-such-pod"):
        aks.kube.exec("no-such-pod", ["true"])


@pytest.mark.parametrize("command", ["ls -l", []])
def test_a_command_must_be_a_list(aks: Cluster, command: Any) -> None:
    with pytest.raises(errors.InvalidInput, match="`command` must be a list"):
        aks.kube.exec("pod", command)


def test_a_container_of_another_name(aks: Cluster, pod: str) -> None:
    with pytest.raises(errors.KubernetesError, match="other"):
        aks.kube.exec(pod, ["true"], container="other")
    with pytest.raises(errors.InvalidInput):
        aks.kube.exec(pod, ["true"], container="../x")


def test_a_connection_that_breaks_is_not_the_end_of_the_program(aks: Cluster, pod: str, tmp_path: Path) -> None:
    kube, relay = relayed(aks, tmp_path / "config")
    with kube.exec(pod, ["sh", "-c", "echo begun; sleep 600"]) as program:
        assert program.read(60) == (STDOUT, b"begun\n")
        relay.stop()
        with pytest.raises(errors.Unreachable, match=r"sh in pod|exec"):
            program.read(60)
        assert program.returncode is None


ROLES = (
    'pods "p" is forbidden: User "dev" cannot create resource: RBAC: role.rbac.authorization.k8s.io "edit" not found'
)


def test_a_program_that_certainly_did_not_start_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry_policy, "FIRST_PAUSE", 0.02)
    refusals = [(429, "TooManyRequests", "too many requests"), (403, "Forbidden", ROLES), (404, "NotFound", "no pod")]

    def answer(request: Request) -> None:
        request.refuse(*refusals[len(server.requests) - 1])

    with Server(answer) as server:
        kube = Kube.from_kubeconfig(server.kubeconfig(tmp_path))
        with pytest.raises(errors.NotFound, match="no pod"):
            kube.exec("p", ["true"])
        assert len(server.requests) == 3


@pytest.mark.parametrize("fault", ["500", "no response"])
def test_a_program_that_may_have_started_is_not_started_again(tmp_path: Path, fault: str) -> None:
    def answer(request: Request) -> None:
        if fault == "500":
            request.refuse(500, "InternalError", "error dialing backend")
        else:
            request.drop()

    with Server(answer) as server:
        kube = Kube.from_kubeconfig(server.kubeconfig(tmp_path))
        with pytest.raises(errors.KubernetesError):
            kube.exec("p", ["true"])
        assert len(server.requests) == 1
