"""Read a list in pages. A thread reads the next page while the page before it is decoded.

A page has the token of the next one in its metadata. A kube-apiserver writes the metadata of most lists before the
items, so the token can be read before the page is decoded. If the metadata is elsewhere, as in a list of custom
resources, the next page is requested after the decoding.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Self

from aksgpu.common.kubernetes_objects import Object
from aksgpu.kube import retry_policy
from aksgpu.kube.decoding import decode
from aksgpu.kube.response_checks import checked_list, decoded
from aksgpu.kube.transport import Stream

__all__ = ["ListPages", "early_token"]

LONGEST_HEAD = 8192
"""Bytes at the beginning of a page in which its token is looked for."""


class ListPages:
    """Reads the pages of one list.

    A context manager. A page that was requested and is not needed is given up at the end: its thread ends when it has
    received something or when its request times out, and closes the connection.

    Args:
        open: sends the request for a page, given its token; None means the first page.
        request: the method and path, for errors.
    """

    def __init__(self, open: Callable[[str | None], Stream], request: str) -> None:
        self._open = open
        self._request = request
        self._context = contextvars.copy_context()  # with the caller's deadline, but without that of one page
        self._ahead: _PageAhead | None = None

    def read(self, token: str | None) -> Object:
        """Return a page, and begin to read the page after it.

        Args:
            token: ``continue`` of the page before; None for the first page.

        Raises:
            Expired: the server no longer keeps the list's version.
            KubernetesError: as for every request, also if the page was requested before.
        """
        return retry_policy.call(lambda lost: self._attempt(token), self._request)

    def _attempt(self, token: str | None) -> Object:
        content = self._content(token)
        following = early_token(content)
        if following is not None:
            # If the process may start no thread, the page is read when it is needed.
            with contextlib.suppress(RuntimeError):
                self._ahead = _PageAhead(self._open, following, self._context.copy())
        return checked_list(decoded(content, self._request), self._request)

    def _content(self, token: str | None) -> bytes:
        """Return the body of a page: the one that was read ahead if it is this page."""
        ahead = self._ahead
        self._ahead = None
        if ahead is not None:
            if ahead.token == token:
                return ahead.content()
            ahead.give_up()
        with self._open(token) as stream:
            return stream.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._ahead is not None:
            self._ahead.give_up()


class _PageAhead:
    """A page that a thread reads.

    Args:
        open: sends the request.
        token: the page's token.
        context: for the thread.
    """

    def __init__(self, open: Callable[[str | None], Stream], token: str, context: contextvars.Context) -> None:
        self.token = token
        self._open = open
        self._content: Future[bytes] = Future()
        self._given_up = threading.Event()
        threading.Thread(target=context.run, args=(self._run,), name="aksgpu-next-page", daemon=True).start()

    def content(self) -> bytes:
        """Wait for the body and return it, or raise the error of the request."""
        return self._content.result()

    def give_up(self) -> None:
        """Let the thread end early."""
        self._given_up.set()

    def _run(self) -> None:
        try:
            with retry_policy.default_deadline(), self._open(self.token) as stream:
                content = b"".join(self._blocks(stream))
        except BaseException as failed:
            self._content.set_exception(failed)
        else:
            self._content.set_result(content)

    def _blocks(self, stream: Stream) -> Iterator[bytes]:
        for block in stream:
            if self._given_up.is_set():
                return
            yield block


def early_token(content: bytes) -> str | None:
    """Return the token of the next page if the metadata of a page comes before its items, or else None."""
    head, items, _ = content[:LONGEST_HEAD].partition(b'"items"')
    if not items:
        return None
    try:
        start = decode(head.rstrip().removesuffix(b",") + b"}")
    except ValueError:  # the first "items" belongs to something within the list
        return None
    metadata = start.get("metadata")
    token = metadata.get("continue") if isinstance(metadata, dict) else None
    return token if token and isinstance(token, str) else None
