"""The live view where users see it: a notebook in JupyterLab, in a real browser, that follows a Job on a laptop AKS."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aksgpu.cluster import Cluster
from aksgpu.local import Endpoint

pytest_plugins = ["aksgpu.local.testing", "laptop_cluster"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
    pytest.mark.skipif(find_spec("jupyterlab") is None, reason="JupyterLab is not installed"),
]

CELLS = (
    """
import aksgpu
from aksgpu import cluster, jobs
aks = cluster.create(aksgpu.connect(), "library", resource_group="library", location="eastus")
image = "mcr.microsoft.com/azuredocs/samples-tf-mnist-demo:gpu"
job = jobs.submit(aks, name="seen", image=image, args=["--max_steps", "200"], gpus=1)
""",
    "job",
)
SHOWN = "document.querySelector('.jp-OutputArea-output .widget-vbox')?.innerText ?? ''"
CURVE = "document.querySelector('.jp-OutputArea-output .widget-vbox svg')?.getAttribute('aria-label') ?? ''"
READY = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status ?? ''"


class Page:
    """One page of a browser, spoken to by the DevTools protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._numbers = socket, count(1)

    async def call(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async for message in self._socket:
            answer = json.loads(message.data)
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
        raise AssertionError("the browser is gone")

    async def value(self, expression: str) -> Any:
        answer = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, expression: str, pattern: str, seconds: float = 60) -> str:
        """Wait for a text that matches."""
        found = ""
        try:
            async with asyncio.timeout(seconds):
                while not re.search(pattern, found, re.DOTALL):
                    found = str(await self.value(expression))
                    await asyncio.sleep(0.1)
        except TimeoutError:
            page = await self.value("document.body.innerText")
            raise AssertionError(f"no {pattern!r} but {found!r} on the page:\n{page}") from None
        return found


@contextlib.asynccontextmanager
async def running(*command: str, says: str, **environment: str) -> AsyncIterator[str]:
    """A program until the end of the block; gives what it says of itself in the pattern's group."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    said = ""
    try:
        async with asyncio.timeout(60):
            while not (match := re.search(says, said)):
                line = await process.stderr.readline()
                assert line, f"{command[0]} ended: {said}"
                said += line.decode()
        drain = asyncio.create_task(process.stderr.read())
        yield match[1]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), 20)
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    await drain


@contextlib.asynccontextmanager
async def opened(url: str, folder: Path) -> AsyncIterator[Page]:
    """A page in a browser that nobody sees."""
    browser = running(
        str(CHROMIUM),
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,1000"),
        *("--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"),
        says=r"DevTools listening on ws://(\S+?)/",
    )
    async with browser as address, aiohttp.ClientSession() as session:
        async with session.put(f"http://{address}/json/new?{url}") as answer:
            target = (await answer.json(content_type=None))["webSocketDebuggerUrl"]
        async with session.ws_connect(target, max_msg_size=0) as socket:
            yield Page(socket)


def notebook(*cells: str) -> str:
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    code = [
        {
            "cell_type": "code",
            "id": f"c{number}",
            "metadata": {},
            "outputs": [],
            "execution_count": None,
            "source": cell,
        }
        for number, cell in enumerate(cells)
    ]
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": kernel, "cells": code})


async def test_a_notebook_in_jupyterlab_follows_a_job(aks: Cluster, laptop: Endpoint, tmp_path: Path) -> None:
    (tmp_path / "view.ipynb").write_text(notebook(*CELLS))
    lab = running(
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser"),
        *("--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", "--IdentityProvider.token=seen"),
        f"--ServerApp.root_dir={tmp_path}",
        says=r"http://127\.0\.0\.1:(\d+)/lab",
        AKSGPU_HOME=str(laptop.home),
        JUPYTER_CONFIG_DIR=str(tmp_path / "config"),
        JUPYTERLAB_SETTINGS_DIR=str(tmp_path / "settings"),
    )
    async with lab as port:
        url = f"http://127.0.0.1:{port}/lab/tree/view.ipynb?token=seen"
        async with opened(url, tmp_path / "profile") as page:
            await page.until(READY, "idle")
            await page.value("void window.jupyterapp.commands.execute('notebook:run-all-cells')")
            running_text = await page.until(SHOWN, r"seen\s+Running\s+step \d+ of 200")
            assert "Accuracy at step" in running_text
            ended = await page.until(SHOWN, r"seen\s+Complete", 120)
            assert "Accuracy at step 190" in ended
            assert re.fullmatch(r"accuracy \d\d\.\d\d % at step 190", await page.value(CURVE))
