"""One container of a pod: image, start, end, and whether it runs again.

The delays between restarts and between pulls are those of a kubelet: 10 seconds, doubled each time up to five minutes,
times the laptop's time scale. A run of ten minutes makes the next crash the first one again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aksgpu.common import quantities
from aksgpu.errors import InvalidInput
from aksgpu.local import images
from aksgpu.local.images.image_registry import missing
from aksgpu.local.node import container_logs, environment, pod_status, volumes
from aksgpu.local.node.container_run import Attempt, Exit, attempts
from aksgpu.local.node.exec_command import ExecError, Execution, execute
from aksgpu.local.objects import Object

if TYPE_CHECKING:
    from aksgpu.local.node.pod import PodRunner

FIRST_DELAY = 10.0
LONGEST_DELAY = 300.0
QUIET_SECONDS = 600.0
PULL_SECONDS = 0.3
LOOK_SECONDS = 0.1
"""How often it is asked whether the pod's deletion has got a nearer deadline."""
SHOWN_SECONDS = 4.0
"""How long ErrImagePull is shown before ImagePullBackOff takes its place."""

_OCI = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: "
    "unable to start container process: error during container init: {}: unknown"
)


class ContainerRunner:
    """Runs one container, again and again where its pod's restart policy says so.

    Attributes:
        status: how it stands, as the pod's status shows it; replaced as a whole when it changes.
        sidecar: whether it is an init container that runs beside the containers after it, rather than before them.
        started: set when its command has been started.
    """

    def __init__(self, pod: PodRunner, spec: Object, *, init: bool = False) -> None:
        self._pod = pod
        self._spec = spec
        self._init = init
        self.name: str = spec["name"]
        self.sidecar: bool = spec.get("restartPolicy") == "Always"  # no other container has a policy of its own
        before = init and not self.sidecar and pod.restart_policy == "Always"
        self._policy = "OnFailure" if before else spec.get("restartPolicy") or pod.restart_policy
        self._directory = pod.directory / "containers" / self.name
        self._attempt: Attempt | None = None
        self._left_over = False
        self._delay = 0.0
        self.started = asyncio.Event()
        image = spec["image"]
        with contextlib.suppress(InvalidInput):
            image = images.normalise(image)
        behind = pod.pod["spec"].get("initContainers") and not init
        state = pod_status.waiting("PodInitializing" if behind else "ContainerCreating")
        self.status = pod_status.container(spec, image, state)

    def _tell(self, kind: str, reason: str, message: str) -> None:
        field = f"spec.{'initContainers' if self._init else 'containers'}{{{self.name}}}"
        self._pod.tell(kind, reason, message, field)

    def _become(self, state: Object, **more: Any) -> None:
        running = "running" in state
        before = self._init and not self.sidecar
        ready = state.get("terminated", {}).get("exitCode") == 0 if before else running
        self.status = {**self.status, "state": state, "ready": ready, "started": running, **more}
        self._pod.changed()

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds * self._pod.around.settings.time_scale)

    @property
    def known(self) -> bool:
        """Whether it has been started at least once."""
        return self._attempt is not None

    @property
    def running(self) -> bool:
        """Whether its command runs."""
        return bool(self.status["started"])

    def restore(self) -> None:
        """Take up the status and the last run from before a restart of the laptop."""
        shown = (self._pod.pod.get("status") or {}).get("initContainerStatuses" if self._init else "containerStatuses")
        self.status = next((one for one in shown or [] if one["name"] == self.name), self.status)
        if numbers := attempts(self._directory):
            self.status = {**self.status, "restartCount": max(numbers)}
            self._attempt = Attempt(self._directory, max(numbers))
            self._left_over = True

    async def run(self) -> bool:
        """Run the container until it will not run again. Returns whether it succeeded."""
        if self._init and not self.sidecar and self._left_over and pod_status.exit_code(self.status) == 0:
            return True
        while True:
            attempt = await self._resume() or await self._start()
            end = await attempt.ended()
            await self._ended(attempt, end)
            if self._policy == "Never" or (self._policy == "OnFailure" and end.code == 0):
                return end.code == 0
            await self._back_off(end)

    async def _resume(self) -> Attempt | None:
        """The run from before a restart, the first time this is asked."""
        attempt = self._attempt if self._left_over else None
        self._left_over = False
        if attempt is None or not await attempt.resume():
            return None
        if attempt.started:
            self._runs(attempt)
        return attempt

    async def _start(self) -> Attempt:
        """Start the next run; waits until all that it refers to is there."""
        image = await self._image()
        while True:
            try:
                return await self._launch(image, await self._specify(image))
            except environment.ConfigError as error:
                reason = "CreateContainerConfigError"
                why = str(error)
            except OSError as error:  # such as a full disk, or too many processes
                reason = "CreateContainerError"
                why = str(error)
            self._tell("Warning", "Failed", f"Error: {why}")
            self._become(pod_status.waiting(reason, why))
            await self._pause(FIRST_DELAY)

    async def _launch(self, image: images.Image, spec: Mapping[str, Any]) -> Attempt:
        attempt = self._attempt = Attempt(self._directory, self.status["restartCount"])
        self._forget_old(attempt.number - 2)
        self._tell("Normal", "Created", f"Created container: {self.name}")
        await attempt.start(spec, secrets.token_hex(32))
        self.status = {**self.status, "imageID": image.id}
        if attempt.started:
            self._runs(attempt)
            self._tell("Normal", "Started", f"Started container {self.name}")
        return attempt

    def _runs(self, attempt: Attempt) -> None:
        self._become(pod_status.running(attempt.started), containerID=f"containerd://{attempt.container_id}")
        self.started.set()

    def _forget_old(self, number: int) -> None:
        if number >= 0:
            shutil.rmtree(self._directory / str(number), ignore_errors=True)
            for path in self._directory.glob(f"{number}.log.*"):
                path.unlink()

    async def _ended(self, attempt: Attempt, end: Exit) -> None:
        message = end.message
        started = end.started
        if end.reason == "StartError":
            message = _OCI.format(end.message)
            started = 0
            self._tell("Warning", "Failed", f"Error: {message}")
        if end.code and self._spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            said = b"".join([text async for text in container_logs.read(attempt.log, lambda: True, tail_lines=80)])
            message += said[-2048:].decode(errors="replace")
        run = f"containerd://{attempt.container_id}"
        state = pod_status.terminated(run, end.code, end.reason, message, started, end.finished)
        self._become(state, containerID=run)

    async def _back_off(self, end: Exit) -> None:
        """Wait before the next run; the first restart comes at once."""
        if end.finished - end.started > QUIET_SECONDS * 1e9:
            self._delay = 0.0
        self.status = {**self.status, "lastState": self.status["state"]}
        if self._delay:
            pod = self._pod
            whole = f"{pod.name}_{pod.namespace}({pod.uid})"
            text = f"back-off {_duration(self._delay)} restarting failed container={self.name} pod={whole}"
            self._become(pod_status.waiting("CrashLoopBackOff", text))
            self._tell("Warning", "BackOff", f"Back-off restarting failed container {self.name} in pod {whole}")
            await self._pause(self._delay)
        self._delay = min(self._delay * 2 or FIRST_DELAY, LONGEST_DELAY)
        self.status = {**self.status, "restartCount": self.status["restartCount"] + 1}

    # What is needed before a start.

    async def _image(self) -> images.Image:
        """The program that stands in for the image; waits for ever when there is none."""
        reference = self._spec["image"]
        delay = FIRST_DELAY
        while True:
            try:
                if image := images.find(reference):
                    await self._pull(reference, image)
                    return image
                if self._spec["imagePullPolicy"] == "Never":
                    why = f'Container image "{reference}" is not present with pull policy of Never'
                    self._tell("Warning", "ErrImageNeverPull", why)
                    await self._unavailable(reference, "ErrImageNeverPull", why, delay)
                else:
                    await self._unavailable(reference, "ErrImagePull", missing(reference), delay)
            except InvalidInput as error:
                why = f'Failed to apply default image tag "{reference}": {error.message}'
                self._tell("Warning", "InspectFailed", why)
                await self._unavailable(reference, "InvalidImageName", why, delay)
            delay = min(delay * 2, LONGEST_DELAY)

    async def _pull(self, reference: str, image: images.Image) -> None:
        node = self._pod.node
        policy = self._spec["imagePullPolicy"]
        if policy == "Never" or (policy == "IfNotPresent" and image.reference in node.images):
            self._tell("Normal", "Pulled", f'Container image "{reference}" already present on machine')
            return
        self._tell("Normal", "Pulling", f'Pulling image "{reference}"')
        begin = time.monotonic()
        await self._pause(PULL_SECONDS if image.reference not in node.images else PULL_SECONDS / 10)
        node.images.add(image.reference)
        took = f"{(time.monotonic() - begin) * 1000:.0f}ms"
        text = f'Successfully pulled image "{reference}" in {took} ({took} including waiting).'
        self._tell("Normal", "Pulled", f"{text} A program of this machine stands in for it.")

    async def _unavailable(self, reference: str, reason: str, why: str, delay: float) -> None:
        if reason == "ErrImagePull":
            self._tell("Normal", "Pulling", f'Pulling image "{reference}"')
            self._tell("Warning", "Failed", f'Failed to pull image "{reference}": {why}')
        self._tell("Warning", "Failed", f"Error: {reason}")
        self._become(pod_status.waiting(reason, why))
        if reason == "ErrImagePull":
            await self._pause(SHOWN_SECONDS)
            text = f'Back-off pulling image "{reference}"'
            self._tell("Normal", "BackOff", text)
            self._tell("Warning", "Failed", "Error: ImagePullBackOff")
            self._become(pod_status.waiting("ImagePullBackOff", f"{text}: {reason}: {why}"))
            delay -= SHOWN_SECONDS
        await self._pause(delay)

    async def _specify(self, image: images.Image) -> dict[str, Any]:
        """What the shim needs to know."""
        pod = self._pod
        around = self._pod.around
        gpus = pod.node.gpus if image.all_gpus else pod.gpus_of(self.name)
        tools = [around.gpu_tools, around.tools] if gpus else [around.tools]
        own = await environment.of_container(around.objects, pod.with_status(), self._spec, pod.node.object)
        hostname = (pod.pod["spec"].get("hostname") or pod.name)[:63].rstrip("-.")
        env = {**environment.common(hostname, tools, gpus, pod.node.driver), **own}
        mounts = volumes.mounts(self._spec, pod.pod["spec"].get("volumes") or [], pod.volumes, own)
        argv = environment.command_line(self._spec, image, own)
        work = self._directory / str(self.status["restartCount"]) / "work"
        work.mkdir(parents=True, exist_ok=True)
        directory = self._spec.get("workingDir") or image.directory
        there = directory and os.path.isdir(directory)  # noqa: PTH112 - Path's raises where we may not look, as in /root
        if directory and not there and not any(one.target == directory for one in mounts):
            mounts.append(volumes.Mount(str(work), directory, False))  # the image would have it
        cwd = directory or str(work)
        moved: list[str] = []
        if mounts and not around.view:
            root = work.with_name("root")
            volumes.link(root, mounts)
            moved = [one.target for one in mounts]
            mounts = []
            argv = [volumes.rewrite(word, root, moved) for word in argv]
            own = {name: volumes.rewrite(value, root, moved) for name, value in own.items()}
            env = {**env, **own, "AKSGPU_ROOT": str(root)}
            cwd = volumes.rewrite(cwd, root, moved)
        limit = ((self._spec.get("resources") or {}).get("limits") or {}).get("memory")
        memory = int(quantities.parse(limit)) if limit else None
        seen = {"mounts": mounts, "moved": moved, "hostname": hostname if around.view else ""}
        return {"argv": argv, "env": env, "cwd": cwd, "memory_limit": memory, **seen}

    async def execute(self, argv: Sequence[str], *, tty: bool) -> Execution:
        """Run another command in the container, as ``kubectl exec`` does; raises ExecError."""
        attempt = self._attempt
        if attempt is None or not self.running:
            raise ExecError("the container does not run")
        moved = attempt.read("spec.json").get("moved", [])
        words = [volumes.rewrite(word, attempt.directory / "root", moved) for word in argv]
        return await execute(attempt.directory, words, tty=tty)

    # The end of the pod.

    async def end(self, deadline: Callable[[], float]) -> None:
        """End the present run: SIGTERM, and SIGKILL when ``deadline`` (of the monotonic clock) has come."""
        attempt = self._attempt
        if attempt is None or "terminated" in self.status["state"]:
            return
        if self._left_over:
            await self._resume()
        if attempt.alive:
            self._tell("Normal", "Killing", f"Stopping container {self.name}")
        if attempt.alive or self.running:
            await self._ended(attempt, await _terminate(attempt, deadline))
        elif "waiting" in self.status["state"] and self.status["lastState"]:  # it was to be restarted
            self._become(self.status["lastState"])

    async def leave(self, deadline: float | None) -> None:
        """Let go of the present run: it goes on, or ends by ``deadline`` when one is given."""
        if self._attempt is None:
            return
        if self._left_over:
            await self._attempt.resume()
        if self._attempt.alive and deadline is not None:
            await _terminate(self._attempt, lambda: deadline)
        self._attempt.detach()

    def log(self, *, previous: bool) -> Path | None:
        """The log of the present run, or of the one before; None when there was none."""
        numbers = attempts(self._directory)
        if previous and "waiting" not in self.status["state"]:  # a container that waits has only past runs
            numbers = numbers[:-1]
        return self._directory / f"{numbers[-1]}.log" if numbers else None

    def may_write(self, path: Path) -> bool:
        """Whether more may come in that log."""
        return self.running and self._attempt is not None and self._attempt.log == path


async def _terminate(attempt: Attempt, deadline: Callable[[], float]) -> Exit:
    attempt.signal(signal.SIGTERM)
    ended = asyncio.create_task(attempt.ended())
    try:
        while not ended.done():
            left = deadline() - time.monotonic()
            if left <= 0:
                attempt.kill()
                break
            await asyncio.wait({ended}, timeout=min(left, LOOK_SECONDS))
        return await ended
    finally:
        ended.cancel()


def _duration(seconds: float) -> str:
    """As Go prints it: 10s, 1m20s, 5m0s."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
