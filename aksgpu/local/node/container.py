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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aksgpu.errors import InvalidInput
from aksgpu.local import images
from aksgpu.local.api import quantity
from aksgpu.local.images.registry import missing
from aksgpu.local.node import environment, logs, status, volumes
from aksgpu.local.node.attempt import Attempt, Exit, attempts
from aksgpu.local.node.execution import ExecError, Execution, execute
from aksgpu.local.objects import Object

if TYPE_CHECKING:
    from aksgpu.local.node.pod import PodRunner

FIRST_DELAY, LONGEST_DELAY, QUIET_SECONDS = 10.0, 300.0, 600.0
PULL_SECONDS = 0.3
SHOWN_SECONDS = 4.0
"""How long ErrImagePull is shown before ImagePullBackOff takes its place."""

_LAST_WORDS, _WORDS_BYTES = "termination-log", 4096
"""The file of a run that is mounted at terminationMessagePath, and how much of its end is shown."""

_OCI = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: "
    "unable to start container process: error during container init: {}: unknown"
)


class ContainerRunner:
    """Runs one container, again and again where its pod's restart policy says so.

    Attributes:
        stand: how it stands, as the pod's status shows it.
        started: set when its command has been started.
        deadline_changed: set when the pod's deletion has a new deadline.
    """

    def __init__(self, pod: PodRunner, spec: Object, *, init: bool = False) -> None:
        self._pod, self._spec, self._init = pod, spec, init
        self._directory = pod.directory / "containers" / spec["name"]
        self._attempt: Attempt | None = None
        self._left_over = False
        self._delay = 0.0
        self.started = asyncio.Event()
        self.deadline_changed = asyncio.Event()
        try:
            image = images.normalise(spec["image"])
        except InvalidInput:
            image = spec["image"]
        self.stand = status.Container(spec, image)
        if pod.pod["spec"].get("initContainers") and not init:
            self.stand.state = status.waiting("PodInitializing")

    @property
    def _field(self) -> str:
        return f"spec.{'initContainers' if self._init else 'containers'}{{{self.stand.name}}}"

    def _tell(self, kind: str, reason: str, message: str) -> None:
        self._pod.tell(kind, reason, message, self._field)

    def _become(self, state: dict[str, Any]) -> None:
        self.stand.state = state
        self._pod.changed()

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds * self._pod.around.settings.time_scale)

    @property
    def sidecar(self) -> bool:
        """Whether it runs beside the containers after it, rather than before them."""
        return self.stand.sidecar

    @property
    def known(self) -> bool:
        """Whether it has been started at least once."""
        return self._attempt is not None

    def restore(self) -> None:
        """Take up the status and the last run from before a restart of the laptop."""
        old = self._pod.pod.get("status") or {}
        for known in old.get("initContainerStatuses" if self._init else "containerStatuses") or []:
            if known["name"] == self.stand.name:
                self.stand.state, self.stand.last = known["state"], known["lastState"]
                self.stand.image_id, self.stand.container_id = known["imageID"], known.get("containerID", "")
                self.stand.restarts = known["restartCount"]
        numbers = attempts(self._directory)
        if numbers:
            self.stand.restarts = max(numbers)
            self._attempt, self._left_over = Attempt(self._directory, max(numbers)), True

    async def run(self) -> bool:
        """Run the container until it will not run again. Returns whether it succeeded."""
        if self._init and not self.sidecar and self._left_over and self.stand.exit_code == 0:
            return True
        while True:
            attempt = await self._resume() or await self._start()
            end = await attempt.ended()
            self._ended(end)
            if not self._again(end):
                return end.code == 0
            await self._back_off(end)

    def _again(self, end: Exit) -> bool:
        policy = "Always" if self.sidecar else self._pod.restart_policy
        if self._init and not self.sidecar:
            return end.code != 0 and policy != "Never"
        return policy == "Always" or (policy == "OnFailure" and end.code != 0)

    async def _resume(self) -> Attempt | None:
        """The run from before a restart, the first time this is asked."""
        attempt, self._left_over = self._attempt if self._left_over else None, False
        if attempt is None or not await attempt.resume():
            return None
        self.stand.container_id = f"containerd://{attempt.container_id}"
        if attempt.started:
            self._runs(attempt)
        return attempt

    async def _start(self) -> Attempt:
        image = await self._image()
        spec = await self._specification(image)
        attempt = self._attempt = Attempt(self._directory, self.stand.restarts)
        self._forget_old(attempt.number - 2)
        attempt.directory.mkdir(parents=True, exist_ok=True)
        self._tell("Normal", "Created", f"Created container: {self.stand.name}")
        container_id = secrets.token_hex(32)
        self.stand.container_id, self.stand.image_id = f"containerd://{container_id}", image.id
        await attempt.start(spec, container_id)
        if attempt.started:
            self._runs(attempt)
            self._tell("Normal", "Started", f"Started container {self.stand.name}")
        return attempt

    def _runs(self, attempt: Attempt) -> None:
        self._become(status.running(attempt.started))
        self.started.set()

    def _forget_old(self, number: int) -> None:
        if number >= 0:
            shutil.rmtree(self._directory / str(number), ignore_errors=True)
            for path in self._directory.glob(f"{number}.log.*"):
                path.unlink()

    def _ended(self, end: Exit) -> None:
        message, started = end.message, end.started
        if end.reason == "StartError":
            message, started = _OCI.format(end.message), 0
            self._tell("Warning", "Failed", f"Error: {message}")
        message = ": ".join(filter(None, (message, self._last_words(end.code))))
        self._become(status.terminated(self.stand.container_id, end.code, end.reason, message, started, end.finished))

    async def _back_off(self, end: Exit) -> None:
        """Wait before the next run; the first restart comes at once."""
        if end.finished - end.started > QUIET_SECONDS * 1e9:
            self._delay = 0.0
        self.stand.last = self.stand.state
        if self._delay:
            pod = self._pod
            whole = f"{pod.name}_{pod.namespace}({pod.uid})"
            name = self.stand.name
            text = f"back-off {_duration(self._delay)} restarting failed container={name} pod={whole}"
            self._become(status.waiting("CrashLoopBackOff", text))
            self._tell("Warning", "BackOff", f"Back-off restarting failed container {name} in pod {whole}")
            await self._pause(self._delay)
        self._delay = min(self._delay * 2 or FIRST_DELAY, LONGEST_DELAY)
        self.stand.restarts += 1

    # What is needed before a start.

    async def _image(self) -> images.Image:
        """The program that stands in for the image; waits for ever when there is none."""
        reference, delay = self._spec["image"], FIRST_DELAY
        while True:
            try:
                image = images.find(reference)
                if image is not None:
                    await self._pull(reference, image)
                    return image
                await self._unavailable(reference, "ErrImagePull", missing(reference), delay)
            except InvalidInput as error:
                await self._unavailable(reference, "InvalidImageName", error.message, delay)
            delay = min(delay * 2, LONGEST_DELAY)

    async def _pull(self, reference: str, image: images.Image) -> None:
        policy = self._spec.get("imagePullPolicy") or (
            "Always" if image.reference.endswith(":latest") else "IfNotPresent"
        )
        node = self._pod.node
        if policy == "Never" or (policy == "IfNotPresent" and node.has_image(image.reference)):
            self._tell("Normal", "Pulled", f'Container image "{reference}" already present on machine')
            return
        self._tell("Normal", "Pulling", f'Pulling image "{reference}"')
        begin = time.monotonic()
        await self._pause(PULL_SECONDS if not node.has_image(image.reference) else PULL_SECONDS / 10)
        node.add_image(image.reference)
        took = f"{(time.monotonic() - begin) * 1000:.0f}ms"
        text = f'Successfully pulled image "{reference}" in {took} ({took} including waiting).'
        self._tell("Normal", "Pulled", f"{text} A program of this machine stands in for it.")

    async def _unavailable(self, reference: str, reason: str, why: str, delay: float) -> None:
        if reason == "InvalidImageName":
            text = f'Failed to apply default image tag "{reference}": {why}'
            self._tell("Warning", "InspectFailed", text)
            self._tell("Warning", "Failed", f"Error: {reason}")
            self._become(status.waiting(reason, text))
            await self._pause(delay)
            return
        self._tell("Normal", "Pulling", f'Pulling image "{reference}"')
        self._tell("Warning", "Failed", f'Failed to pull image "{reference}": {why}')
        self._tell("Warning", "Failed", f"Error: {reason}")
        self._become(status.waiting(reason, why))
        await self._pause(SHOWN_SECONDS)
        self._tell("Normal", "BackOff", f'Back-off pulling image "{reference}"')
        self._tell("Warning", "Failed", "Error: ImagePullBackOff")
        text = f'Back-off pulling image "{reference}": {reason}: {why}'
        self._become(status.waiting("ImagePullBackOff", text))
        await self._pause(delay - SHOWN_SECONDS)

    async def _specification(self, image: images.Image) -> dict[str, Any]:
        """What the shim needs; waits until all that the environment refers to is there."""
        while True:
            try:
                return await self._specify(image)
            except environment.ConfigError as error:
                self._tell("Warning", "Failed", f"Error: {error}")
                self._become(status.waiting("CreateContainerConfigError", str(error)))
                await self._pause(FIRST_DELAY)

    async def _specify(self, image: images.Image) -> dict[str, Any]:
        pod, around = self._pod, self._pod.around
        gpus = pod.node.gpus if image.all_gpus else pod.gpus_of(self.stand.name)
        tools = [around.gpu_tools, around.tools] if gpus else [around.tools]
        own = await environment.of_container(around.objects, pod.with_status(), self._spec, pod.node.object)
        hostname = pod.pod["spec"].get("hostname") or pod.name
        env = {**environment.common(hostname, tools, gpus, pod.node.driver), **own}
        mounts = volumes.mounts(self._spec, pod.pod["spec"].get("volumes") or [], pod.volumes, own)
        argv = environment.command_line(self._spec, image, own)
        work = pod.directory / "containers" / self.stand.name / str(self.stand.restarts) / "work"
        work.mkdir(parents=True, exist_ok=True)
        directory = self._spec.get("workingDir") or image.directory
        if directory and not Path(directory).is_dir() and not any(one.target == directory for one in mounts):
            mounts.append(volumes.Mount(str(work), directory, False))  # the image would have it
        cwd = directory or str(work)
        moved: list[str] = []
        if mounts and not around.view:
            root = work.with_name("root")
            volumes.link(root, mounts)
            moved, mounts = [one.target for one in mounts], []
            argv = [volumes.rewrite(word, root, moved) for word in argv]
            own = {name: volumes.rewrite(value, root, moved) for name, value in own.items()}
            env = {**env, **own, "AKSGPU_ROOT": str(root)}
            cwd = volumes.rewrite(cwd, root, moved)
        if around.view and all(gpu.simulated for gpu in gpus):
            mounts += self._termination_log(work.with_name(_LAST_WORDS))
        limit = ((self._spec.get("resources") or {}).get("limits") or {}).get("memory")
        return {
            "argv": argv,
            "env": env,
            "cwd": cwd,
            "mounts": mounts,
            "moved": moved,
            "memory_limit": int(quantity.parse(limit)) if limit else None,
        }

    def _termination_log(self, path: Path) -> list[volumes.Mount]:
        """Where the command may leave its last words.

        Not with a real GPU: the driver adds files to /dev on first use, which a /dev with this file would not show.
        """
        target = self._spec.get("terminationMessagePath") or ""
        if not target.startswith("/"):
            return []
        path.write_bytes(b"")
        path.chmod(0o666)
        return [volumes.Mount(str(path), target, False)]

    def _last_words(self, code: int) -> str:
        """What the run left in its termination log, or in its log where the spec wants that."""
        if self._attempt is None:
            return ""
        path = self._attempt.directory / _LAST_WORDS
        with contextlib.suppress(OSError), path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _WORDS_BYTES))
            if data := file.read(_WORDS_BYTES):
                return data.decode(errors="replace")
        if code == 0 or self._spec.get("terminationMessagePolicy") != "FallbackToLogsOnError":
            return ""
        return logs.last_words(self._attempt.log, lines=80, limit=2048)

    async def execute(self, argv: Sequence[str], *, tty: bool) -> Execution:
        """Run another command in the container, as ``kubectl exec`` does; raises ExecError."""
        attempt = self._attempt
        if attempt is None or not self.stand.running:
            raise ExecError("the container does not run")
        moved = attempt.read("spec.json").get("moved", [])
        words = [volumes.rewrite(word, attempt.directory / "root", moved) for word in argv]
        return await execute(attempt.directory, words, tty=tty)

    # The end of the pod.

    async def end(self, deadline: Callable[[], float]) -> None:
        """End the present run: SIGTERM, and SIGKILL when ``deadline`` (of the monotonic clock) has come."""
        attempt = self._attempt
        if attempt is None or "terminated" in self.stand.state:
            return
        if self._left_over:
            await self._resume()
        if not attempt.alive:
            if "waiting" in self.stand.state and self.stand.last:  # it was to be restarted
                self._become(self.stand.last)
            return
        self._tell("Normal", "Killing", f"Stopping container {self.stand.name}")
        self._ended(await self._terminate(attempt, deadline))

    async def _terminate(self, attempt: Attempt, deadline: Callable[[], float]) -> Exit:
        attempt.signal(signal.SIGTERM)
        ended = asyncio.create_task(attempt.ended())
        try:
            while not ended.done():
                left = deadline() - time.monotonic()
                if left <= 0:
                    attempt.kill()
                    break
                self.deadline_changed.clear()
                change = asyncio.create_task(self.deadline_changed.wait())
                await asyncio.wait({ended, change}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                change.cancel()
            return await ended
        finally:
            ended.cancel()

    async def leave(self, deadline: float | None) -> None:
        """Let go of the present run: it goes on, or ends by ``deadline`` when one is given."""
        if self._attempt is None:
            return
        if self._left_over:
            await self._attempt.resume()
        if self._attempt.alive and deadline is not None:
            await self._terminate(self._attempt, lambda: deadline)
        self._attempt.detach()

    def log(self, *, previous: bool) -> Path | None:
        """The log of the present run, or of the one before; None when there was none."""
        numbers = attempts(self._directory)
        if previous and "waiting" not in self.stand.state:  # a container that waits has only past runs
            numbers = numbers[:-1]
        return self._directory / f"{numbers[-1]}.log" if numbers else None

    def may_write(self, path: Path) -> bool:
        """Whether more may come in that log."""
        current = self._attempt is not None and self._attempt.log == path
        return current and self.stand.running


def _duration(seconds: float) -> str:
    """As Go prints it: 10s, 1m20s, 5m0s."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
