"""A TLS socket that one thread reads while another writes."""

from __future__ import annotations

import random
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import trustme

from aksgpu.kube.locked_socket import LockedSocket

ROUNDS = 300


def echo(server: ssl.SSLContext, connection: socket.socket) -> None:
    """Send back what arrives."""
    with server.wrap_socket(connection, server_side=True) as peer:
        while data := peer.recv(16384):
            peer.sendall(data)


@pytest.fixture
def connected() -> Iterator[ssl.SSLSocket]:
    """A connection to a server that sends back what it receives."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    own, other = socket.socketpair()
    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(echo, context, other)
        with client.wrap_socket(own, server_hostname="127.0.0.1") as connection:
            yield connection
            connection.shutdown(socket.SHUT_RDWR)
        serving.exception(60)


def test_small_messages_in_both_directions_at_once(connected: ssl.SSLSocket) -> None:
    connection = LockedSocket(connected)
    connection.settimeout(60)
    chooser = random.Random(3)
    sent = [chooser.randbytes(chooser.randint(1, 2000)) for _ in range(ROUNDS)]

    def send() -> None:
        for data in sent:
            position = 0
            while position < len(data):
                position += connection.send(data[position:])

    sender = threading.Thread(target=send)
    sender.start()
    expected = b"".join(sent)
    received = b""
    while len(received) < len(expected):
        received += connection.recv(1000)
    sender.join()
    assert received == expected


def test_a_wait_ends_in_time_and_the_other_thread_is_not_kept_waiting(connected: ssl.SSLSocket) -> None:
    connection = LockedSocket(connected)
    connection.settimeout(0.2)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        connection.recv(1)
    assert time.monotonic() - began >= 0.2
    connection.settimeout(None)
    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(connection.recv, 10)
        assert connection.send(b"hello") == 5
        assert received.result(60) == b"hello"


def test_a_send_may_wait_longer_than_a_read(connected: ssl.SSLSocket) -> None:
    connection = LockedSocket(connected)
    connection.settimeout(0.1)
    connection.set_send_timeout(60)
    data = bytes(50_000_000)  # the server stops reading when nobody reads what it sends back
    sent = 0

    def send() -> None:
        nonlocal sent
        while sent < len(data):
            sent += connection.send(data[sent : sent + 65536])

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send)
        before = -1
        while sent == 0 or sent != before:
            before = sent
            time.sleep(0.5)
        assert 0 < sent < len(data), "the sender waits"
        connection.settimeout(60)
        received = 0
        while received < len(data):
            received += len(connection.recv(65536))
        sending.result(60)


def test_without_a_timeout_a_read_does_not_wait(connected: ssl.SSLSocket) -> None:
    connection = LockedSocket(connected)
    connection.settimeout(0)
    with pytest.raises(ssl.SSLWantReadError):
        connection.recv(1)


def test_a_socket_that_is_shut_down_ends_a_read(connected: ssl.SSLSocket) -> None:
    connection = LockedSocket(connected)
    connection.settimeout(60)
    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(connection.recv, 10)
        connection.shutdown(socket.SHUT_RDWR)
        assert received.exception(60) is not None or received.result() == b""


def test_a_read_after_the_shutdown_does_not_return_encrypted_bytes(connected: ssl.SSLSocket) -> None:
    connection = LockedSocket(connected)
    connection.settimeout(60)
    assert connection.send(b"hello") == 5
    assert select.select([connected], [], [], 60)[0], "the server sent nothing"
    connection.shutdown(socket.SHUT_RDWR)
    received = b""
    while data := connection.recv(10):
        received += data
    assert received in (b"", b"hello")
