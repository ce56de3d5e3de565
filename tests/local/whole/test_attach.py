"""``kubectl run -i`` and the official client's ``attach`` on containers of a complete laptop AKS."""

from __future__ import annotations

import os
import pty
import select
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from kubernetes import client, config
from kubernetes.stream import stream
from support.live_cluster import LiveCluster, kubectls, version_of
from support.polling import wait_for

pytest_plugins = ["aksgpu.local.testing", "support.live_cluster"]

KUBECTLS = kubectls()
WEBSOCKETS = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "true"}
"""kubectl 1.29 needs this setting. Later versions use WebSockets anyway."""
needs_kubectl = pytest.mark.skipif(not KUBECTLS, reason="no kubectl on PATH")
every_kubectl = pytest.mark.parametrize("binary", KUBECTLS, ids=map(version_of, KUBECTLS))
PODS = "/api/v1/namespaces/default/pods"


@pytest.fixture(scope="module")
def api(live_cluster: LiveCluster) -> client.CoreV1Api:
    return client.CoreV1Api(config.new_client_from_config(str(live_cluster.kubeconfig)))


def create(live_cluster: LiveCluster, api: client.CoreV1Api, name: str, script: str, **container: Any) -> None:
    """Create a pod, and wait until it is running."""
    spec = {
        "terminationGracePeriodSeconds": 0,
        "restartPolicy": "Never",
        "containers": [{"name": "main", "image": "busybox", "command": ["sh", "-c", script], **container}],
    }
    assert live_cluster.send("POST", PODS, {"metadata": {"name": name}, "spec": spec}).status == 201
    wait_for(lambda: api.read_namespaced_pod(name, "default").status.phase == "Running")


def attach(api: client.CoreV1Api, name: str, **options: Any) -> Any:
    options = {"stderr": True, "stdin": False, "stdout": True, "tty": False, "_preload_content": False} | options
    return stream(api.connect_get_namespaced_pod_attach, name, "default", container="main", **options)


def phase(live_cluster: LiveCluster, name: str) -> str:
    return str(live_cluster.send("GET", f"{PODS}/{name}").json()["status"]["phase"])


@needs_kubectl
@every_kubectl
def test_run_interactively(live_cluster: LiveCluster, binary: str) -> None:
    name = "run-" + version_of(binary).replace(".", "-")
    done = live_cluster.kubectl(
        binary,
        *("run", name, "-i", "--rm", "--restart=Never", "--image=busybox", "--"),
        *("sh", "-c", "echo early; cat; exit 3"),
        stdin="typed\n",
        **WEBSOCKETS,
    )
    assert done.returncode == 3
    assert done.stdout.startswith("early\ntyped\n")
    assert f'pod "{name}" deleted' in done.stdout
    assert live_cluster.send("GET", f"{PODS}/{name}").status == 404


@needs_kubectl
@every_kubectl
def test_run_a_short_command(live_cluster: LiveCluster, binary: str) -> None:
    """Its output is complete, whether kubectl attaches in time or reads the log."""
    name = "short-" + version_of(binary).replace(".", "-")
    command = ("run", name, "-i", "--rm", "--restart=Never", "--image=busybox", "--", "echo", "done")
    done = live_cluster.kubectl(binary, *command, **WEBSOCKETS)
    assert done.returncode == 0
    assert "done\n" in done.stdout


@needs_kubectl
def test_a_kubectl_without_websockets_reads_the_log(live_cluster: LiveCluster) -> None:
    binary = next((path for path in KUBECTLS if path.endswith(".1.29")), None)
    if binary is None:
        pytest.skip("no kubectl 1.29 here")
    command = ("run", "old", "-i", "--rm", "--restart=Never", "--image=busybox", "--")
    done = live_cluster.kubectl(binary, *command, "sh", "-c", "sleep 0.3; echo late; sleep 1")
    assert done.returncode == 0
    assert "late\n" in done.stdout
    assert "Upgrade request required" in done.stderr


@needs_kubectl
def test_run_with_a_terminal(live_cluster: LiveCluster) -> None:
    master, slave = pty.openpty()
    command = live_cluster.command(KUBECTLS[-1], "run", "terminal", "-it", "--restart=Never", "--image=busybox", "--")
    env = {"HOME": str(live_cluster.folder), "PATH": os.environ["PATH"]}
    process = subprocess.Popen(
        [*command, "sh"], stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True
    )
    os.close(slave)
    until = reader(master)
    until(b"$ ", b"# ")  # the prompt, which no newline ends
    os.write(master, b"test -t 0 && echo is-a-t''ty $TERM\n")
    until(b"is-a-tty xterm")
    os.write(master, b"exit 7\n")
    assert process.wait(60) == 7
    os.close(master)
    log = live_cluster.send("GET", f"{PODS}/terminal/log").data
    assert b"is-a-tty xterm\n" in log  # the log has the lines without the terminal's carriage returns
    live_cluster.send("DELETE", f"{PODS}/terminal?gracePeriodSeconds=0")


def reader(master: int) -> Callable[..., None]:
    """Return a function that reads a terminal until it has shown one of some texts."""
    seen = b""

    def until(*texts: bytes) -> None:
        def read() -> bool:
            nonlocal seen
            if select.select([master], [], [], 0.1)[0]:
                seen += os.read(master, 65536)
            return any(text in seen for text in texts)

        wait_for(read, 60)

    return until


def test_with_the_official_client(live_cluster: LiveCluster, api: client.CoreV1Api) -> None:
    script = "read line; echo got $line; echo no >&2; exit 5"
    create(live_cluster, api, "asks", script, stdin=True, stdinOnce=True)
    attached = attach(api, "asks", stdin=True)
    attached.write_stdin("hello\n")
    attached.run_forever(timeout=60)
    assert not attached.is_open()
    assert (attached.read_stdout(), attached.read_stderr()) == ("got hello\n", "no\n")
    assert attached.returncode == 0  # the pod has the exit code
    wait_for(lambda: phase(live_cluster, "asks") == "Failed", 60)


def test_the_next_client_continues_the_input(live_cluster: LiveCluster, api: client.CoreV1Api) -> None:
    """Without ``stdinOnce`` the input does not end with the client."""
    create(live_cluster, api, "goes-on", "while read line; do echo got $line; done", stdin=True)
    for word in ("one", "two"):
        attached = attach(api, "goes-on", stdin=True)
        attached.write_stdin(f"{word}\n")
        assert attached.readline_stdout(timeout=60) == f"got {word}"
        attached.close()
    assert phase(live_cluster, "goes-on") == "Running"
    live_cluster.send("DELETE", f"{PODS}/goes-on?gracePeriodSeconds=0")


def test_several_clients_and_none_that_types(live_cluster: LiveCluster, api: client.CoreV1Api, tmp_path: Any) -> None:
    flag = tmp_path / "flag"
    script = f"echo before; until test -e {flag}; do sleep 0.05; done; echo after"
    create(live_cluster, api, "speaks", script)
    wait_for(lambda: live_cluster.send("GET", f"{PODS}/speaks/log").data == b"before\n")
    first = attach(api, "speaks", stdin=True)
    second = attach(api, "speaks")
    first.write_stdin("dropped, because the container has no input\n")
    flag.touch()
    for attached in (first, second):
        attached.run_forever(timeout=60)
        assert attached.read_stdout() == "after\n"
    assert live_cluster.send("GET", f"{PODS}/speaks/log").data == b"before\nafter\n"


def test_errors(live_cluster: LiveCluster, api: client.CoreV1Api) -> None:
    def ask(path: str) -> tuple[int, str]:
        answer = live_cluster.send("POST", f"{PODS}/{path}")
        return answer.status, answer.json()["message"]

    create(live_cluster, api, "errors", "sleep 600")
    assert ask("none/attach?stdout=1") == (404, 'pods "none" not found')
    assert ask("errors/attach?container=x&stdout=1") == (400, "container x is not valid for pod errors")
    assert ask("errors/attach") == (400, "you must specify at least 1 of stdin, stdout, stderr")
    status, message = ask("errors/attach?stdout=1")
    assert (status, message.partition(":")[0]) == (400, "Upgrade request required")
    live_cluster.send("DELETE", f"{PODS}/errors?gracePeriodSeconds=0")
