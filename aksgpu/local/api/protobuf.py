"""Request bodies in Kubernetes' protobuf, which kubectl 1.32 and later sends for some commands, made into dicts.

Only decoding, and only requests: every client that sends protobuf takes JSON as an answer. The wire format is
generic; the field numbers of the kinds served are data (``data/protobuf-1.33.json``, whose README says how to read it).

A field that Go holds by value is on the wire even when it is zero, and JSON leaves it out; one held by pointer is there
only when it was set, so that an explicit 0, false or {} says something.
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
    """``[]`` of a list, ``{}`` of a map, ``<>`` of a message whose fields JSON shows one level up, or nothing."""
    pointer: bool


@cache
def _messages() -> dict[str, dict[int, _Field]]:
    lines = api_data.load("protobuf-1.33.json").items()
    return {message: dict(map(_row, filter(None, line.split(", ")))) for message, line in lines}


def _row(text: str) -> tuple[int, _Field]:
    number, name, given = text.split()
    shape = given[:2] if given[:2] in ("[]", "{}", "<>") else ""
    return int(number), _Field(name, given.removeprefix(shape).removesuffix("*"), shape, given.endswith("*"))


def decode(body: bytes) -> dict[str, Any]:
    """The object in a protobuf body.

    Raises:
        ValueError: the bytes are not such a message, or its kind is none that can be decoded.
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


def _varint(data: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while at < len(data) and shift < 64:
        result |= (data[at] & 0x7F) << shift
        if data[at] < 0x80:
            return result, at + 1
        at = at + 1
        shift = shift + 7
    raise ValueError("unexpected EOF")


def _wire(data: bytes) -> Iterator[tuple[int, Any]]:
    """Field numbers and raw values: an int of a varint, bytes of everything else."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        match key & 7:
            case 0 | 2 as kind:
                length, at = _varint(data, at)
                if kind == 0:
                    yield key >> 3, length
                    continue
            case 1:
                length = 8
            case 5:
                length = 4
            case kind:
                raise ValueError(f"illegal wire type {kind}")
        if at + length > len(data):
            raise ValueError("unexpected EOF")
        yield key >> 3, data[at : at + length]
        at += length


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
        elif (value := _value(kind, raw)) or pointer:
            result[name] = value
    return result


def _value(kind: str, raw: Any) -> Any:
    convert = _SCALARS.get(kind)
    return convert(raw) if convert else _message(kind, raw)


def _int(raw: int) -> int:
    return raw - (1 << 64) if raw >= 1 << 63 else raw


def _time(raw: bytes) -> str | None:
    """A Time or MicroTime as JSON shows it; None when it is zero."""
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
