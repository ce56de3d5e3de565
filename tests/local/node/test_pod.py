from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.polling import wait_for_async

from aksgpu.local import images
from aksgpu.local.node import container as container_module
from aksgpu.local.node import pod as pod_module
from aksgpu.local.objects import STRATEGIC_PATCH
from aksgpu.local.status_error import StatusError

from .conftest import CPU_NODE, Lab, processes, terminated


async def logged(lab: Lab, pod: str, container: str, text: bytes) -> bool:
    """Return whether the log of a container, which may not have started yet, is a text."""
    try:
        return await lab.logs(pod, container) == text
    except StatusError:
        return False


async def until_exist(*paths: Path) -> None:
    """Wait until all files exist."""

    async def exist() -> bool:
        return all(path.exists() for path in paths)

    await wait_for_async(exist)


def _is(pod: dict[str, Any], kind: str) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(each["type"] == kind and each["status"] == "True" for each in conditions)


async def test_success(lab: Lab) -> None:
    await lab.run("works", "sh", "-c", "echo hello; echo oops >&2")
    pod = await lab.phase("works", "Succeeded")
    assert terminated(pod)["exitCode"] == 0
    assert terminated(pod)["reason"] == "Completed"
    status = pod["status"]
    assert [(one["type"], one["status"], one.get("reason")) for one in status["conditions"]] == [
        ("PodReadyToStartContainers", "False", None),
        ("Initialized", "True", "PodCompleted"),
        ("Ready", "False", "PodCompleted"),
        ("ContainersReady", "False", "PodCompleted"),
        ("PodScheduled", "True", None),
    ]
    assert status["hostIP"] == "10.224.0.4"
    assert status["podIP"].startswith("127.")
    assert status["podIPs"] == [{"ip": status["podIP"]}]
    assert sorted((await lab.logs("works")).split()) == [b"hello", b"oops"]
    assert await lab.events("works") == [
        ("Pulling", 'Pulling image "busybox"'),
        ("Pulled", (await lab.events("works"))[1][1]),
        ("Created", "Created container: main"),
        ("Started", "Started container main"),
    ]
    await lab.run("again", "true")
    await lab.phase("again", "Succeeded")
    assert ("Pulled", 'Container image "busybox" already present on machine') in await lab.events("again")


async def test_failure(lab: Lab) -> None:
    await lab.run("fails", "sh", "-c", "echo before; exit 3")
    pod = await lab.phase("fails", "Failed")
    assert (terminated(pod)["exitCode"], terminated(pod)["reason"]) == (3, "Error")
    conditions = {one["type"]: one for one in pod["status"]["conditions"]}
    assert conditions["Ready"]["reason"] == conditions["ContainersReady"]["reason"] == "PodFailed"


async def test_command_that_does_not_exist(lab: Lab) -> None:
    await lab.run("typo", "no-such-program")
    pod = await lab.phase("typo", "Failed")
    assert (terminated(pod)["exitCode"], terminated(pod)["reason"]) == (128, "StartError")
    assert '"no-such-program": executable file not found in $PATH' in terminated(pod)["message"]


async def test_killed_by_a_signal(lab: Lab) -> None:
    await lab.run("segfault", "sh", "-c", "kill -11 $$$$")
    assert terminated(await lab.phase("segfault", "Failed"))["exitCode"] == 139


async def test_restart_on_failure(lab: Lab) -> None:
    script = "echo run; echo run >> /scratch/runs; test -e /scratch/enough || exit 7"
    volumes = [{"name": "scratch", "emptyDir": {}}]
    mounts = [{"name": "scratch", "mountPath": "/scratch"}]
    spec = {"restartPolicy": "OnFailure", "volumes": volumes, "container": {"volumeMounts": mounts}}
    made = await lab.run("retries", "sh", "-c", script, **spec)
    scratch = lab.root / "pods" / made["metadata"]["uid"] / "volumes" / "scratch"
    await lab.until("retries", lambda pod: "CrashLoopBackOff" in str(pod.get("status")))
    (scratch / "enough").touch()
    pod = await lab.phase("retries", "Succeeded")
    found = pod["status"]["containerStatuses"][0]
    assert found["restartCount"] == len((scratch / "runs").read_text().split()) - 1 >= 2
    assert found["lastState"]["terminated"]["exitCode"] == 7
    assert await lab.logs("retries") == await lab.logs("retries", previous=True) == b"run\n"
    text = [text for reason, text in await lab.events("retries") if reason == "BackOff"]
    assert text[0].startswith("Back-off restarting failed container main in pod retries_default(")


async def test_deletion_lets_the_command_clean_up(lab: Lab) -> None:
    await lab.run("tidy", "sh", "-c", 'trap "echo bye; exit 0" TERM; echo up; while :; do sleep 0.05; done')
    await lab.phase("tidy", "Running")
    while not await lab.logs("tidy"):
        await asyncio.sleep(0.01)
    follower = asyncio.create_task(lab.logs("tidy", follow=True))
    await asyncio.sleep(0.05)
    await lab.objects.delete("pods", "tidy", "default")
    assert await follower == b"up\nbye\n"
    await lab.gone("tidy")
    assert ("Killing", "Stopping container main") in await lab.events("tidy")


async def test_deletion_ends_every_process(lab: Lab, mark: str) -> None:
    script = f"trap '' TERM; (setsid sh -c 'trap \"\" TERM; exec -a {mark} sleep 100' &); exec -a {mark} sleep 100"
    await lab.run("stubborn", "bash", "-c", script.replace("setsid sh", "setsid bash"))
    await lab.phase("stubborn", "Running")
    while len(processes(mark)) < 2:
        await asyncio.sleep(0.01)
    await lab.objects.delete("pods", "stubborn", "default", grace_period_seconds=1)
    await lab.gone("stubborn")
    assert processes(mark) == []


async def test_conditions_of_other_components_are_kept(lab: Lab) -> None:
    script = 'trap "exit 1" TERM; while :; do sleep 0.05; done'
    await lab.run("evicted", "sh", "-c", script, metadata={"finalizers": ["example.com/look"]})
    await lab.until("evicted", lambda pod: _is(pod, "Ready"))
    why = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "made room"}
    patch = {"status": {"conditions": [why]}}
    how = {"content_type": STRATEGIC_PATCH, "subresource": "status"}
    await lab.objects.patch("pods", "evicted", patch, "default", **how)
    await lab.objects.delete("pods", "evicted", "default")
    pod = await lab.phase("evicted", "Failed")
    assert _is(pod, "DisruptionTarget") and not _is(pod, "Ready")
    await lab.objects.patch("pods", "evicted", {"metadata": {"finalizers": None}}, "default")
    await lab.gone("evicted")


async def test_forced_deletion(lab: Lab, mark: str) -> None:
    await lab.run("forced", "bash", "-c", f"trap '' TERM; exec -a {mark} sleep 100")
    await lab.phase("forced", "Running")
    await lab.objects.delete("pods", "forced", "default", grace_period_seconds=0)
    await lab.gone("forced")

    async def nothing_left() -> bool:
        return not processes(mark) and not list((lab.root / "pods").iterdir())

    await wait_for_async(nothing_left)


async def test_image_without_a_program(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        container_module, "ERR_IMAGE_PULL_SECONDS", 1e6
    )  # The reason does not change while the test reads it.
    await lab.run("noimage", "true", container={"image": "registry.invalid/nothing:1"})
    pod = await lab.until("noimage", lambda pod: "ErrImagePull" in str(pod.get("status")))
    waiting = pod["status"]["containerStatuses"][0]["state"]["waiting"]
    assert waiting["message"].startswith('failed to resolve reference "registry.invalid/nothing:1"')
    advice = [message for reason, message in await lab.events("noimage") if reason == "ImageUnavailable"]
    assert advice == [
        "Register a program of this machine for the image: "
        'aksgpu.local.images.register("registry.invalid/nothing:1", ["python", "train.py"])'
    ]
    assert pod["status"]["phase"] == "Pending"
    monkeypatch.undo()
    await lab.run("later", "true", container={"image": "registry.invalid/nothing:1"})
    await lab.until("later", lambda pod: '"ImagePullBackOff"' in str(pod.get("status")).replace("'", '"'))
    reasons = {reason for reason, _ in await lab.events("later")}
    assert reasons >= {"Pulling", "Failed", "BackOff"}
    await lab.run("never", "true", container={"image": "registry.invalid/nothing:1", "imagePullPolicy": "Never"})
    await lab.until("never", lambda pod: "ErrImageNeverPull" in str(pod.get("status")))
    assert {reason for reason, _ in await lab.events("never")} >= {"ErrImageNeverPull", "Failed"}

    images.register("registry.invalid/nothing:1", ["sh", "-c", "echo mine"])
    try:
        await lab.objects.delete("pods", "noimage", "default")
        await lab.gone("noimage")
        await lab.run("mine", container={"image": "registry.invalid/nothing:1"})
        await lab.phase("mine", "Succeeded")
        assert await lab.logs("mine") == b"mine\n"
    finally:
        images.unregister("registry.invalid/nothing:1")


async def test_init_containers_run_in_order(lab: Lab) -> None:
    mounts = [{"name": "shared", "mountPath": "/shared"}]
    step = {"image": "busybox", "volumeMounts": mounts}
    init = [
        {**step, "name": "first", "command": ["sh", "-c", "echo 1 >> /shared/steps"]},
        {**step, "name": "second", "command": ["sh", "-c", "echo 2 >> /shared/steps"]},
    ]
    volumes = [{"name": "shared", "emptyDir": {}}]
    container = {"volumeMounts": mounts}
    await lab.run("steps", "cat", "/shared/steps", initContainers=init, volumes=volumes, container=container)
    pod = await lab.phase("steps", "Succeeded")
    assert await lab.logs("steps") == b"1\n2\n"
    assert [one["state"]["terminated"]["reason"] for one in pod["status"]["initContainerStatuses"]] == ["Completed"] * 2


async def test_sidecar_runs_beside_the_containers(lab: Lab, mark: str, tmp_path: Path) -> None:
    volumes = [{"name": "shared", "emptyDir": {}}]
    shared = {"image": "busybox", "volumeMounts": [{"name": "shared", "mountPath": "/aksgpu-shared"}]}
    serve = f": {mark}; trap 'echo bye; exit 0' TERM; touch /aksgpu-shared/up; while :; do sleep 0.05; done"
    sidecar = {"name": "beside", "restartPolicy": "Always", "command": ["sh", "-c", serve], **shared}
    before = {"name": "before", "command": ["sh", "-c", "until test -e /aksgpu-shared/up; do sleep 0.02; done"]}
    spec = {"initContainers": [sidecar, before | shared], "volumes": volumes, "terminationGracePeriodSeconds": 10}
    await lab.run("both", "sh", "-c", f"until test -e {tmp_path}/go; do sleep 0.02; done; exit 3", **spec)
    pod = await lab.phase("both", "Running")
    assert [one["ready"] for one in pod["status"]["initContainerStatuses"]] == [True, True]
    (tmp_path / "go").touch()
    pod = await lab.phase("both", "Failed")
    assert terminated(pod)["exitCode"] == 3
    assert terminated({"status": {"containerStatuses": pod["status"]["initContainerStatuses"]}})["exitCode"] == 0
    assert await lab.logs("both", "beside") == b"bye\n"
    assert not processes(mark)


async def test_sidecars_do_not_fail_the_pod(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they end by themselves, fail when they are stopped, or have to be killed."""
    for name in ("FIRST_BACKOFF_SECONDS", "MAX_BACKOFF_SECONDS"):
        monkeypatch.setattr(container_module, name, 1e6)  # "ends" still waits for its restart at the pod's end.

    def sidecar(name: str, script: str) -> dict[str, Any]:
        return {"name": name, "image": "busybox", "restartPolicy": "Always", "command": ["sh", "-c", script]}

    loop = "while :; do sleep 0.05; done"
    sidecars = [
        sidecar("fails", f"trap 'echo {{}} >> {tmp_path}/ends; exit 7' TERM; echo up; {loop}".replace("{}", "fails")),
        sidecar("ends", "echo once; exit 3"),
        sidecar("last", f"trap 'echo last >> {tmp_path}/ends; exit 8' TERM; touch {tmp_path}/last; {loop}"),
    ]
    script = f"until test -e {tmp_path}/go; do sleep 0.02; done; echo main >> {tmp_path}/ends; echo result"
    await lab.run("job", "sh", "-c", script, initContainers=sidecars, terminationGracePeriodSeconds=60)
    await lab.until("job", lambda pod: "CrashLoopBackOff" in str(pod.get("status")))
    await wait_for_async(lambda: logged(lab, "job", "fails", b"up\n"))
    await until_exist(tmp_path / "last")
    (tmp_path / "go").touch()
    pod = await lab.phase("job", "Succeeded", "Failed")
    assert pod["status"]["phase"] == "Succeeded"
    codes = [each["state"]["terminated"]["exitCode"] for each in pod["status"]["initContainerStatuses"]]
    assert codes == [7, 3, 8]
    assert (tmp_path / "ends").read_text().split() == ["main", "last", "fails"]
    assert await lab.logs("job") == b"result\n"
    assert await lab.logs("job", "fails") == b"up\n"
    assert await lab.logs("job", "ends") == b"once\n"


async def test_sidecars_end_last_and_in_reverse_order(lab: Lab, tmp_path: Path) -> None:
    def script(name: str) -> list[str]:
        end = f"sleep 0.2; echo {name} >> {tmp_path}/ends; exit 0"
        return ["sh", "-c", f"trap '{end}' TERM; touch {tmp_path}/{name}; while :; do sleep 0.05; done"]

    shape = {"image": "busybox", "restartPolicy": "Always"}
    sidecars = [{"name": name, "command": script(name), **shape} for name in ("first", "second")]
    await lab.run("three", *script("main"), initContainers=sidecars, terminationGracePeriodSeconds=60)
    await until_exist(*(tmp_path / name for name in ("first", "second", "main")))
    await lab.objects.delete("pods", "three", "default")
    await lab.gone("three")
    assert (tmp_path / "ends").read_text().split() == ["main", "second", "first"]


async def test_a_sidecar_has_time_to_end_after_the_grace_period(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_module, "MIN_SIDECAR_SECONDS", 60.0)

    def script(name: str, trap: str) -> list[str]:
        return ["sh", "-c", f"trap '{trap}' TERM; touch {tmp_path}/{name}; while :; do sleep 0.05; done"]

    serve = script("beside", f"sleep 0.3; touch {tmp_path}/flushed; exit 0")
    sidecar = {"name": "beside", "image": "busybox", "restartPolicy": "Always", "command": serve}
    await lab.run("both", *script("main", ""), initContainers=[sidecar], terminationGracePeriodSeconds=1)
    await until_exist(*(tmp_path / name for name in ("beside", "main")))
    await lab.objects.delete("pods", "both", "default")
    await lab.gone("both")
    assert (tmp_path / "flushed").exists()


async def test_sidecar_is_restarted(lab: Lab) -> None:
    sidecar = {"name": "beside", "image": "busybox", "restartPolicy": "Always", "command": ["true"]}
    await lab.run("both", "sleep", "60", initContainers=[sidecar])
    await lab.until("both", lambda pod: (pod["status"].get("initContainerStatuses") or [{}])[0].get("restartCount"))
    await lab.phase("both", "Running")


async def test_failed_init_container_fails_the_pod(lab: Lab) -> None:
    init = [{"name": "setup", "image": "busybox", "command": ["false"]}]
    await lab.run("never", "true", initContainers=init)
    pod = await lab.phase("never", "Failed")
    assert pod["status"]["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}


async def test_invalid_image_name(lab: Lab) -> None:
    await lab.run("noname", "true", container={"image": "Not/An:Image"})
    why = """Failed to apply default image tag "Not/An:Image": couldn't parse image name "Not/An:Image": """
    while ("InspectFailed", why + "invalid reference format") not in await lab.events("noname"):
        await asyncio.sleep(0.02)


async def test_container_creation_is_retried(lab: Lab) -> None:
    node = "aks-late-12345678-vmss000000"
    pod = await lab.run("blocked", "true", node=node)
    blocker = lab.root / "pods" / pod["metadata"]["uid"] / "containers" / "main"
    blocker.parent.mkdir(parents=True)
    blocker.touch()
    await lab.add_node(node, address="10.224.0.6")
    state = lambda pod: (pod["status"].get("containerStatuses") or [{}])[0].get("state", {})  # noqa: E731
    await lab.until("blocked", lambda pod: state(pod).get("waiting", {}).get("reason") == "CreateContainerError")
    blocker.unlink()
    await lab.phase("blocked", "Succeeded")


async def test_memory_limit(lab: Lab) -> None:
    script = "import time\nkept = []\nwhile True: kept.append(bytearray(8 << 20)); time.sleep(0.01)"
    limits = {"resources": {"limits": {"memory": "100Mi"}}}
    await lab.run("hungry", "python3", "-c", script, container={"image": "python:3.11", **limits})
    pod = await lab.phase("hungry", "Failed")
    assert (terminated(pod)["exitCode"], terminated(pod)["reason"]) == (137, "OOMKilled")


async def test_active_deadline(lab: Lab) -> None:
    await lab.run("late", "sleep", "100", activeDeadlineSeconds=1, terminationGracePeriodSeconds=1)
    pod = await lab.phase("late", "Failed")
    assert pod["status"]["reason"] == "DeadlineExceeded"
    assert pod["status"]["message"] == "Pod was active on the node longer than the specified deadline"


async def test_active_deadline_of_a_pod_with_a_sidecar(lab: Lab) -> None:
    """The pod stays with the logs of all its containers. The sidecar ends after the container."""
    loop = "while :; do sleep 0.05; done"
    sidecar = {
        "name": "beside",
        "image": "busybox",
        "restartPolicy": "Always",
        "command": ["sh", "-c", f"trap 'echo beside ends; exit 5' TERM; echo beside; {loop}"],
    }
    script = f"trap 'echo main ends; exit 6' TERM; echo main; {loop}"
    deadline = {"activeDeadlineSeconds": 8, "terminationGracePeriodSeconds": 60}
    await lab.run("late", "sh", "-c", script, initContainers=[sidecar], **deadline)
    pod = await lab.phase("late", "Failed")
    assert pod["status"]["reason"] == "DeadlineExceeded"
    beside = terminated({"status": {"containerStatuses": pod["status"]["initContainerStatuses"]}})
    assert (terminated(pod)["exitCode"], beside["exitCode"]) == (6, 5)
    assert terminated(pod)["finishedAt"] <= beside["finishedAt"]
    assert await lab.logs("late") == b"main\nmain ends\n"
    assert await lab.logs("late", "beside") == b"beside\nbeside ends\n"
    assert await lab.logs("late", "beside", follow=True) == b"beside\nbeside ends\n"


async def test_two_containers(lab: Lab) -> None:
    both = [{"name": name, "image": "busybox", "command": ["echo", name]} for name in ("one", "two")]
    await lab.run("pair", containers=both)
    await lab.phase("pair", "Succeeded")
    assert (await lab.logs("pair", "one"), await lab.logs("pair", "two")) == (b"one\n", b"two\n")


async def test_node_is_ready_and_renews_its_lease(lab: Lab) -> None:
    while not (node := await lab.objects.get("nodes", CPU_NODE))["status"].get("conditions"):
        await asyncio.sleep(0.01)
    assert [(one["type"], one["status"], one["reason"]) for one in node["status"]["conditions"]] == [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID"),
        ("Ready", "True", "KubeletReady"),
    ]
    assert "nvidia.com/gpu" not in node["status"]["capacity"]
    lease = await lab.objects.get("leases", CPU_NODE, "kube-node-lease")
    assert lease["spec"]["holderIdentity"] == CPU_NODE

    async def has_started() -> bool:
        return ("Starting", "Starting kubelet.") in await lab.events(CPU_NODE)

    await wait_for_async(has_started)  # It is recorded after the status.
