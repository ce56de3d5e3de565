"""Faults of nodes that are caused with ``local.inject``, as kubectl shows them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from support.live_cluster import LiveCluster, kubectls, new_cluster

from aksgpu import local
from aksgpu.local import Endpoint

pytest_plugins = ["aksgpu.local.testing", "support.live_cluster"]

KUBECTLS = kubectls()
pytestmark = pytest.mark.skipif(not KUBECTLS, reason="no kubectl on PATH")

POD = """
apiVersion: v1
kind: Pod
metadata: {name: talks}
spec: {containers: [{name: main, image: busybox, command: [sh, -c, "echo one; sleep 600"]}]}
"""


def run(cluster: LiveCluster, *args: str, code: int = 0, stdin: str = "") -> str:
    done = cluster.kubectl(KUBECTLS[-1], *args, stdin=stdin)
    assert done.returncode == code, (args, done.stdout, done.stderr)
    return done.stdout + done.stderr


def until(cluster: LiveCluster, text: str, *args: str) -> None:
    """Wait until kubectl prints a text, whether or not it succeeds."""
    deadline = time.monotonic() + 100
    while True:
        done = cluster.kubectl(KUBECTLS[-1], *args)
        if text in done.stdout + done.stderr:
            return
        assert time.monotonic() < deadline, (args, done.stdout, done.stderr)
        time.sleep(0.05)


def test_a_node_that_cannot_be_reached_and_is_then_removed(laptop: Endpoint, tmp_path: Path) -> None:
    with new_cluster(laptop, "lost", tmp_path) as cluster:
        run(cluster, "create", "-f", "-", stdin=POD)
        until(cluster, "one\n", "logs", "talks")
        node = run(cluster, "get", "pod", "talks", "-o", "jsonpath={.spec.nodeName}")
        address = run(cluster, "get", "pod", "talks", "-o", "jsonpath={.status.hostIP}")
        url = f"https://{address}:10250/containerLogs/default/talks/main"
        for cause, problem in (
            ("kubelet", f"dial tcp {address}:10250: connect: connection refused"),
            ("tunnel", "write unix @->/tunnel-uds/proxysocket: write: broken pipe"),
        ):
            local.inject("kubelet-away", home=laptop.home, node=node, cause=cause)
            until(cluster, problem, "logs", "talks")
            assert run(cluster, "logs", "talks", code=1) == f'Error from server: Get "{url}": {problem}\n'
            assert problem in run(cluster, "exec", "talks", "--", "true", code=1)
        local.inject("none", home=laptop.home)
        until(cluster, "one\n", "logs", "talks")
        assert node in local.inject("node-gone", home=laptop.home, node=node)
        until(cluster, 'pods "talks" not found', "logs", "talks")
        assert "not found" in run(cluster, "get", "node", node, code=1)
