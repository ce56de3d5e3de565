"""Request bodies in Kubernetes' protobuf, which kubectl 1.32 and later sends for some commands, made into dicts.

Only decoding, and only requests: every client that sends protobuf takes JSON as an answer. The wire format is
generic; the field numbers of the kinds served are data (``data/protobuf-1.33.json``, from Kubernetes' published
``generated.proto`` files: a message a line, ``number name type`` a field, ``[]`` for lists and ``{}`` for maps).

A field that Go holds by value is on the wire even when it is zero, and JSON leaves it out; one held by pointer is there
only when it was set. The table does not tell the two apart, so zero values are dropped unless the name is in
:data:`KEPT_WHEN_ZERO`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import orjson

MAGIC = b"k8s\0"

_KEPT = """
    activeDeadlineSeconds allowPrivilegeEscalation automountServiceAccountToken backoffLimit backoffLimitPerIndex
    blockOwnerDeletion completions controller csi defaultMode deletionGracePeriodSeconds emptyDir enableServiceLinks
    ephemeral expirationSeconds fsGroup gracePeriodSeconds hostUsers immutable labelSelector leaseDurationSeconds
    leaseTransitions manualSelector maxFailedIndexes mode namespaceSelector optional orphanDependents parallelism
    priority privileged procMount readOnlyRootFilesystem runAsGroup runAsNonRoot runAsUser seconds securityContext
    selector setHostnameAsFQDN shareProcessNamespace storageClassName suspend terminationGracePeriodSeconds
    tolerationSeconds ttlSecondsAfterFinished
    """
KEPT_WHEN_ZERO = frozenset(_KEPT.split())
"""Fields that Go holds by pointer: an explicit 0, false or {} says something."""

_INLINE = frozenset(
    ("volumeSource", "handler", "localObjectReference", "ephemeralContainerCommon", "persistentVolumeSource")
)
"""Messages whose fields JSON shows one level up."""


class _Field(NamedTuple):
    name: str
    type: str
    shape: str  # "", "[]" or "{}"


@cache
def _messages() -> dict[str, dict[int, _Field]]:
    text = (Path(__file__).parent / "data" / "protobuf-1.33.json").read_text()
    return {message: dict(map(_row, filter(None, line.split(", ")))) for message, line in json.loads(text).items()}


def _row(text: str) -> tuple[int, _Field]:
    number, name, type_ = text.split()
    shape = type_[:2] if type_[:2] in ("[]", "{}") else ""
    return int(number), _Field(name, type_.removeprefix(shape), shape)


def decode(body: bytes) -> dict[str, Any]:
    """The object in a protobuf body.

    Raises:
        ValueError: the bytes are not such a message, or its kind is none that can be decoded.
    """
    if not body.startswith(MAGIC):
        raise ValueError("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    envelope: dict[int, bytes] = {number: raw for number, raw in _wire(body[4:]) if isinstance(raw, bytes)}
    api_version, kind = _type_meta(envelope.get(1, b""))
    if kind not in _messages():
        raise ValueError(f'no kind "{kind}" is registered for version "{api_version}"')
    return {"kind": kind, "apiVersion": api_version, **_message(kind, envelope.get(2, b""))}


def _type_meta(raw: bytes) -> tuple[str, str]:
    texts = {number: value.decode() for number, value in _wire(raw) if isinstance(value, bytes)}
    return texts.get(1, ""), texts.get(2, "")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("unexpected EOF")
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7


def _wire(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and raw values: an int of a varint, bytes of everything else."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == 2:
            length, at = _varint(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"illegal wire type {kind}")
        if at + length > len(data):
            raise ValueError("unexpected EOF")
        yield key >> 3, data[at : at + length]
        at += length


def _message(message: str, data: bytes) -> dict[str, Any]:
    fields, result = _messages()[message], dict[str, Any]()
    for number, raw in _wire(data):
        field = fields.get(number)
        if field is None:
            continue
        if field.shape == "[]":
            result.setdefault(field.name, []).extend(_elements(field.type, raw))
        elif field.shape == "{}":
            key, value = _entry(field.type, raw)
            result.setdefault(field.name, {})[key] = value
        else:
            value = _value(field.type, raw)
            if field.name in _INLINE:
                result.update(value)
            elif value or field.name in KEPT_WHEN_ZERO:
                result[field.name] = value
    return result


def _elements(type_: str, raw: int | bytes) -> list[Any]:
    """One element, or several of a packed list of numbers."""
    if type_ in ("int", "bool") and isinstance(raw, bytes):
        values, at = [], 0
        while at < len(raw):
            number, at = _varint(raw, at)
            values.append(_value(type_, number))
        return values
    return [_value(type_, raw)]


def _entry(type_: str, raw: int | bytes) -> tuple[str, Any]:
    pair: dict[int, int | bytes] = {1: b"", 2: b"" if type_ not in ("int", "bool") else 0}
    pair.update(_wire(_bytes(raw)))
    return _bytes(pair[1]).decode(), _value(type_, pair[2])


def _value(type_: str, raw: int | bytes) -> Any:
    convert = _SCALARS.get(type_)
    return convert(raw) if convert else _message(type_, _bytes(raw))


def _bytes(raw: int | bytes) -> bytes:
    if isinstance(raw, int):
        raise ValueError("wrong wire type: expected bytes")
    return raw


def _int(raw: int | bytes) -> int:
    if isinstance(raw, bytes):
        raise ValueError("wrong wire type: expected a number")
    return raw - (1 << 64) if raw >= 1 << 63 else raw


def _time(raw: int | bytes) -> str | None:
    """A Time or MicroTime as JSON shows it; None when it is zero."""
    parts = dict(_wire(_bytes(raw)))
    seconds, nanos = _int(parts.get(1, 0)), _int(parts.get(2, 0))
    if not seconds and not nanos:
        return None
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=nanos // 1000)
    except OverflowError as error:
        raise ValueError("time out of range") from error
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if nanos else "%Y-%m-%dT%H:%M:%SZ")


def _quantity(raw: int | bytes) -> str:
    return _bytes(dict(_wire(_bytes(raw))).get(1, b"")).decode()


def _int_or_string(raw: int | bytes) -> int | str:
    parts = dict(_wire(_bytes(raw)))
    return _bytes(parts.get(3, b"")).decode() if parts.get(1) else _int(parts.get(2, 0))


def _json(raw: int | bytes) -> Any:
    return orjson.loads(_bytes(dict(_wire(_bytes(raw))).get(1, b"")) or b"null")


_SCALARS: dict[str, Callable[[int | bytes], Any]] = {
    "str": lambda raw: _bytes(raw).decode(),
    "bytes": lambda raw: base64.b64encode(_bytes(raw)).decode(),
    "int": _int,
    "bool": lambda raw: bool(_int(raw)),
    "Time": _time,
    "MicroTime": _time,
    "Quantity": _quantity,
    "IntOrString": _int_or_string,
    "FieldsV1": _json,
    "RawExtension": _json,
    "ExtraValue": lambda raw: [_bytes(value).decode() for _, value in _wire(_bytes(raw))],
}
