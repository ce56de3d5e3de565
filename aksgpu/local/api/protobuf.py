"""Decodes request bodies in Kubernetes' protobuf format, which kubectl 1.32 and later sends for some commands.

Responses are always JSON, which every client that sends protobuf accepts. The wire format is generic; the fields of the
served kinds are in ``data/protobuf-1.36.json``, whose README describes the notation.

If Go holds a field by value, protobuf contains it even if it is zero, and JSON does not. If Go holds a field by
pointer, protobuf contains it only if it was set, so an explicit 0, false or {} is kept.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

import orjson

from aksgpu.local import api_data

MAGIC = b"k8s\0"


class _Field(NamedTuple):
    name: str
    type: str
    shape: str
    """``[]`` for a list, ``{}`` for a map, ``<>`` for a message whose fields JSON shows one level up, or empty."""
    pointer: bool


@cache
def _messages() -> dict[str, dict[int, _Field]]:
    messages: dict[str, dict[int, _Field]] = {}
    for message, line in api_data.load("protobuf-1.36.json").items():
        messages[message] = dict(_row(field) for field in line.split(", ") if field)
    return messages


def _row(text: str) -> tuple[int, _Field]:
    """Parse one field of the data file, such as ``3 containers []Container``."""
    number, name, kind = text.split()
    shape = kind[:2] if kind[:2] in ("[]", "{}", "<>") else ""
    pointer = kind.endswith("*")
    return int(number), _Field(name, kind.removeprefix(shape).removesuffix("*"), shape, pointer)


def decode(body: bytes) -> dict[str, Any]:
    """Return the object in a protobuf body.

    Raises:
        ValueError: The bytes are not a protobuf message, or its kind is not served.
    """
    if not body.startswith(MAGIC):
        raise ValueError("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    try:
        envelope = dict(_wire(body[4:]))
        identity = dict(_wire(envelope.get(1, b"")))
        api_version, kind = (identity.get(number, b"").decode() for number in (1, 2))
        if kind not in _messages():
            raise ValueError(f'no kind "{kind}" is registered for version "{api_version}"')
        return {"kind": kind, "apiVersion": api_version, **_message(kind, envelope.get(2, b""))}
    except (TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"wrong wire type or value: {error}") from error


def _varint(data: bytes, offset: int) -> tuple[int, int]:
    """Return the varint at an offset, and the offset after it."""
    result = 0
    shift = 0
    while offset < len(data) and shift < 64:
        byte = data[offset]
        offset += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, offset
        shift += 7
    raise ValueError("unexpected EOF")


def _wire(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield field numbers and raw values: an int for a varint, bytes for everything else."""
    offset = 0
    while offset < len(data):
        key, offset = _varint(data, offset)
        match key & 7:
            case 0:
                value, offset = _varint(data, offset)
                yield key >> 3, value
                continue
            case 2:
                length, offset = _varint(data, offset)
            case 1:
                length = 8
            case 5:
                length = 4
            case wire_type:
                raise ValueError(f"illegal wire type {wire_type}")
        if offset + length > len(data):
            raise ValueError("unexpected EOF")
        yield key >> 3, data[offset : offset + length]
        offset += length


def _message(message: str, data: bytes) -> dict[str, Any]:
    fields = _messages()[message]
    result = dict[str, Any]()
    for number, raw in _wire(data):
        if number not in fields:
            continue
        name, kind, shape, pointer = fields[number]
        if shape == "{}":
            pair = dict(_wire(raw))
            result.setdefault(name, {})[pair.get(1, b"").decode()] = _value(kind, pair.get(2, b""))
        elif shape == "[]":
            result.setdefault(name, []).append(_value(kind, raw))
        elif shape == "<>":
            result.update(_value(kind, raw))
        else:
            value = _value(kind, raw)
            if value or pointer:
                result[name] = value
    return result


def _value(kind: str, raw: Any) -> Any:
    convert = _SCALARS.get(kind)
    return convert(raw) if convert else _message(kind, raw)


def _int(raw: int) -> int:
    return raw - (1 << 64) if raw >= 1 << 63 else raw


def _time(raw: bytes) -> str | None:
    """Return a Time or MicroTime as in JSON, or None if it is zero."""
    parts = dict(_wire(raw))
    seconds = _int(parts.get(1, 0))
    nanos = _int(parts.get(2, 0))
    if not seconds and not nanos:
        return None
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=nanos // 1000)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if nanos else "%Y-%m-%dT%H:%M:%SZ")


def _int_or_string(raw: bytes) -> int | str:
    parts = dict(_wire(raw))
    text: bytes = parts.get(3, b"")
    return text.decode() if parts.get(1) else _int(parts.get(2, 0))


_SCALARS: dict[str, Callable[[Any], Any]] = {
    "str": lambda raw: raw.decode(),
    "bytes": lambda raw: base64.b64encode(raw).decode(),
    "int": _int,
    "bool": bool,
    "Time": _time,
    "MicroTime": _time,
    "Quantity": lambda raw: dict(_wire(raw)).get(1, b"").decode(),
    "IntOrString": _int_or_string,
    "FieldsV1": lambda raw: orjson.loads(dict(_wire(raw)).get(1, b"null")),
}
