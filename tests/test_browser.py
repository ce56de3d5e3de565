"""Live views where users see them: notebooks in JupyterLab, in a real browser, that follow a Job on a laptop AKS.

test_stored_views.py tests the same views with nbclient and nbconvert, without a browser.
"""

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

from aksgpu import jobs
from aksgpu.cluster import Cluster
from aksgpu.local import Endpoint

pytest_plugins = ["aksgpu.local.testing", "support.laptop_cluster"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
    pytest.mark.skipif(find_spec("jupyterlab") is None, reason="JupyterLab is not installed"),
    pytest.mark.timeout(600),  # a browser and JupyterLab start slowly on a busy machine
]

REPO = Path(__file__).parents[1]
TOKEN = "seen"

JOB = """
import aksgpu
from aksgpu import cluster, jobs
aks = cluster.create(aksgpu.connect(), "library", resource_group="library", location="eastus")
image = "mcr.microsoft.com/azuredocs/samples-tf-mnist-demo:gpu"
job = jobs.submit(aks, name="{name}", image=image, args=["--max_steps", "{steps}"], gpus=1)
job
"""
WAIT = "job.wait();"

TEXT = "document.body.innerText"
OUTPUT = "document.querySelector('.jp-Cell-outputArea')?.innerText ?? ''"
LIVE = "document.querySelector('.aksgpu-view')?.innerText ?? ''"
LIVE_CURVE = "document.querySelector('.aksgpu-view svg')?.getAttribute('aria-label') ?? ''"
CURVE = """
[...document.querySelectorAll('.jp-OutputArea-output img')]
  .map(image => image.complete && image.naturalWidth > 0 ? image.alt : 'not drawn').join('; ')
"""
KERNEL = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status ?? 'none'"
DEAD = re.compile(r"Error displaying widget|model not found|Loading widget", re.IGNORECASE)


class Page:
    """One page of a browser, controlled with the DevTools protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = count(1)

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

    async def command(self, name: str, arguments: str = "{}") -> None:
        """Start a command of JupyterLab, without waiting for its end, because it may open a dialog."""
        await self.value(f"void window.jupyterapp.commands.execute('{name}', {arguments})")

    async def save(self) -> None:
        await self.value("window.jupyterapp.commands.execute('docmanager:save').then(() => 'saved')")

    async def until(self, expression: str, pattern: str, seconds: float = 150) -> str:
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
    """Run a program until the end of the block, and return the text that the pattern's group finds in its output."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    output = ""
    try:
        async with asyncio.timeout(150):
            while not (match := re.search(says, output)):
                line = await process.stderr.readline()
                assert line, f"{command[0]} ended: {output}"
                output += line.decode()
        drain = asyncio.create_task(process.stderr.read())
        yield match[1]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    await drain


@contextlib.asynccontextmanager
async def opened(url: str, folder: Path) -> AsyncIterator[Page]:
    """A page in a headless browser."""
    browser = running(
        str(CHROMIUM),
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,1000"),
        *("--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"),
        "--disable-sync",
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


class Lab:
    """A running JupyterLab and the folder of its notebooks."""

    def __init__(self, folder: Path, port: str) -> None:
        self.folder = folder
        self._url = f"http://127.0.0.1:{port}"
        self._browsers = count(1)

    def write(self, name: str, *cells: str) -> None:
        (self.folder / name).write_text(notebook(*cells))

    @contextlib.asynccontextmanager
    async def opened(self, name: str, *, kernel: bool = True) -> AsyncIterator[Page]:
        """A notebook in a new browser, with a kernel or without one."""
        number = next(self._browsers)
        path = f"/tree/{name}" if kernel else ""
        # JupyterLab reopens the notebooks of a workspace with a kernel, so each browser has its own workspace.
        url = f"{self._url}/lab/workspaces/browser-{number}{path}?token={TOKEN}"
        async with opened(url, self.folder.parent / f"profile-{number}") as page:
            if kernel:
                await page.until(KERNEL, "idle|busy")
            else:
                await page.until("window.jupyterapp ? 'there' : ''", "there")
                await page.value("window.jupyterapp.restored.then(() => 'restored')")
                preference = "{shouldStart: false, canStart: false, autoStartDefault: false}"
                arguments = f"{{path: '{name}', factory: 'Notebook', kernelPreference: {preference}}}"
                await page.command("docmanager:open", arguments)
                await page.until("document.querySelector('.jp-Cell') ? 'there' : ''", "there")
            yield page

    async def stop_kernels(self) -> None:
        headers = {"Authorization": f"token {TOKEN}"}
        async with aiohttp.ClientSession(self._url, headers=headers) as session:
            async with session.get("/api/sessions") as answer:
                sessions = await answer.json()
            for each in sessions:
                async with session.delete(f"/api/sessions/{each['id']}") as answer:
                    assert answer.status == 204


@pytest.fixture
async def lab(aks: Cluster, laptop: Endpoint, tmp_path: Path) -> AsyncIterator[Lab]:
    folder = tmp_path / "notebooks"
    folder.mkdir()
    settings = tmp_path / "settings" / "@jupyterlab"
    for plugin, values in (
        ("notebook-extension/tracker", {"windowingMode": "none"}),  # every cell is in the page
        ("apputils-extension/notification", {"fetchNews": "false", "checkForUpdates": False}),
    ):
        file = settings / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    server = running(
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser"),
        *("--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", f"--IdentityProvider.token={TOKEN}"),
        f"--ServerApp.root_dir={folder}",
        says=r"http://127\.0\.0\.1:(\d+)/lab",
        AKSGPU_HOME=str(laptop.home),
        AKSGPU_PROGRESS="1",
        AKSGPU_TARGET="local",
        CUDA_VISIBLE_DEVICES="",
        JUPYTER_CONFIG_DIR=str(tmp_path / "config"),
        JUPYTER_DATA_DIR=str(tmp_path / "data"),
        JUPYTERLAB_SETTINGS_DIR=str(settings.parent),
        JUPYTERLAB_WORKSPACES_DIR=str(tmp_path / "workspaces"),
    )
    async with server as port:
        yield Lab(folder, port)
    for name in jobs.list(aks)["job"]:  # the next test needs the GPU
        jobs.get(aks, name).delete(timeout=60)


async def assert_readable(page: Page, pattern: str) -> str:
    """Check that the page shows a text, and no widget without a model."""
    await page.until(TEXT, pattern)
    # JupyterLab looks for widgets after it has drawn the notebook. A second pass over the page's tasks allows that.
    await page.value("new Promise(done => requestIdleCallback(() => requestIdleCallback(done)))")
    found = str(await page.value(TEXT))
    assert re.search(pattern, found, re.DOTALL)
    assert not DEAD.search(found), found
    return found


async def test_a_notebook_follows_a_job_and_keeps_its_final_state(lab: Lab) -> None:
    lab.write("view.ipynb", JOB.format(name="seen", steps=500), WAIT)
    async with lab.opened("view.ipynb") as page:
        await page.command("notebook:run-all-cells")
        await page.until(LIVE, r"seen\s+● Running\s+step \d+ of 500.*Accuracy at step")
        await page.until(LIVE_CURVE, r"accuracy \d\d\.\d\d % at step \d+")
        ended = await page.until(OUTPUT, r"seen\s+● Complete.*Accuracy at step 490")
        assert re.search(r"ended\s*\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", ended)
        await page.until(CURVE, r"^accuracy \d\d\.\d\d % at step 490$")
        await page.until(f"({LIVE}) || 'no widget is left'", "^no widget is left$")
        await page.until(KERNEL, "idle")
        await page.save()
    await lab.stop_kernels()
    async with lab.opened("view.ipynb", kernel=False) as page:
        await assert_readable(page, r"seen\s+● Complete.*Accuracy at step 490")
        assert await page.value(KERNEL) == "none"
        await page.until(CURVE, r"^accuracy \d\d\.\d\d % at step 490$")


async def test_an_untrusted_notebook_shows_the_final_state(lab: Lab) -> None:
    name = "04-run-the-workload.ipynb"
    (lab.folder / name).write_bytes((REPO / "notebooks" / name).read_bytes())
    async with lab.opened(name, kernel=False) as page:
        await assert_readable(page, r"samples-tf-mnist-demo\s+● Complete")
        await page.until(CURVE, r"^accuracy 96\.05 % at step 490$")


@pytest.mark.slow
async def test_a_notebook_saved_during_the_run_is_readable(lab: Lab) -> None:
    lab.write("view.ipynb", JOB.format(name="long", steps=1_000_000), WAIT)
    async with lab.opened("view.ipynb") as page:
        await page.command("notebook:run-all-cells")
        await page.until(LIVE, r"step [\d,]+ of 1,000,000")
        await page.until(TEXT, r"job long: Running \(\d+ s since")
        await page.save()
        saved = (lab.folder / "view.ipynb").read_text()
        await page.command("notebook:interrupt-kernel")
        interrupted = await page.until(OUTPUT, "The wait was interrupted")
        assert re.search(r"as of\s*\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", interrupted)
        await page.until(TEXT, r"job long: stopped after \d+ s; last state: Running")
    await lab.stop_kernels()
    for name, kernel in (("no-kernel.ipynb", False), ("new-kernel.ipynb", True)):
        (lab.folder / name).write_text(saved)
        async with lab.opened(name, kernel=kernel) as page:
            found = await assert_readable(page, r"long\s+● Running.*as of\s*\d{4}-\d\d-\d\d")
            assert "This is a copy of a live view" in found
            # The user trusts the notebook: now JupyterLab looks for the widget.
            await page.command("notebook:trust")
            await page.until("document.querySelector('.jp-Dialog') ? 'asked' : ''", "asked")
            await page.value("document.querySelector('.jp-Dialog .jp-mod-accept').click()")
            await page.until("document.querySelectorAll('.jp-OutputArea-child').length + ''", "3")
            await assert_readable(page, r"long\s+● Running.*as of")


@pytest.mark.slow
async def test_a_view_shows_that_its_kernel_has_ended(lab: Lab) -> None:
    lab.write("view.ipynb", JOB.format(name="stale", steps=1_000_000))
    async with lab.opened("view.ipynb") as page:
        await page.command("notebook:run-all-cells")
        await page.until(LIVE, r"step [\d,]+ of 1,000,000")
        assert "Not updated" not in str(await page.value(LIVE))
        await page.value("void window.jupyterapp.shell.currentWidget.sessionContext.restartKernel()")
        await page.until(LIVE, r"Not updated since \d\d:\d\d:\d\d UTC")


@pytest.mark.slow
async def test_a_view_shows_that_its_kernel_hangs_until_it_continues(lab: Lab) -> None:
    hurry = "from aksgpu.views import live_view as views\nviews._STALE_AFTER = 8\n"
    number = "import os\nwritten = open('pid', 'w').write(str(os.getpid()))\n"
    lab.write("view.ipynb", number + hurry + JOB.format(name="hangs", steps=1_000_000))
    async with lab.opened("view.ipynb") as page:
        await page.command("notebook:run-all-cells")
        await page.until(LIVE, r"step [\d,]+ of 1,000,000")
        kernel = int((lab.folder / "pid").read_text())
        os.kill(kernel, signal.SIGSTOP)
        try:
            await page.until(LIVE, r"Not updated since \d\d:\d\d:\d\d UTC")
        finally:
            os.kill(kernel, signal.SIGCONT)
        await page.until(f"({LIVE}).includes('Not updated') ? '' : 'goes on'", "goes on")


@pytest.mark.slow
async def test_selected_text_survives_new_lines(lab: Lab) -> None:
    lab.write("view.ipynb", JOB.format(name="selected", steps=1_000_000))
    async with lab.opened("view.ipynb") as page:
        await page.command("notebook:run-all-cells")
        await page.until(LIVE, r"Accuracy at step 50:")
        first = "[...document.querySelectorAll('.aksgpu-view pre')][0]"
        await page.value(f"getSelection().selectAllChildren({first})")
        selected = await page.value("getSelection().toString()")
        assert "Found device" in selected
        await page.until(LIVE, r"Accuracy at step 300:")
        assert await page.value("getSelection().toString()") == selected


@pytest.mark.slow
async def test_a_reloaded_page_shows_the_final_state(lab: Lab) -> None:
    lab.write("view.ipynb", JOB.format(name="reloaded", steps=1_000_000))
    async with lab.opened("view.ipynb") as page:
        await page.command("notebook:run-all-cells")
        await page.until(LIVE, r"step [\d,]+ of 1,000,000")
        await page.save()
        await page.value("window.reloaded = 'not yet'")
        await page.call("Page.reload")
        await page.until("window.reloaded ?? 'reloaded'", "reloaded")
        await page.until(LIVE, r"step [\d,]+ of 1,000,000")
        kernel = "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel"
        await page.value(f"void {kernel}.requestExecute({{code: 'aksgpu.views.job_view(job).close()'}})")
        await assert_readable(page, "This view was closed.")


@pytest.mark.slow
async def test_the_tutorials_notebook_is_readable_when_it_is_reopened(lab: Lab) -> None:
    name = "04-run-the-workload.ipynb"
    (lab.folder / name).write_bytes((REPO / "notebooks" / name).read_bytes())
    async with lab.opened(name) as page:
        await page.command("notebook:run-all-cells")
        await page.until(LIVE, "Running")
        await page.until("[...document.querySelectorAll('.jp-InputPrompt')].map(e => e.innerText).join()", r"\[6\]")
        await page.until(KERNEL, "idle")
        await page.save()
    await lab.stop_kernels()
    for kernel in (False, True):
        async with lab.opened(name, kernel=kernel) as page:
            await assert_readable(page, r"samples-tf-mnist-demo\s+● Complete")
            await page.until(CURVE, r"^accuracy 96\.05 % at step 490$")
