"""``kubectl exec`` and the official client's ``stream`` in containers of a complete laptop AKS."""

from __future__ import annotations

import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config
from kubernetes.stream import stream
from support.live_cluster import LiveCluster, kubectls, version_of
from support.polling import wait_for
from websocket import ABNF, WebSocketConnectionClosedException, WebSocketTimeoutException

pytest_plugins = ["aksgpu.local.testing", "support.live_cluster"]

KUBECTLS = kubectls()
WEBSOCKETS = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "true"}
"""kubectl 1.29 needs this setting. Later versions use WebSockets anyway."""
needs_kubectl = pytest.mark.skipif(not KUBECTLS, reason="no kubectl on PATH")

POD: dict[str, Any] = {
    "metadata": {"name": "shell"},
    "spec": {
        "terminationGracePeriodSeconds": 0,
        "volumes": [{"name": "data", "emptyDir": {}}],
        "containers": [
            {
                "name": "main",
                "image": "busybox",
                "command": ["sh", "-c", "echo kept > /data/file; echo written; exec sleep 600"],
                "env": [{"name": "OWN", "value": "mine"}],
                "workingDir": "/data",
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            },
            {"name": "other", "image": "busybox", "command": ["sleep", "600"]},
        ],
    },
}
PODS = "/api/v1/namespaces/default/pods"


@pytest.fixture(scope="module")
def api(live_cluster: LiveCluster) -> client.CoreV1Api:
    return client.CoreV1Api(config.new_client_from_config(str(live_cluster.kubeconfig)))


@pytest.fixture(scope="module")
def shell(live_cluster: LiveCluster, api: client.CoreV1Api) -> Iterator[str]:
    assert live_cluster.send("POST", PODS, POD).status == 201
    wait_for(lambda: api.read_namespaced_pod("shell", "default").status.phase == "Running")
    wait_for(lambda: live_cluster.send("GET", f"{PODS}/shell/log?container=main").data == b"written\n")
    yield "shell"
    live_cluster.send("DELETE", f"{PODS}/shell?gracePeriodSeconds=0")


@needs_kubectl
@pytest.mark.parametrize("binary", KUBECTLS, ids=map(version_of, KUBECTLS))
def test_with_every_kubectl(live_cluster: LiveCluster, shell: str, binary: str) -> None:
    def run(*args: str, stdin: str = "") -> tuple[int, str, str]:
        done = live_cluster.kubectl(binary, "exec", *args, stdin=stdin, **WEBSOCKETS)
        return done.returncode, done.stdout, done.stderr

    notice = 'Defaulted container "main" out of: main, other\n'
    code, out, why = run(shell, "--", "sh", "-c", "cat file; echo $OWN $HOSTNAME; pwd")
    assert (code, out.splitlines()[:2], why) == (0, ["kept", "mine shell"], notice)
    assert out.endswith("/data\n")  # Nothing comes before it, if the system allows mount namespaces.
    assert run("-c", "main", shell, "--", "cat", "/data/file") == (0, "kept\n", "")
    assert run("-c", "main", shell, "--", "sh", "-c", "echo no >&2; exit 3") == (
        3,
        "",
        "no\ncommand terminated with exit code 3\n",
    )
    text = "".join(f"line {number}\n" for number in range(20000))
    assert run("-i", "-c", "main", shell, "--", "cat", stdin=text) == (0, text, "")
    code, _, why = run("-c", "main", shell, "--", "no-such-program")
    assert code == 1 and 'exec: "no-such-program": executable file not found in $PATH' in why
    code, _, why = run("-c", "nope", shell, "--", "true")
    assert code == 1 and "container nope is not valid for pod shell" in why


@needs_kubectl
def test_old_kubectl_gets_a_hint(live_cluster: LiveCluster, shell: str) -> None:
    binary = next((path for path in KUBECTLS if path.endswith(".1.29")), None)
    if binary is None:
        pytest.skip("no kubectl 1.29 here")
    done = live_cluster.kubectl(binary, "exec", "-c", "main", shell, "--", "true")
    assert done.returncode == 1
    assert "KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true" in done.stderr


@needs_kubectl
def test_exec_with_a_terminal(live_cluster: LiveCluster, shell: str) -> None:
    """Run ``exec -it``, type, resize the terminal and leave."""
    master, slave = pty.openpty()
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    command = live_cluster.command(KUBECTLS[-1], "exec", "-it", "-c", "main", shell, "--", "sh")
    env = {"HOME": str(live_cluster.folder), "PATH": os.environ["PATH"]}
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True)
    os.close(slave)
    seen = b""

    def until(text: bytes) -> None:
        def read() -> bool:
            nonlocal seen
            if select.select([master], [], [], 0.1)[0]:
                seen += os.read(master, 65536)
            return text in seen

        wait_for(read)

    os.write(master, b"test -t 0 && echo is-a-t''ty $TERM\n")
    until(b"is-a-tty xterm")
    os.write(master, b"stty size\n")
    until(b"40 100")
    ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 90, 0, 0))
    os.killpg(process.pid, 28)  # SIGWINCH, which a real terminal would send.
    os.write(master, b'until test "$(stty size)" = "30 90"; do sleep 0.05; done; echo re""sized\n')
    until(b"resized")
    os.write(master, b"exit 7\n")
    until(b"exit code 7")
    assert process.wait(60) == 7
    os.close(master)


def test_with_the_official_client(api: client.CoreV1Api, shell: str) -> None:
    def run(*argv: str, **options: Any) -> Any:
        options = {"stderr": True, "stdin": False, "stdout": True, "tty": False} | options
        call = api.connect_get_namespaced_pod_exec
        return stream(call, shell, "default", command=list(argv), container="main", **options)

    assert run("cat", "/data/file") == "kept\n"
    open_one = run("sh", "-c", "read line; echo got $line; exit 5", stdin=True, _preload_content=False)
    open_one.write_stdin("hello\n")
    open_one.run_forever(timeout=60)
    assert (open_one.read_stdout(), open_one.returncode) == ("got hello\n", 5)
    with pytest.raises(client.ApiException, match="400"):
        api.connect_get_namespaced_pod_exec(shell, "default", command=["true"], container="main", stdout=True)


def test_the_closing_handshake_comes_before_the_end_of_the_connection(api: client.CoreV1Api, shell: str) -> None:
    """A client that finds the connection closed, while it waits to answer, reports an error."""
    call = api.connect_get_namespaced_pod_exec
    options = {"command": ["true"], "container": "main", "stdout": True, "stdin": True, "_preload_content": False}
    socket = stream(call, shell, "default", **options).sock
    while (frame := socket.recv_frame()).opcode != ABNF.OPCODE_CLOSE:
        pass
    socket.settimeout(0.5)
    with pytest.raises(WebSocketTimeoutException):  # The server waits for the answer.
        socket.recv_frame()
    socket.settimeout(60)
    socket.send(frame.data, ABNF.OPCODE_CLOSE)
    with pytest.raises(WebSocketConnectionClosedException):
        socket.recv_frame()


def test_exec_ends_with_its_container(live_cluster: LiveCluster, api: client.CoreV1Api, tmp_path: Path) -> None:
    pod = {**POD, "metadata": {"name": "short"}}
    assert live_cluster.send("POST", PODS, pod).status == 201
    while api.read_namespaced_pod("short", "default").status.phase != "Running":
        time.sleep(0.05)
    note = tmp_path / "pid"
    command = ["sh", "-c", f"echo $$ > {note}; sleep 600"]
    running = stream(
        api.connect_get_namespaced_pod_exec,
        "short",
        "default",
        command=command,
        container="main",
        stdout=True,
        stderr=True,
        stdin=False,
        tty=False,
        _preload_content=False,
    )
    while not (note.exists() and note.read_text().strip()):
        time.sleep(0.02)
    pid = int(note.read_text())
    assert Path(f"/proc/{pid}").exists()
    live_cluster.send("DELETE", f"{PODS}/short?gracePeriodSeconds=0")
    running.run_forever(timeout=60)
    assert running.returncode == 137
    assert not Path(f"/proc/{pid}").exists()


def test_exec_errors(live_cluster: LiveCluster, shell: str) -> None:
    def ask(path: str) -> tuple[int, str]:
        answer = live_cluster.send("POST", f"{PODS}/{path}")
        return answer.status, answer.json()["message"]

    assert ask("none/exec?command=true&stdout=1") == (404, 'pods "none" not found')
    assert ask("shell/exec?command=true&stdout=1") == (
        400,
        "a container name must be specified for pod shell, choose one of: [main other]",
    )
    assert ask("shell/exec?command=true&container=main")[1] == "you must specify at least 1 of stdin, stdout, stderr"
    status, message = ask("shell/exec?command=true&container=main&stdout=1")
    assert (status, message.partition(":")[0]) == (400, "Upgrade request required")
