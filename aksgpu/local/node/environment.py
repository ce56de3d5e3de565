"""The command line and the environment of a container: expansion, env, envFrom, fieldRef, resourceFieldRef, GPUs."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from decimal import ROUND_CEILING, Decimal
from pathlib import Path

from aksgpu.common import quantities
from aksgpu.local.images import Image
from aksgpu.local.node.gpus import Gpu
from aksgpu.local.objects import Object, Objects
from aksgpu.local.status_error import StatusError

_INHERITED = ("HOME", "USER", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH")
"""Variables of this machine that containers inherit. Programs need them, and they contain no secrets."""
_FIELDS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "metadata.labels",
    "metadata.annotations",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
"""Fields of a pod that the downward API provides."""
_REFERENCE = re.compile(r"\$\$|\$\((?P<name>[^)]*)(?P<end>\)|\Z)")
"""``$$`` or a reference.

An unclosed reference extends to the end of the text, so that the text is scanned only once.
"""


class ConfigError(Exception):
    """The container cannot be created from its spec (reason CreateContainerConfigError)."""


def expand(text: str, known: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` with the variable if it exists, and ``$$`` with a dollar sign."""

    def replacement(match: re.Match[str]) -> str:
        name = match.group(1)
        return "$" if name is None else known.get(name, match.group(0))

    return _REFERENCE.sub(replacement, text)


def command_line(container: Object, image: Image, known: Mapping[str, str]) -> list[str]:
    """Return the program and its arguments. ``command`` replaces the image's entrypoint and its default arguments."""
    command = [expand(word, known) for word in container.get("command") or []]
    args = [expand(word, known) for word in container.get("args") or []]
    if command:
        return command + args
    return [*image.entrypoint, *(args or image.cmd)]


def common_environment(
    hostname: str, tools: Sequence[Path], gpus: Sequence[Gpu], driver_error_file: Path | None = None
) -> dict[str, str]:
    """Return the environment of every container, before its own variables.

    Args:
        hostname: the pod's host name.
        tools: directories that come first on the PATH.
        gpus: the container's GPUs.
        driver_error_file: the file that holds NVML's error message while the node's driver is broken.
    """
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    uuids = ",".join(gpu.uuid for gpu in gpus)
    found = {
        **inherited,
        "PATH": os.pathsep.join([*map(str, tools), os.environ.get("PATH", os.defpath)]),
        "HOSTNAME": hostname,
        "PYTHONUNBUFFERED": "1",  # so that clients can follow the log
        "NVIDIA_VISIBLE_DEVICES": uuids or "void",
        "CUDA_VISIBLE_DEVICES": uuids,
        "AKSGPU_GPUS": json.dumps([asdict(gpu) for gpu in gpus]),
    }
    if driver_error_file:
        found["AKSGPU_DRIVER"] = str(driver_error_file)
    return found


async def container_environment(objects: Objects, pod: Object, container: Object, node: Object) -> dict[str, str]:
    """Return the environment variables in a container's spec.

    Args:
        objects: the cluster's objects.
        pod: the pod, with its addresses in the status.
        container: the container in the pod's spec.
        node: the pod's node. Its allocatable resources replace limits that are not set.

    Raises:
        ConfigError: a ConfigMap, a Secret or a key that is not optional does not exist, or a value is read from a file.
    """
    found: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        data = await read_data(objects, pod, source)
        prefix = source.get("prefix", "")
        found |= {prefix + key: value.decode(errors="replace") for key, value in data.items()}
    for entry in container.get("env") or []:
        value = await _read_value(objects, entry, pod, container, node, found)
        if value is not None:
            found[entry["name"]] = value
    return found


async def _read_value(
    objects: Objects, entry: Object, pod: Object, container: Object, node: Object, known: Mapping[str, str]
) -> str | None:
    source = entry.get("valueFrom")
    if not source:
        return expand(entry.get("value") or "", known)
    if "fieldRef" in source:
        return read_field(pod, source["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in source:
        return read_resource_field(pod, source["resourceFieldRef"], container, node)
    if "fileKeyRef" in source:
        raise ConfigError(f"env {entry['name']}: the laptop AKS does not support fileKeyRef")
    kind, ref = next(iter(source.items()))
    data = await read_data(objects, pod, source)
    if ref["key"] in data:
        return data[ref["key"]].decode(errors="replace")
    if ref.get("optional"):
        return None
    name = "ConfigMap" if kind == "configMapKeyRef" else "Secret"
    raise ConfigError(f"couldn't find key {ref['key']} in {name} {pod['metadata']['namespace']}/{ref['name']}")


async def read_data(objects: Objects, pod: Object, source: Object, *, binary: bool = False) -> dict[str, bytes]:
    """Return the data of a ConfigMap or Secret. It is empty if the object is optional and does not exist.

    Args:
        objects: the cluster's objects.
        pod: the pod, whose namespace is read.
        source: an object with a field such as ``configMapKeyRef`` or ``secret``.
        binary: whether to include a ConfigMap's ``binaryData``, which only files can hold.

    Raises:
        ConfigError: the object does not exist.
    """
    kind, ref = next((key, value) for key, value in source.items() if key.startswith(("configMap", "secret")))
    resource = "configmaps" if kind.startswith("configMap") else "secrets"
    name = ref.get("name") or ref["secretName"]
    try:
        obj = await objects.get(resource, name, pod["metadata"]["namespace"])
    except StatusError as error:
        if error.code != 404:
            raise
        if ref.get("optional"):
            return {}
        raise ConfigError(f'{resource.removesuffix("s")} "{name}" not found') from error
    data = obj.get("data") or {}
    if resource == "secrets":
        return {key: base64.b64decode(value) for key, value in data.items()}
    found = {key: value.encode() for key, value in data.items()}
    if binary:
        found |= {key: base64.b64decode(value) for key, value in (obj.get("binaryData") or {}).items()}
    return found


def read_field(pod: Object, path: str) -> str:
    """Return a field of the pod as the downward API provides it.

    Raises:
        ConfigError: the downward API does not provide the field.
    """
    match = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    if match:
        return str((pod["metadata"].get(match[1]) or {}).get(match[2], ""))
    if path not in _FIELDS:
        raise ConfigError(f"unsupported fieldPath: {path}")
    part, _, name = path.partition(".")
    value = (pod.get(part) or {}).get(name) or ""
    match value:
        case dict():
            return "\n".join(f"{key}={json.dumps(text)}" for key, text in sorted(value.items()))
        case list():
            return ",".join(entry["ip"] for entry in value)
    return str(value)


def read_resource_field(pod: Object, ref: Object, container: Object, node: Object) -> str:
    """Return a limit or request of a container, divided by ``divisor``.

    Args:
        pod: the pod.
        ref: the resourceFieldRef.
        container: the container to read if the reference names none.
        node: the pod's node. Its allocatable resources replace a limit that is not set.
    """
    spec = pod["spec"]
    name = ref.get("containerName")
    if name:
        all_containers = [*(spec.get("initContainers") or []), *spec["containers"]]
        container = next((found for found in all_containers if found["name"] == name), container)
    kind, _, resource = str(ref["resource"]).partition(".")
    resources = container.get("resources") or {}
    value = (resources.get(kind) or {}).get(resource)
    if value is None and kind == "limits":
        value = node.get("status", {}).get("allocatable", {}).get(resource)
    divisor = quantities.parse(ref.get("divisor") or "1") or Decimal(1)
    return str(int((quantities.parse(value or "0") / divisor).to_integral_value(ROUND_CEILING)))
