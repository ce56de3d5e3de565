"""Addresses and names of pods, with the programs of real pods."""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
from typing import Any

import pytest
from support.polling import wait_for_async

from aksgpu.local.control.endpoints_controller import PORT_NOT_FORWARDED
from aksgpu.local.node.node_agent import NO_SERVICE_NAMES

from .conftest import Lab

MEET = """
import os, socket, sys, time

own = socket.gethostbyname(socket.gethostname())
assert own == os.environ["IP"], (own, os.environ["IP"])
server = socket.create_server((own, int(os.environ["PORT"])))
rank = int(os.environ["RANK"])
deadline = time.monotonic() + 60
while True:
    try:
        peer = socket.create_connection((os.environ["PEER"], int(os.environ["PORT"])), timeout=60)
        break
    except OSError:
        assert time.monotonic() < deadline
        time.sleep(0.05)
peer.sendall(f"{os.environ['GROUP']}-{rank}".encode())
peer.shutdown(socket.SHUT_WR)
connection, address = server.accept()
print("met", connection.recv(100).decode(), "at", socket.gethostbyaddr(own)[0])
"""
"""Resolves its own host name, listens on that address, and connects to the other pod by its name."""


def service(name: str, labels: dict[str, str], **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"clusterIP": "None", "selector": labels, **spec}}


def needs_namespaces(lab: Lab) -> None:
    if not lab.agent._cluster.mount_namespaces:
        pytest.skip("this system grants no mount namespaces")


async def lookup(lab: Lab, pod: str, name: str) -> list[str]:
    """Return the addresses to which a program in a running pod resolves a name."""
    code = f"import socket; print(*sorted({{each[4][0] for each in socket.getaddrinfo({name!r}, 1)}}))"
    command = await lab.agent.execute("default", pod, "main", ["python3", "-c", code], tty=False)
    found = b"".join([data async for data in command.output("stdout")]).decode().split()
    await command.code()
    await command.close()
    return found


async def until_found(lab: Lab, pod: str, name: str, addresses: list[str]) -> None:
    async with asyncio.timeout(60):
        while await lookup(lab, pod, name) != sorted(addresses):
            await asyncio.sleep(0.05)


async def address(lab: Lab, name: str) -> str:
    pod = await lab.until(name, lambda pod: pod.get("status", {}).get("podIP"))
    return str(pod["status"]["podIP"])


async def test_a_pod_resolves_its_own_name(lab: Lab) -> None:
    needs_namespaces(lab)
    code = "import socket; print('found', socket.gethostname(), socket.gethostbyname(socket.gethostname()))"
    script = f'hostname; cat /etc/hostname /etc/hosts; python3 -c "{code}"'
    aliases = [{"ip": "10.1.2.3", "hostnames": ["data.local", "data"]}]
    await lab.run("alone", "sh", "-c", script, hostAliases=aliases)
    pod = await lab.phase("alone", "Succeeded", "Failed")
    ip = pod["status"]["podIP"]
    lines = (await lab.logs("alone")).decode().splitlines()
    assert lines[:3] == ["alone", "alone", "# Kubernetes-managed hosts file."]
    assert f"{ip}\talone" in lines and "127.0.0.1\tlocalhost" in lines
    assert "10.1.2.3\tdata.local\tdata" in lines
    assert lines[-1] == f"found alone {ip}"


async def test_addresses_differ(lab: Lab) -> None:
    for number in range(3):
        await lab.run(f"pod-{number}", "sleep", "60")
    found = [await address(lab, f"pod-{number}") for number in range(3)]
    assert len(set(found)) == 3
    assert all(ipaddress.ip_address(each).is_loopback and not each.startswith("127.0.0.") for each in found)
    await lab.restart()
    await lab.run("later", "sleep", "60")
    assert await address(lab, "later") not in found
    assert await address(lab, "pod-0") == found[0]


async def test_two_groups_find_each_other_by_name_on_one_port(lab: Lab) -> None:
    needs_namespaces(lab)
    for group in ("red", "blue"):
        await lab.objects.create("services", service(group, {"app": group}, publishNotReadyAddresses=True), "default")
    for group in ("red", "blue"):
        for rank in range(2):
            env = [
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "PORT", "value": "29517"},
                {"name": "RANK", "value": str(rank)},
                {"name": "GROUP", "value": group},
                {"name": "PEER", "value": f"{group}-{1 - rank}.{group}"},
            ]
            names = {"hostname": f"{group}-{rank}", "subdomain": group, "metadata": {"labels": {"app": group}}}
            await lab.run(f"{group}-{rank}", "python3", "-c", MEET, container={"env": env}, **names)
    for group in ("red", "blue"):
        for rank in range(2):
            await lab.phase(f"{group}-{rank}", "Succeeded", "Failed")
            full = f"{group}-{rank}.{group}.default.svc.cluster.local"
            assert await lab.logs(f"{group}-{rank}") == f"met {group}-{1 - rank} at {full}\n".encode()


async def test_names_of_a_service_follow_its_pods(lab: Lab) -> None:
    needs_namespaces(lab)
    await lab.run("watcher", "sleep", "60")
    await lab.phase("watcher", "Running")
    assert await lookup(lab, "watcher", "data") == []
    await lab.objects.create("services", service("data", {"app": "data"}), "default")
    spec = {"metadata": {"labels": {"app": "data"}}}
    await lab.run("one", "sleep", "60", hostname="first", subdomain="data", **spec)
    await lab.run("two", "sleep", "60", **spec)
    one, two = await address(lab, "one"), await address(lab, "two")
    for name in ("data", "data.default", "data.default.svc", "data.default.svc.cluster.local"):
        await until_found(lab, "watcher", name, [one, two])
    await until_found(lab, "watcher", "first.data", [one])
    await until_found(lab, "watcher", "first.data.default.svc.cluster.local", [one])
    assert await lookup(lab, "watcher", "two.data") == []
    await lab.objects.delete("pods", "two", "default", grace_period_seconds=0)
    await until_found(lab, "watcher", "data", [one])
    await lab.objects.delete("services", "data", "default")
    await until_found(lab, "watcher", "data", [])


async def test_names_are_updated_after_the_laptop_was_killed(lab: Lab) -> None:
    """A pod that keeps running sees the pods that are created after the restart, and each name leads to one pod."""
    needs_namespaces(lab)
    await lab.objects.create("services", service("data", {"app": "data"}), "default")
    spec = {"metadata": {"labels": {"app": "data"}}, "hostname": "first", "subdomain": "data"}
    await lab.run("watcher", "sleep", "60")
    await lab.phase("watcher", "Running")
    await lab.run("one", "sleep", "60", **spec)
    await until_found(lab, "watcher", "first.data", [await address(lab, "one")])
    await lab.restart()
    await lab.objects.delete("pods", "one", "default", grace_period_seconds=0)
    await lab.gone("one")
    await lab.run("two", "sleep", "60", **spec)
    two = await address(lab, "two")
    await until_found(lab, "watcher", "first.data", [two])
    await until_found(lab, "watcher", "data", [two])


async def test_a_service_with_a_cluster_ip_leads_to_its_pods(lab: Lab) -> None:
    needs_namespaces(lab)
    made = service("web", {"app": "web"}, ports=[{"port": 8000}, {"name": "other", "port": 80, "targetPort": 8080}])
    made["spec"]["ports"][0]["name"] = "same"
    del made["spec"]["clusterIP"]
    await lab.objects.create("services", made, "default")
    await lab.run("server", "sleep", "60", metadata={"labels": {"app": "web"}})
    await lab.run("client", "sleep", "60")
    await lab.phase("client", "Running")
    await until_found(lab, "client", "web", [await address(lab, "server")])
    event = ("PortNotForwarded", PORT_NOT_FORWARDED.format(name="web", port=80, target=8080))
    async with asyncio.timeout(60):
        while event not in await lab.events("web"):
            await asyncio.sleep(0.02)
    assert [each for each in await lab.events("web") if each[0] == "PortNotForwarded"] == [event]


async def test_pods_that_are_not_ready(lab: Lab) -> None:
    needs_namespaces(lab)
    labels = {"app": "slow"}
    await lab.objects.create("services", service("ready", labels), "default")
    await lab.objects.create("services", service("all", labels, publishNotReadyAddresses=True), "default")
    await lab.run("watcher", "sleep", "60")
    await lab.phase("watcher", "Running")
    gate = [{"name": "gate", "emptyDir": {}}]
    mount = {"volumeMounts": [{"name": "gate", "mountPath": "/aksgpu-gate"}]}
    wait = ["sh", "-c", "while ! test -e /aksgpu-gate/go; do sleep 0.02; done"]
    init = [{"name": "wait", "image": "busybox", "command": wait, **mount}]
    made = await lab.run("slow", "sleep", "60", initContainers=init, volumes=gate, metadata={"labels": labels})
    ip = await address(lab, "slow")
    await until_found(lab, "watcher", "all", [ip])

    async def is_not_ready() -> bool:
        subsets = (await lab.objects.get("endpoints", "ready", "default")).get("subsets") or []
        return [[each["ip"] for each in subset["notReadyAddresses"]] for subset in subsets] == [[ip]]

    await wait_for_async(is_not_ready)
    assert await lookup(lab, "watcher", "ready") == []
    (lab.root / "pods" / made["metadata"]["uid"] / "volumes" / "gate" / "go").touch()
    await until_found(lab, "watcher", "ready", [ip])


async def test_a_volume_at_etc_hosts_wins(lab: Lab) -> None:
    await lab.objects.create("configmaps", {"metadata": {"name": "own"}, "data": {"hosts": "mine\n"}}, "default")
    made = [{"name": "own", "configMap": {"name": "own"}}]
    mounts = [{"name": "own", "mountPath": "/etc/hosts", "subPath": "hosts"}]
    await lab.run("own", "cat", "/etc/hosts", volumes=made, container={"volumeMounts": mounts})
    await lab.phase("own", "Succeeded")
    assert await lab.logs("own") == b"mine\n"


async def test_names_need_mount_namespaces(lab: Lab) -> None:
    lab.agent._cluster = dataclasses.replace(lab.agent._cluster, mount_namespaces=False)
    lab.agent._endpoints_informer.on_change(lab.agent._warn_about_names)
    await lab.run("member", "true", subdomain="group")
    pod = await lab.phase("member", "Failed")
    assert pod["status"]["reason"] == "NamesNotSupported"
    assert "`subdomain`" in pod["status"]["message"]
    await lab.run("plain", "sleep", "60", metadata={"labels": {"app": "web"}})
    await lab.phase("plain", "Running")
    await lab.objects.create("services", service("web", {"app": "web"}), "default")
    async with asyncio.timeout(60):
        while ("NamesNotSupported", NO_SERVICE_NAMES.format("web")) not in await lab.events("plain"):
            await asyncio.sleep(0.02)
