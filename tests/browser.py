"""Chromium or Chrome without a window, driven through its DevTools protocol over a pair of pipes."""

from __future__ import annotations

import base64
import io
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--no-first-run",
    "--remote-debugging-pipe",
)


class Browser:
    """One page of a browser, cut off from the network unless a server's pages are looked at.

    Attributes:
        messages: what the page wrote to the console, and its uncaught errors.
        requests: addresses that the page asked for.
    """

    def __init__(self, profile: Path, width: int, height: int = 1000, timeout: float = 120, offline: bool = True) -> None:
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.timeout = timeout
        self.number = 0
        self.received = b""
        commands, self.commands = os.pipe()
        self.answers, answers = os.pipe()
        # The browser reads commands from 3 and answers on 4.
        words = [BROWSER, *FLAGS, f"--user-data-dir={profile}"]
        shell = f'exec "$@" 3<&{commands} 4>&{answers}'
        self.process = subprocess.Popen(
            ["bash", "-c", shell, "bash", *words],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        if offline:
            self.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.terminate()
        self.process.wait(30)
        os.close(self.commands)
        os.close(self.answers)

    def open(self, page: Path) -> None:
        """Open a file, and wait until it is loaded."""
        self.call("Page.navigate", url=page.as_uri())
        self.wait_for("document.readyState === 'complete' && location.protocol === 'file:'")

    def choose_files(self, selector: str, files: Sequence[Path]) -> None:
        """Choose files in the first input that a selector finds."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def click(self, selector: str, text: str, count: int = 1) -> None:
        """Click, once or twice, into the last element that a selector finds and whose text is the given one, once there is one."""
        found = f"[...document.querySelectorAll({selector!r})].filter(e => e.textContent.trim() === {text!r} && e.offsetWidth)"
        self.wait_for(f"{found}.length > 0")
        x, y = self.run(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({found}.at(-1).getBoundingClientRect())")
        for number in range(1, count + 1):
            for kind in ("mousePressed", "mouseReleased"):
                self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=number)

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page; of a promise, what it becomes."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait until an expression in the page is true."""
        end = time.monotonic() + self.timeout
        while not self.run(condition):
            assert time.monotonic() < end, f"not true within {self.timeout} s: {condition}; {self.messages}"
            time.sleep(0.1)

    def screenshot(self, selector: str | None = None) -> Image.Image:
        """Return what is seen of the first element that a selector finds, or of the whole page."""
        if not selector:
            box = self.run("[0, 0, innerWidth, document.documentElement.scrollHeight]")
        else:
            element = f"document.querySelector({selector!r})"
            self.run(f"{element}.scrollIntoView({{block: 'center'}})")
            box = self.run(f"(r => [r.x + scrollX, r.y + scrollY, r.width, r.height])({element}.getBoundingClientRect())")
        clip = dict(zip(("x", "y", "width", "height"), box, strict=True)) | {"scale": 1}
        data = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=not selector)["data"]
        return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its answer; note what the page reports meanwhile."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            self._note(answer)
            if answer.get("id") == self.number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        """Return the next message of the browser."""
        while b"\0" not in self.received:
            assert select.select([self.answers], [], [], self.timeout)[0], f"the browser says nothing for {self.timeout} s"
            part = os.read(self.answers, 1 << 20)
            assert part, "the browser has ended"
            self.received += part
        first, _, self.received = self.received.partition(b"\0")
        return json.loads(first)

    def _note(self, message: dict[str, Any]) -> None:
        """Keep what the page wrote to the console, what went wrong in it, and what it asked for."""
        method, parameters = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning"):
            self.messages.append(" ".join(str(part.get("value", part.get("description"))) for part in parameters["args"]))
        elif method == "Runtime.exceptionThrown":
            self.messages.append(json.dumps(parameters["exceptionDetails"])[:1000])
        elif method == "Log.entryAdded":
            self.messages.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")
