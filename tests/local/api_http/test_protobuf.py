"""Protobuf bodies: recorded ones decode to the JSON of the same object, and malformed ones are refused."""

from __future__ import annotations

import random

import pytest
from support import recorded

from aksgpu.local.api import protobuf


def test_recorded_requests() -> None:
    decoded = [
        protobuf.decode(recorded.body_bytes(exchange["request_body"]))
        for exchange in recorded.every_exchange()
        if isinstance(exchange["request_body"], dict)
    ]
    assert {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "w1"}, "data": {"k": "1"}} in decoded
    role = next(obj for obj in decoded if obj["kind"] == "Role")
    assert role["rules"] == [{"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["pods", "pods/log"]}]


def test_protobuf_and_json_responses_are_equal() -> None:
    known = {(o["metadata"]["uid"], o["metadata"]["resourceVersion"]): o for o in recorded.objects()}
    compared = set()
    for exchange in recorded.every_exchange():
        if not isinstance(exchange.get("response_body"), dict):
            continue
        try:
            obj = protobuf.decode(recorded.body_bytes(exchange["response_body"]))
        except ValueError:
            continue
        metadata = obj["metadata"]
        twin = known.get((metadata["uid"], metadata["resourceVersion"]))
        if twin is not None:
            for each in (obj, twin):
                each.get("status", {}).pop("nodeInfo", None)  # Anonymized only in the JSON of the recordings.
            assert recorded.without_empty(obj) == recorded.without_empty(twin)
            compared.add(obj["kind"])
    assert compared >= {"Pod", "Job", "Node"}


def wire(*fields: tuple[int, bytes | int]) -> bytes:
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += bytes([number << 3]) + varint(value)
        else:
            out += bytes([number << 3 | 2]) + varint(len(value)) + value
    return out


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def message(kind: str, body: bytes) -> bytes:
    return protobuf.MAGIC + wire((1, wire((1, b"v1"), (2, kind.encode()))), (2, body))


def test_zero_values_behind_pointers_are_kept() -> None:
    options = protobuf.decode(message("DeleteOptions", wire((1, 0), (3, 0), (4, b"Foreground"))))
    assert options["gracePeriodSeconds"] == 0
    assert options["orphanDependents"] is False
    assert options["propagationPolicy"] == "Foreground"


def test_special_types() -> None:
    limits = wire((1, wire((1, b"nvidia.com/gpu"), (2, wire((1, b"1"))))))
    volume = wire((1, b"data"), (2, wire((2, b""))))
    container = wire((1, b"main"), (8, limits))
    pod = protobuf.decode(message("Pod", wire((1, wire((1, b"p"))), (2, wire((1, volume), (2, container))))))
    assert pod["spec"]["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert pod["spec"]["volumes"] == [{"name": "data", "emptyDir": {}}]
    secret = protobuf.decode(message("Secret", wire((2, wire((1, b"k"), (2, b"\x00\xff"))))))
    assert secret["data"] == {"k": "AP8="}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        protobuf.MAGIC,
        protobuf.MAGIC + b"\xff" * 20,
        message("Widget", b""),
        message("Pod", b"\x0a\xff"),
        message("Pod", wire((1, 5))),
        message("Pod", wire((1, wire((1, b"\xff\xfe"))))),
        message("DeleteOptions", wire((1, b"x"))),
        message("Pod", wire((1, wire((8, wire((1, 1 << 62))))))),
    ],
)
def test_malformed_bodies(body: bytes) -> None:
    with pytest.raises(ValueError):
        protobuf.decode(body)


def test_random_bytes_are_refused_or_decoded() -> None:
    chance = random.Random(7)
    bodies = [
        recorded.body_bytes(e["request_body"]) for e in recorded.every_exchange() if isinstance(e["request_body"], dict)
    ]
    for _ in range(3000):
        body = bytearray(chance.choice(bodies))
        for _ in range(chance.randint(1, 4)):
            body[chance.randrange(4, len(body))] = chance.randrange(256)
        try:
            protobuf.decode(bytes(body[: chance.randint(4, len(body))]))
        except ValueError:
            continue
