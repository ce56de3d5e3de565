"""The environment, volumes and working directory of a container."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import pytest
from support.polling import wait_for_async

from aksgpu.local.node import environment, node_agent, volumes

from .conftest import CPU_NODE, GPU_NODE, Lab, terminated


async def config(lab: Lab) -> None:
    content = {"data": {"colour": "blue", "size": "7"}, "binaryData": {"raw": base64.b64encode(b"\0").decode()}}
    await lab.objects.create("configmaps", {"metadata": {"name": "settings"}, **content}, "default")
    secret = {"metadata": {"name": "keys"}, "type": "Opaque", "data": {"token": base64.b64encode(b"s3cret").decode()}}
    await lab.objects.create("secrets", secret, "default")


async def test_environment(lab: Lab) -> None:
    await config(lab)
    env = [
        {"name": "PLAIN", "value": "one"},
        {"name": "TWO", "value": "$(PLAIN) and two, $(NOT_KNOWN), $$(PLAIN)"},
        {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
        {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "token", "optional": True}}},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
    ]
    source = [{"prefix": "CFG_", "configMapRef": {"name": "settings"}}]
    limits = {"limits": {"memory": "64Mi"}}
    container = {"env": env, "envFrom": source, "resources": limits, "args": ["-c", "env; echo arg $(TWO)"]}
    container |= {"command": ["sh"]}
    await lab.run("env", container=container, metadata={"labels": {"app": "demo"}})
    pod = await lab.phase("env", "Succeeded")
    lines = (await lab.logs("env")).decode().splitlines()
    expected = {
        "PLAIN=one",
        "TWO=one and two, $(NOT_KNOWN), $(PLAIN)",
        "COLOUR=blue",
        "TOKEN=s3cret",
        "POD=env",
        f"IP={pod['status']['podIP']}",
        "APP=demo",
        "CPUS=4",
        "MEM=64",
        "CFG_colour=blue",
        "CFG_size=7",
        "HOSTNAME=env",
    }
    assert expected <= set(lines)
    assert not [line for line in lines if line.startswith(("NONE=", "CFG_raw"))]


async def test_a_missing_configmap_delays_the_start(lab: Lab) -> None:
    source = [{"configMapRef": {"name": "settings"}}]
    await lab.run("waits", "sh", "-c", "echo $colour", container={"envFrom": source})
    pod = await lab.until("waits", lambda pod: "CreateContainerConfigError" in str(pod.get("status")))
    waiting = pod["status"]["containerStatuses"][0]["state"]["waiting"]
    assert waiting["message"] == 'configmap "settings" not found'
    await config(lab)
    await lab.phase("waits", "Succeeded")
    assert await lab.logs("waits") == b"blue\n"


async def volumes_pod(lab: Lab, name: str) -> list[str]:
    items = [
        {"configMap": {"name": "settings", "items": [{"key": "size", "path": "deep/size"}]}},
        {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ]
    made = [
        {"name": "config", "configMap": {"name": "settings"}},
        {"name": "secret", "secret": {"secretName": "keys", "defaultMode": 0o400}},
        {"name": "both", "projected": {"sources": items}},
        {"name": "scratch", "emptyDir": {}},
    ]
    mounts = [
        {"name": "config", "mountPath": "/etc/aksgpu-test", "readOnly": True},
        {"name": "secret", "mountPath": "/var/run/secrets/aksgpu-test"},
        {"name": "both", "mountPath": "/aksgpu-both"},
        {"name": "scratch", "mountPath": "/aksgpu-scratch", "subPath": "inner"},
    ]
    script = (
        "cat /etc/aksgpu-test/colour /var/run/secrets/aksgpu-test/token /aksgpu-both/deep/size /aksgpu-both/name; "
        "echo; echo x > /aksgpu-scratch/file && cat /aksgpu-scratch/file; ls -L -l /var/run/secrets/aksgpu-test"
    )
    await lab.run(name, "sh", "-c", script, volumes=made, container={"volumeMounts": mounts})
    await lab.phase(name, "Succeeded")
    return (await lab.logs(name)).decode().splitlines()


async def test_volumes(lab: Lab) -> None:
    await config(lab)
    lines = await volumes_pod(lab, "mounts")
    assert lines[:2] == ["blues3cret7mounts", "x"]
    assert lines[-1].startswith("-r--------")
    assert not any(Path(path).exists() for path in ("/aksgpu-both", "/etc/aksgpu-test", "/aksgpu-scratch"))


async def test_volumes_without_mount_namespaces(lab: Lab) -> None:
    await config(lab)
    lab.agent._cluster = dataclasses.replace(lab.agent._cluster, mount_namespaces=False)
    assert (await volumes_pod(lab, "paths"))[:2] == ["blues3cret7paths", "x"]


async def test_rewritten_paths_need_no_quotes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_agent, "_has_mount_namespaces", lambda _: False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    lab = Lab(tmp_path / "my $home's")
    lab.root.mkdir()
    await lab.start()
    await lab.add_node(CPU_NODE)
    made = [{"name": "data", "emptyDir": {}}]
    container = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    command_line = ("sh", "-c", "echo kept > /data/file; sleep 100")
    pod = await lab.run("writes", *command_line, volumes=made, container=container)
    await lab.phase("writes", "Running")
    file = lab.root / "pods" / pod["metadata"]["uid"] / "volumes" / "data" / "file"

    async def is_written() -> bool:
        return file.exists() and file.read_text() == "kept\n"

    await wait_for_async(is_written)
    await lab.restart()
    command = await lab.agent.execute("default", "writes", "main", ["sh", "-c", "cat /data/file"], tty=False)
    assert b"".join([data async for data in command.output("stdout")]) == b"kept\n"
    await command.close()
    await lab.stop(end_pods=True)


async def test_a_volume_below_another_does_not_replace_its_files(lab: Lab, tmp_path: Path) -> None:
    lab.agent._cluster = dataclasses.replace(lab.agent._cluster, mount_namespaces=False)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "kept").touch()
    made = [{"name": "project", "hostPath": {"path": str(tmp_path)}}, {"name": "scratch", "emptyDir": {}}]
    mounts = [{"name": "project", "mountPath": "/data"}, {"name": "scratch", "mountPath": "/data/results"}]
    await lab.run("hides", "true", volumes=made, container={"volumeMounts": mounts})
    state = lambda pod: (pod["status"].get("containerStatuses") or [{}])[0].get("state", {})  # noqa: E731
    pod = await lab.until("hides", lambda pod: state(pod).get("waiting", {}).get("reason") == "CreateContainerError")
    assert "Directory not empty" in state(pod)["waiting"]["message"]
    assert (tmp_path / "results" / "kept").exists()


@pytest.mark.parametrize(
    ("kind", "path", "problem"),
    [
        ("", "new/folder", None),
        ("DirectoryOrCreate", "new/folder", None),
        ("FileOrCreate", "new.txt", None),
        ("Directory", "there.txt", "a directory"),
        ("File", ".", "a file"),
        ("Socket", "there.txt", "a socket file"),
        ("CharDevice", "/dev/null", None),
        ("BlockDevice", "/dev/null", "a block device"),
    ],
)
async def test_hostpath_types(lab: Lab, tmp_path: Path, kind: str, path: str, problem: str | None) -> None:
    (tmp_path / "there.txt").touch()
    host = {"path": str(tmp_path / path)} | ({"type": kind} if kind else {})
    container = {"volumeMounts": [{"name": "host", "mountPath": "/aksgpu-host"}]}
    await lab.run("host", "ls", "/aksgpu-host", volumes=[{"name": "host", "hostPath": host}], container=container)
    if problem is None:
        await lab.phase("host", "Succeeded")
        return
    why = f"hostPath type check failed: {host['path']} is not {problem}"
    while ("FailedMount", f'MountVolume.SetUp failed for volume "host" : {why}') not in await lab.events("host"):
        await asyncio.sleep(0.02)


async def test_a_missing_volume_delays_the_start(lab: Lab) -> None:
    made = [{"name": "config", "configMap": {"name": "settings"}}]
    mounts = [{"name": "config", "mountPath": "/config"}]
    await lab.run("waits", "cat", "/config/colour", volumes=made, container={"volumeMounts": mounts})
    await lab.until("waits", lambda pod: pod.get("status", {}).get("conditions"))
    text = 'MountVolume.SetUp failed for volume "config" : configmap "settings" not found'
    while ("FailedMount", text) not in await lab.events("waits"):
        await asyncio.sleep(0.02)
    await config(lab)
    await lab.phase("waits", "Succeeded")


async def test_paths_outside_the_volume_are_refused(lab: Lab) -> None:
    climbs = [{"name": "up", "hostPath": {"path": "/var/lib/kubelet/../../etc"}}]
    with pytest.raises(volumes.MountError, match="must not contain"):
        await volumes.prepare(lab.objects, {"spec": {"volumes": climbs}}, {}, volumes.Directories(*[lab.root] * 3))
    mount = {"name": "v", "mountPath": "/v", "subPath": "../../etc"}
    with pytest.raises(environment.ConfigError, match="stay inside"):
        volumes.container_mounts({"volumeMounts": [mount]}, [], {"v": lab.root}, {})


async def test_claim_keeps_its_content(lab: Lab) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    await lab.objects.create("persistentvolumeclaims", {"metadata": {"name": "data"}, "spec": spec}, "default")
    made = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    container = {"volumeMounts": [{"name": "data", "mountPath": "/aksgpu-data"}]}
    await lab.run("writes", "sh", "-c", "echo kept > /aksgpu-data/file", volumes=made, container=container)
    await lab.phase("writes", "Succeeded")
    await lab.run("reads", "cat", "/aksgpu-data/file", volumes=made, container=container)
    await lab.phase("reads", "Succeeded")
    assert await lab.logs("reads") == b"kept\n"
    assert len(list((lab.root / "claims").iterdir())) == 1
    await lab.objects.delete("persistentvolumeclaims", "data", "default")
    async with asyncio.timeout(60):
        while list((lab.root / "claims").iterdir()):
            await asyncio.sleep(0.02)


async def create_volume(lab: Lab, name: str, provisioner: str) -> dict[str, Any]:
    """Create a claim as the controller leaves it, and return a pod's volume."""
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "volumeName": f"pvc-{name}",
    }
    metadata = {"name": name, "annotations": {"volume.kubernetes.io/storage-provisioner": provisioner}}
    await lab.objects.create("persistentvolumeclaims", {"metadata": metadata, "spec": spec}, "default")
    return {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": name}}]}


async def test_a_disk_is_attached_to_one_node(lab: Lab) -> None:
    disk = await create_volume(lab, "disk", "disk.csi.azure.com")
    await lab.run("first", "sleep", "60", **disk)
    await lab.phase("first", "Running")
    await lab.run("beside", "true", **disk)
    await lab.phase("beside", "Succeeded")
    await lab.run("elsewhere", "true", node=GPU_NODE, **disk)
    message = 'Multi-Attach error for volume "pvc-disk" Volume is already used by pod(s) first'
    async with asyncio.timeout(60):
        while ("FailedAttachVolume", message) not in await lab.events("elsewhere"):
            await asyncio.sleep(0.02)
    await lab.restart()
    waiting = await lab.until("elsewhere", lambda pod: (pod["status"].get("containerStatuses") or [{}])[0].get("state"))
    assert waiting["status"]["containerStatuses"][0]["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert (await lab.objects.get("pods", "first", "default"))["status"]["phase"] == "Running"
    await lab.objects.delete("pods", "first", "default", grace_period_seconds=0)
    await lab.phase("elsewhere", "Succeeded")


async def test_a_file_share_is_used_on_all_nodes(lab: Lab) -> None:
    share = await create_volume(lab, "share", "file.csi.azure.com")
    for name, node in (("here", CPU_NODE), ("there", GPU_NODE)):
        await lab.run(name, "sleep", "60", node=node, **share)
    for name in ("here", "there"):
        await lab.phase(name, "Running")


async def test_working_directory(lab: Lab, tmp_path: Path) -> None:
    await lab.run("here", "pwd", container={"workingDir": str(tmp_path)})
    await lab.run("made", "sh", "-c", "pwd; touch file", container={"workingDir": "/aksgpu-app/src"})
    await lab.run("own", "sh", "-c", "touch file; pwd")
    for name in ("here", "made", "own"):
        await lab.phase(name, "Succeeded")
    assert await lab.logs("here") == f"{tmp_path}\n".encode()
    made = await lab.logs("made")
    assert made == b"/aksgpu-app/src\n" if lab.agent._cluster.mount_namespaces else made.endswith(b"/work\n")
    assert str(lab.root).encode() in await lab.logs("own")
    assert not Path("/aksgpu-app").exists()


def test_rewriting() -> None:
    targets = ["/data", "/data/config"]

    def rewrite(text: str) -> str:
        return volumes.rewrite_paths(text, Path("/r"), targets)

    assert rewrite("/data") == "/r/data"
    assert rewrite("--dir=/data/x:/data/config") == "--dir=/r/data/x:/r/data/config"
    assert rewrite("cat '/data/f' >/data/g") == "cat '/r/data/f' >/r/data/g"
    assert rewrite("/mydata /data2 x/data /other/data") == "/mydata /data2 x/data /other/data"


def test_expansion() -> None:
    known = {"A": "1", "B": "2"}
    assert environment.expand("$(A)$(B) $(C) $$(A) $$ $A", known) == "12 $(C) $(A) $ $A"


@pytest.mark.parametrize(
    ("script", "policy", "message"),
    [
        ("echo said >&2; exit 3", "FallbackToLogsOnError", "said\n"),
        ("seq 100; exit 3", "FallbackToLogsOnError", "".join(f"{number}\n" for number in range(21, 101))),
        ("echo said", "FallbackToLogsOnError", None),
        ("echo said; exit 3", "File", None),
    ],
)
async def test_termination_message_from_the_log(lab: Lab, script: str, policy: str, message: str | None) -> None:
    await lab.run("says", "sh", "-c", script, container={"terminationMessagePolicy": policy})
    pod = await lab.phase("says", "Succeeded", "Failed")
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"].get("message") == message


@pytest.mark.parametrize("namespaces", [True, False])
@pytest.mark.parametrize(
    ("script", "policy", "message"),
    [
        ("printf done > FILE", "File", "done"),
        ("printf done > FILE; exit 3", "File", "done"),
        ("printf why > FILE; echo logged; exit 3", "FallbackToLogsOnError", "why"),
        ("echo logged; exit 3", "FallbackToLogsOnError", "logged\n"),
        ("printf '%05000d' 7 > FILE", "File", "0" * 4095 + "7"),
        ("printf '\\377x' > FILE", "File", "\ufffdx"),
    ],
)
async def test_termination_message_from_a_file(
    lab: Lab, script: str, policy: str, message: str, namespaces: bool
) -> None:
    if not namespaces:
        lab.agent._cluster = dataclasses.replace(lab.agent._cluster, mount_namespaces=False)
    path = "/aksgpu-result/message"
    container = {"terminationMessagePolicy": policy, "terminationMessagePath": path}
    await lab.run("says", "sh", "-c", script.replace("FILE", path), container=container)
    pod = await lab.phase("says", "Succeeded", "Failed")
    assert terminated(pod).get("message") == message


async def test_termination_message_at_the_default_path(lab: Lab) -> None:
    script = "test -c /dev/null && test -d /dev/shm && echo ok > /dev/termination-log"
    await lab.run("says", "sh", "-c", script)
    assert terminated(await lab.phase("says", "Succeeded", "Failed"))["message"] == "ok\n"
    assert not Path("/dev/termination-log").exists()


async def test_terminals_and_devices(lab: Lab) -> None:
    """They work although ``/dev`` is another directory in a container, because of the termination message."""
    script = "import os; a, b = os.openpty(); print(os.path.exists(os.ttyname(b)), os.listdir('/dev/pts') != [])"
    await lab.run("terminal", "python3", "-c", script)
    await lab.phase("terminal", "Succeeded", "Failed")
    assert await lab.logs("terminal") == b"True True\n"


async def test_termination_messages_of_one_pod(lab: Lab) -> None:
    """All containers of a pod share 12 KB."""
    write = ["sh", "-c", "printf '%05000d' 7 > /dev/termination-log"]
    containers = [{"name": f"c{number}", "image": "busybox", "command": write} for number in range(3)]
    init = [{"name": "init", "image": "busybox", "command": write}]
    await lab.run("many", containers=containers, initContainers=init)
    status = (await lab.phase("many", "Succeeded"))["status"]
    found = [*status["initContainerStatuses"], *status["containerStatuses"]]
    assert [len(each["state"]["terminated"]["message"]) for each in found] == [12 * 1024 // 4] * 4


async def test_each_run_has_a_termination_message(lab: Lab) -> None:
    script = "test -s /aksgpu-count/n && exit 0; echo x > /aksgpu-count/n; echo first > /dev/termination-log; exit 1"
    volumes = [{"name": "count", "emptyDir": {}}]
    container = {"volumeMounts": [{"name": "count", "mountPath": "/aksgpu-count"}]}
    await lab.run("twice", "sh", "-c", script, restartPolicy="OnFailure", volumes=volumes, container=container)
    status = (await lab.phase("twice", "Succeeded"))["status"]["containerStatuses"][0]
    assert status["lastState"]["terminated"]["message"] == "first\n"
    assert "message" not in status["state"]["terminated"]


async def test_hostname_is_the_pods_own(lab: Lab) -> None:
    await lab.run("long-name", "sh", "-c", "echo $HOSTNAME", hostname="short")
    await lab.phase("long-name", "Succeeded")
    assert await lab.logs("long-name") == b"short\n"
    if lab.agent._cluster.mount_namespaces:
        await lab.run("own-name", "python3", "-c", "import socket; print(socket.gethostname())")
        await lab.phase("own-name", "Succeeded")
        assert await lab.logs("own-name") == b"own-name\n"


async def test_written_volumes_are_read_only(lab: Lab) -> None:
    if not lab.agent._cluster.mount_namespaces:
        pytest.skip("this system grants no mount namespaces")
    await config(lab)
    mounts = [{"name": "config", "mountPath": "/etc/aksgpu-test"}]
    made = [{"name": "config", "configMap": {"name": "settings"}}]
    await lab.run("writes", "touch", "/etc/aksgpu-test/colour", volumes=made, container={"volumeMounts": mounts})
    await lab.phase("writes", "Failed")
    assert b"Read-only file system" in await lab.logs("writes")
