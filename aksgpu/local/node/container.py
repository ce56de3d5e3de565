"""One container of a pod: its image, its runs, and whether it is restarted.

The delays between restarts and between pulls are those of a kubelet: 10 seconds, doubled each time up to five minutes,
multiplied by the laptop's time scale. After a run of ten minutes, the delay is reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aksgpu.errors import InvalidInput
from aksgpu.local import images
from aksgpu.local.images import image_registry
from aksgpu.local.node import pod_status, termination_message, volumes
from aksgpu.local.node.container_run import ContainerRun, Exit, list_runs
from aksgpu.local.node.container_spec import build_run_spec
from aksgpu.local.node.environment import ConfigError
from aksgpu.local.node.exec_command import ExecError, Execution, attach, execute
from aksgpu.local.node.pod_context import PodContext
from aksgpu.local.objects import Object

FIRST_BACKOFF_SECONDS = 10.0
MAX_BACKOFF_SECONDS = 300.0
BACKOFF_RESET_SECONDS = 600.0
"""A run this long resets the delay."""
PULL_SECONDS = 0.3
"""Simulated duration of pulling an image."""
ERR_IMAGE_PULL_SECONDS = 4.0
"""Time for which the reason is ErrImagePull before it becomes ImagePullBackOff."""
FIRST_OUTPUT_SECONDS = 2.0
"""Time after its start in which a command is expected to write for the first time. A log read waits for that."""
OUTPUT_CHECK_SECONDS = 0.02
"""How often a log is checked for the first output."""
DEADLINE_CHECK_SECONDS = 0.1
"""Time between two checks whether the deadline of an ending container has become earlier."""

_OCI_START_ERROR = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: "
    "unable to start container process: error during container init: {}: unknown"
)


class ContainerRunner:
    """Runs one container, and restarts it according to the pod's restart policy.

    Args:
        context: the container's pod.
        spec: the container in the pod's spec.
        init: whether it is an init container.

    Attributes:
        status: the container's status in the pod's status. It is replaced as a whole when it changes.
        sidecar: whether it is an init container that keeps running while the later containers run.
        started: set when its command has been started.
    """

    def __init__(self, context: PodContext, spec: Object, *, init: bool = False) -> None:
        self._context = context
        self._spec = spec
        self._init = init
        self.name: str = spec["name"]
        self.sidecar: bool = spec.get("restartPolicy") == "Always"  # only sidecars have their own policy
        if init and not self.sidecar and context.restart_policy == "Always":
            self._restart_policy = "OnFailure"
        else:
            self._restart_policy = spec.get("restartPolicy") or context.restart_policy
        self._directory = context.directory / "containers" / self.name
        self._run: ContainerRun | None = None
        self._next_number = 0  # the number of the next run
        self._from_before_restart = False
        self._backoff = 0.0
        self._advice_recorded = False
        self.started = asyncio.Event()
        image = spec["image"]
        with contextlib.suppress(InvalidInput):
            image = images.normalise(image)
        waits_for_init = context.pod["spec"].get("initContainers") and not init
        state = pod_status.waiting("PodInitializing" if waits_for_init else "ContainerCreating")
        self.status = pod_status.new_container_status(spec, image, state)

    def _record_event(self, kind: str, reason: str, message: str) -> None:
        field = f"spec.{'initContainers' if self._init else 'containers'}{{{self.name}}}"
        self._context.record_event(kind, reason, message, field)

    def _set_state(self, state: Object, **fields: Any) -> None:
        """Set the container's state, and further fields of its status.

        The state of an ended run moves to ``lastState`` when the container waits for its restart or has a new run.
        """
        ended = self.status["state"].get("terminated")
        if ended and ("waiting" in state or fields.get("restartCount", 0) > self.status["restartCount"]):
            fields["lastState"] = {"terminated": ended}
        running = "running" in state
        ready = running
        if self._init and not self.sidecar:
            ready = state.get("terminated", {}).get("exitCode") == 0
        self.status = {**self.status, "state": state, "ready": ready, "started": running, **fields}
        self._context.status_changed.set()

    @property
    def has_run(self) -> bool:
        """Whether it has been started at least once."""
        return self._run is not None

    @property
    def running(self) -> bool:
        """Whether its command is running."""
        return bool(self.status["started"])

    @property
    def supervisor_pid(self) -> int:
        """The pid of the supervisor of its current run, or 0 if it is not running."""
        if self._run is None or not self.running:
            return 0
        return int(self._run.read("run.json").get("pid", 0))

    def restore(self) -> None:
        """Restore the status and the last run from before a restart of the laptop."""
        field = "initContainerStatuses" if self._init else "containerStatuses"
        statuses = (self._context.pod.get("status") or {}).get(field) or []
        self.status = next((status for status in statuses if status["name"] == self.name), self.status)
        numbers = list_runs(self._directory)
        if numbers:
            # The status is updated once the run has been resumed, so that it never mixes two runs.
            self._next_number = max(numbers)
            self._run = ContainerRun(self._directory, max(numbers))
            self._from_before_restart = True

    async def run(self) -> bool:
        """Run the container until it is no longer restarted. Return whether it succeeded."""
        succeeded_before = self._from_before_restart and pod_status.exit_code(self.status) == 0
        if self._init and not self.sidecar and succeeded_before:
            return True
        while True:
            run = await self._resume() or await self._start()
            result = await run.wait()
            await self._set_terminated(run, result)
            if self._restart_policy == "Never" or (self._restart_policy == "OnFailure" and result.code == 0):
                return result.code == 0
            await self._back_off(result)

    async def _resume(self) -> ContainerRun | None:
        """Return the run from before a restart of the laptop. Later calls return None."""
        run = self._run if self._from_before_restart else None
        if run is None:
            return None
        found = await run.resume()
        self._from_before_restart = False  # If the task is cancelled before this line, end() resumes the run.
        if not found:
            return None
        if run.started:
            self._set_running(run)
        return run

    async def _start(self) -> ContainerRun:
        """Start the next run. Wait until everything that the container refers to exists."""
        image = await self._wait_for_image()
        while True:
            run = ContainerRun(self._directory, self._next_number)
            try:
                async with self._context.cluster.starts.slot():
                    spec = await build_run_spec(self._context, self._spec, image, run.directory)
                    return await self._launch(run, image, spec)
            except ConfigError as error:
                reason = "CreateContainerConfigError"
                message = str(error)
            except OSError as error:  # such as a full disk
                reason = "CreateContainerError"
                message = str(error)
            self._record_event("Warning", "Failed", f"Error: {message}")
            self._set_state(pod_status.waiting(reason, message))
            await self._context.cluster.sleep(FIRST_BACKOFF_SECONDS)

    async def _launch(self, run: ContainerRun, image: images.Image, spec: dict[str, Any]) -> ContainerRun:
        self._run = run
        self._record_event("Normal", "Created", f"Created container: {self.name}")
        context = self._context
        log_max_mb = context.node.container_log_max_mb or context.cluster.settings.container_log_max_mb
        await run.start(spec, secrets.token_hex(32), int(log_max_mb * 1_000_000))
        self.status = {**self.status, "imageID": image.id}
        if run.started:
            self._set_running(run)
            self._record_event("Normal", "Started", f"Started container {self.name}")
        self._delete_old_run(run.number - 2)  # until now, its log was the previous one
        return run

    def _set_running(self, run: ContainerRun) -> None:
        self._set_state(pod_status.running(run.started), **self._run_fields(run))
        self.started.set()

    def _run_fields(self, run: ContainerRun) -> Object:
        """Return the fields of the status that identify a run. They change together with the state."""
        return {"containerID": f"containerd://{run.container_id}", "restartCount": run.number}

    def _delete_old_run(self, number: int) -> None:
        if number >= 0:
            shutil.rmtree(self._directory / str(number), ignore_errors=True)
            for path in self._directory.glob(f"{number}.log.*"):
                path.unlink()

    async def _set_terminated(self, run: ContainerRun, result: Exit) -> None:
        message = result.message
        started = result.started
        if result.reason == "StartError":
            message = _OCI_START_ERROR.format(result.message)
            started = 0
            self._record_event("Warning", "Failed", f"Error: {message}")
        written = await termination_message.read(self._spec, run.directory, run.log, failed=result.code != 0)
        message = ": ".join(filter(None, (message, written)))
        container_id = f"containerd://{run.container_id}"
        state = pod_status.terminated(container_id, result.code, result.reason, message, started, result.finished)
        self._next_number = run.number + 1
        self._set_state(state, **self._run_fields(run))

    async def _back_off(self, result: Exit) -> None:
        """Wait before the next run. The first restart has no delay."""
        if result.finished - result.started > BACKOFF_RESET_SECONDS * 1e9:
            self._backoff = 0.0
        if self._backoff:
            context = self._context
            pod = f"{context.name}_{context.namespace}({context.uid})"
            delay = _format_duration(self._backoff)
            message = f"back-off {delay} restarting failed container={self.name} pod={pod}"
            self._set_state(pod_status.waiting("CrashLoopBackOff", message))
            self._record_event("Warning", "BackOff", f"Back-off restarting failed container {self.name} in pod {pod}")
            await context.cluster.sleep(self._backoff)
        self._backoff = min(self._backoff * 2 or FIRST_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS)

    async def _wait_for_image(self) -> images.Image:
        """Return the program for the container's image. Wait until one is registered."""
        reference = self._spec["image"]
        delay = FIRST_BACKOFF_SECONDS
        while True:
            try:
                image = images.find(reference)
                if image:
                    await self._pull(reference, image)
                    return image
                if self._spec["imagePullPolicy"] == "Never":
                    message = f'Container image "{reference}" is not present with pull policy of Never'
                    self._record_event("Warning", "ErrImageNeverPull", message)
                    await self._record_image_advice(reference)
                    self._set_image_error("ErrImageNeverPull", message)
                    await self._context.cluster.sleep(delay)
                else:
                    await self._fail_pull(reference, delay)
            except InvalidInput as error:
                message = f'Failed to apply default image tag "{reference}": {error.message}'
                self._record_event("Warning", "InspectFailed", message)
                self._set_image_error("InvalidImageName", message)
                await self._context.cluster.sleep(delay)
            delay = min(delay * 2, MAX_BACKOFF_SECONDS)

    async def _pull(self, reference: str, image: images.Image) -> None:
        node = self._context.node
        policy = self._spec["imagePullPolicy"]
        present = image.reference in node.images
        if policy == "Never" or (policy == "IfNotPresent" and present):
            self._record_event("Normal", "Pulled", f'Container image "{reference}" already present on machine')
            return
        self._record_event("Normal", "Pulling", f'Pulling image "{reference}"')
        begin = time.monotonic()
        await self._context.cluster.sleep(PULL_SECONDS / 10 if present else PULL_SECONDS)
        node.images.add(image.reference)
        duration = f"{(time.monotonic() - begin) * 1000:.0f}ms"
        message = f'Successfully pulled image "{reference}" in {duration} ({duration} including waiting).'
        self._record_event("Normal", "Pulled", f"{message} It is replaced by a program of this machine.")

    async def _fail_pull(self, reference: str, delay: float) -> None:
        error = image_registry.pull_error(reference)
        self._record_event("Normal", "Pulling", f'Pulling image "{reference}"')
        self._record_event("Warning", "Failed", f'Failed to pull image "{reference}": {error}')
        await self._record_image_advice(reference)
        self._set_image_error("ErrImagePull", error)
        await self._context.cluster.sleep(ERR_IMAGE_PULL_SECONDS)
        message = f'Back-off pulling image "{reference}"'
        self._record_event("Normal", "BackOff", message)
        self._set_image_error("ImagePullBackOff", f"{message}: ErrImagePull: {error}")
        await self._context.cluster.sleep(delay - ERR_IMAGE_PULL_SECONDS)

    def _set_image_error(self, reason: str, message: str) -> None:
        self._record_event("Warning", "Failed", f"Error: {reason}")
        self._set_state(pod_status.waiting(reason, message))

    async def _record_image_advice(self, reference: str) -> None:
        """Record an event that says how to provide the image, before the status shows that it is missing."""
        if not self._advice_recorded:
            self._advice_recorded = True
            self._record_event("Warning", image_registry.ADVICE_REASON, image_registry.advice(reference))
            await self._context.cluster.events.flush()

    async def execute(self, argv: Sequence[str], *, tty: bool) -> Execution:
        """Run another command in the container, as ``kubectl exec`` does; raises ExecError."""
        run = self._run
        if run is None or not self.running:
            raise ExecError("the container is not running")
        rewritten = run.read("spec.json").get("rewritten", [])
        words = [volumes.rewrite_paths(word, run.directory / "root", rewritten) for word in argv]
        return await execute(run.directory, words, tty=tty)

    async def attach(self, *, stdin: bool) -> Execution:
        """Connect to the container's own command, as ``kubectl attach`` does; raises ExecError."""
        run = self._run
        if run is None or not self.running:
            raise ExecError("the container does not run")
        return await attach(run.directory, stdin=stdin)

    async def end(self, deadline: Callable[[], float]) -> None:
        """End the current run: SIGTERM, then SIGKILL at the deadline.

        Args:
            deadline: returns a time of the monotonic clock. It may become earlier.
        """
        run = self._run
        if run is None or "terminated" in self.status["state"]:
            return
        if self._from_before_restart:
            await self._resume()
        if run.alive:
            self._record_event("Normal", "Killing", f"Stopping container {self.name}")
        if run.alive or self.running:
            await self._set_terminated(run, await _terminate(run, deadline))
        elif "waiting" in self.status["state"] and self.status["lastState"]:  # it was waiting for a restart
            self._set_state(self.status["lastState"])

    async def detach(self, deadline: float | None) -> None:
        """Stop supervising the current run.

        Args:
            deadline: when the run ends, as a time of the monotonic clock. None leaves it running.
        """
        if self._run is None:
            return
        if self._from_before_restart:
            await self._run.resume()
        if self._run.alive and deadline is not None:
            await _terminate(self._run, lambda: deadline)
        self._run.detach()

    def find_log(self, *, previous: bool) -> Path | None:
        """Return the path of the log of the current or the previous run, or None if there was no such run."""
        number = self.status["restartCount"]
        if previous and "waiting" not in self.status["state"]:  # a waiting container has no current run
            number -= 1
        return self._directory / f"{number}.log" if number in list_runs(self._directory) else None

    async def wait_for_output(self, path: Path) -> None:
        """Wait for the first output of a command that has just been started, or for its end."""
        while self.may_write(path) and self._run is not None:
            age = time.time() - self._run.started / 1e9
            if age > FIRST_OUTPUT_SECONDS or any(file.stat().st_size for file in path.parent.glob(path.name + ".*")):
                return
            await asyncio.sleep(OUTPUT_CHECK_SECONDS)

    def may_write(self, path: Path) -> bool:
        """Return whether the container may still write to a log."""
        return self.running and self._run is not None and self._run.log == path


async def _terminate(run: ContainerRun, deadline: Callable[[], float]) -> Exit:
    run.send_signal(signal.SIGTERM)
    waiting = asyncio.create_task(run.wait())
    try:
        while not waiting.done():
            remaining = deadline() - time.monotonic()
            if remaining <= 0:
                run.kill()
                break
            await asyncio.wait({waiting}, timeout=min(remaining, DEADLINE_CHECK_SECONDS))
        return await waiting
    finally:
        waiting.cancel()


def _format_duration(seconds: float) -> str:
    """Return a duration as Go prints it: 10s, 1m20s, 5m0s."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
