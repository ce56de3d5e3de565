"""The ``log`` subresource: who is asked for a container's output, and what is refused with which words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC
from typing import Any, Protocol

from aksgpu.local.api.bodies import flag, integer
from aksgpu.local.api.cells import moment
from aksgpu.local.status import StatusError, bad_request

Object = dict[str, Any]


class PodLogs(Protocol):
    """Where containers' output comes from: the node agent."""

    async def open(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        follow: bool,
        previous: bool,
        since_time: str | None,
        since_seconds: int | None,
        tail_lines: int | None,
        limit_bytes: int | None,
        timestamps: bool,
    ) -> AsyncIterator[bytes]:
        """The output in pieces of any size; with ``follow`` until the container ends.

        ``since_time`` is RFC 3339 in whole seconds, UTC.
        """
        ...


async def open_log(logs: PodLogs, pod: Object, query: Mapping[str, str]) -> AsyncIterator[bytes] | None:
    """What a ``GET .../log`` answers with; None for a pod that no node has taken yet.

    Raises:
        StatusError: for a container that is not there, or has not started, in the server's words.
    """
    options = _options(query, pod["metadata"]["name"])
    container = chosen_container(pod, query.get("container", ""))
    if not pod["spec"].get("nodeName"):
        return None
    _check_state(pod, container, options["previous"])
    metadata = pod["metadata"]
    return await logs.open(metadata["namespace"], metadata["name"], container, **options)


def _options(query: Mapping[str, str], name: str) -> Object:
    options: Object = {each: flag(query, each) for each in ("follow", "previous", "timestamps")}
    for field, parameter, least in (
        ("since_seconds", "sinceSeconds", 1), ("tail_lines", "tailLines", 0), ("limit_bytes", "limitBytes", 1),
    ):  # fmt: skip
        value = integer(query, parameter) if query.get(parameter) else None
        if value is not None and value < least:
            bound = "must be greater than 0" if least else "must be greater than or equal to 0"
            raise _invalid(name, parameter, f"Invalid value: {value}: {bound}")
        options[field] = value
    since = query.get("sinceTime")
    if since and options["since_seconds"] is not None:
        raise _invalid(name, "sinceSeconds", "Forbidden: only one of `sinceTime` or `sinceSeconds` may be specified")
    options["since_time"] = _whole_seconds(since) if since else None
    return options


def _whole_seconds(text: str) -> str:
    """A time as it reaches the node: without its fraction, as in Kubernetes."""
    try:
        return moment(text.replace(" ", "+")).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError):
        message = f'parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse "{text}" as "2006"'
        raise bad_request(message) from None


def _invalid(name: str, field: str, message: str) -> StatusError:
    reason = "FieldValueForbidden" if message.startswith("Forbidden") else "FieldValueInvalid"
    causes = [{"reason": reason, "message": message, "field": field}]
    details = {"name": name, "kind": "PodLogOptions", "causes": causes}
    return StatusError(422, "Invalid", f'PodLogOptions "{name}" is invalid: {field}: {message}', details)


def chosen_container(pod: Object, asked: str) -> str:
    """The container that a request is about: the one it names, or the only one; raises BadRequest."""
    spec, name = pod["spec"], pod["metadata"]["name"]
    mains = [container["name"] for container in spec.get("containers") or ()]
    inits = [container["name"] for container in spec.get("initContainers") or ()]
    if asked:
        if asked not in (*mains, *inits):
            raise bad_request(f"container {asked} is not valid for pod {name}")
        return asked
    if len(mains) == 1 and not inits:
        return str(mains[0])
    default = (pod["metadata"].get("annotations") or {}).get("kubectl.kubernetes.io/default-container")
    if default in mains:
        return str(default)
    choice = f"a container name must be specified for pod {name}, choose one of: [{' '.join(mains)}]"
    raise bad_request(choice + (f" or one of the init containers: [{' '.join(inits)}]" if inits else ""))


def _check_state(pod: Object, container: str, previous: bool) -> None:
    status, name = pod.get("status") or {}, pod["metadata"]["name"]
    known = [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]
    found = next((each for each in known if each["name"] == container), None)
    where = f'container "{container}" in pod "{name}"'
    if found is None:
        if previous:
            raise bad_request(f"previous terminated {where} not found")
        raise bad_request(f"{where} is waiting to start: ContainerCreating")
    state, last = found.get("state") or {}, (found.get("lastState") or {}).get("terminated")
    if previous:
        if not last:
            raise bad_request(f"previous terminated {where} not found")
        return
    if last or state.get("running") is not None or state.get("terminated") is not None:
        return
    waiting = (state.get("waiting") or {}).get("reason")
    if waiting is None:
        raise bad_request(f"{where} is waiting to start - no logs yet")
    words = {"ErrImagePull": "image can't be pulled", "ImagePullBackOff": "trying and failing to pull image"}
    raise bad_request(f"{where} is waiting to start: {words.get(waiting, waiting)}")
