"""A real Chromium for tests of web pages, driven by the DevTools protocol: what a reader sees, hears and presses.

Chromium is the machine's own (``chromium``, ``chromium-browser`` or ``google-chrome`` on the path); tests are skipped
where there is none.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.waiting import eventually, eventually_async

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def found() -> str | None:
    """The browser of this machine."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def chromium(folder: Path) -> Iterator[str]:
    """A running Chromium with a profile of its own in ``folder``; the address of its DevTools."""
    program = found()
    assert program is not None
    command = [
        program, "--headless=new", "--remote-debugging-port=0", f"--user-data-dir={folder}", "--no-first-run",
        "--disable-gpu", "--disable-extensions", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "about:blank",
    ]  # fmt: skip
    if os.geteuid() == 0:
        command.append("--no-sandbox")  # Chromium refuses to run as root with it
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    port_file = folder / "DevToolsActivePort"
    try:
        eventually(lambda: port_file.is_file() and port_file.read_text().count("\n"), 60, about="Chromium's port")
        yield f"http://127.0.0.1:{port_file.read_text().splitlines()[0]}"
    finally:
        process.terminate()
        process.wait(30)


class Page:
    """One tab. ``requests`` are the addresses it asked for, ``complaints`` what its console said and what it threw."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._loaded = False

    async def ask(self, method: str, **parameters: Any) -> Any:
        """One command of the protocol; what comes meanwhile is noted."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json(timeout=60)
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self._note(message.get("method", ""), message.get("params", {}))

    def _note(self, method: str, said: dict[str, Any]) -> None:
        match method:
            case "Network.requestWillBeSent":
                self.requests.append(said["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(str(said["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if said["type"] in ("error", "warning", "assert"):
                self.complaints.append(str(said["args"]))
            case "Log.entryAdded" if said["entry"]["level"] in ("error", "warning"):
                self.complaints.append(said["entry"]["text"])

    async def open(self, address: str) -> None:
        """Go there, and wait until it is loaded."""
        await self.ask("Page.navigate", url=address)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def run(self, script: str) -> Any:
        """The JSON value of an expression of JavaScript."""
        answer = await self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, script: str) -> Any:
        """The first true value of it."""
        return await eventually_async(lambda: self.run(script), about=script)

    async def press(self, *keys: str) -> None:
        """Keys by their names (``Tab``, ``ArrowDown``, ``Enter``, ``/``, ``a``), one after the other."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowUp": 38, "ArrowDown": 40}
        for key in keys:
            text = {"text": "\r"} if key == "Enter" else {"text": key} if len(key) == 1 else {}
            code = codes.get(key, ord(key.upper()) if len(key) == 1 else 0)
            down = "keyDown" if text else "rawKeyDown"
            await self.ask("Input.dispatchKeyEvent", type=down, key=key, windowsVirtualKeyCode=code, **text)
            await self.ask("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    async def look(self, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """The size of the screen and the colours that the system asks for."""
        await self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.ask("Emulation.setEmulatedMedia", features=[scheme])

    async def picture(self, path: Path, *, whole: bool = True) -> bytes:
        """A PNG of the page, also written to ``path``."""
        answer = await self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        found = base64.b64decode(answer["data"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(found)
        return found


@asynccontextmanager
async def tab(devtools: str) -> AsyncIterator[Page]:
    """A new, empty tab."""
    async with aiohttp.ClientSession() as session:
        async with session.put(f"{devtools}/json/new?about:blank") as answer:
            target = json.loads(await answer.text())
        async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            page = Page(socket)
            for domain in ("Page", "Runtime", "Network", "Log"):
                await page.ask(f"{domain}.enable")
            await page.ask("Emulation.setFocusEmulationEnabled", enabled=True)  # a tab in the background has no focus
            yield page
        async with session.get(f"{devtools}/json/close/{target['id']}"):
            pass
