"""A page in headless Chromium, from the distribution, driven by its DevTools protocol: opened, clicked, read and photographed."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGTERM
from typing import TYPE_CHECKING, Any

from tests.services.servers import running, wait_until

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

NO_CHROMIUM = (
    "NOT PHOTOGRAPHED: Chromium is not installed (apt-get install chromium); neither chromium nor chromium-browser is on the PATH"
)
PATIENCE = 90.0
"""Seconds that a page has to show something; a single-page app on a busy machine takes tens of them."""
COLOURS = 128
"""Of a kept picture: a page of text and few colours is a third as large with them as with all."""


def chromium() -> str | None:
    """The program; None where it is not installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@dataclass
class Page:
    """One page. Every wait ends in an AssertionError that has the text which the page shows instead."""

    socket: ClientConnection
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the DevTools protocol, with its answer."""
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while (answer := json.loads(self.socket.recv(timeout=PATIENCE))).get("id") != number:
            pass  # an event
        assert "error" not in answer, answer["error"]
        return dict(answer["result"])

    def script(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def open(self, url: str, *shown: str, width: int = 1400, height: int = 900) -> None:
        """Load a page, as wide and high as said in pixels, and wait for texts that it shows."""
        self.size(width, height)
        self.call("Page.navigate", url=url)
        self.wait_for(*shown)

    def size(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)

    def text(self) -> str:
        """What a reader sees, white space as single spaces."""
        return " ".join(str(self.script("document.body ? document.body.innerText : ''")).split())

    def wait_for(self, *shown: str) -> None:
        end = time.monotonic() + PATIENCE
        while missing := [one for one in shown if one not in self.text()]:
            assert time.monotonic() < end, f"{missing} is not shown; the page says: {self.text()[:3000]}"
            time.sleep(0.3)

    def click(self, label: str, *shown: str) -> None:
        """Click on the innermost visible element whose text this is, as soon as it is there, and wait for texts that follow."""
        found = f"""(() => {{
            const all = [...document.body.querySelectorAll('*')].reverse();
            const one = all.find(each => each.innerText?.trim() === {json.dumps(label)} && each.getClientRects().length);
            one?.scrollIntoView({{block: 'center'}});
            one?.click();
            return Boolean(one);
        }})()"""
        end = time.monotonic() + PATIENCE
        while not self.script(found):
            assert time.monotonic() < end, f"nothing reads {label!r}: {self.text()[:3000]}"
            time.sleep(0.3)
        self.wait_for(*shown)

    def fill(self, label: str, text: str) -> None:
        """Type a text into the first field after a label."""
        self._after(label, "input:not([type=checkbox]), textarea", "each.focus()")
        self.call("Input.insertText", text=text)

    def switch(self, label: str) -> None:
        """Turn the first switch after a label."""
        self._after(label, "input[type=checkbox], [role=switch]", "each.click()")

    def _after(self, label: str, fields: str, action: str) -> None:
        done = f"""(() => {{
            const all = [...document.body.querySelectorAll('*')];
            const place = all.findLastIndex(each => each.innerText?.trim() === {json.dumps(label)} && each.getClientRects().length);
            const each = place < 0 ? null : all.slice(place).find(one => one.matches({json.dumps(fields)}));
            if (each) {action};
            return Boolean(each);
        }})()"""
        assert self.script(done), f"no field after {label!r}: {self.text()[:3000]}"

    def picture(self, path: Path, settle: float = 1.5) -> None:
        """Photograph what the window shows into a PNG of few colours. settle: seconds for animations to end."""
        import base64

        from PIL import Image

        time.sleep(settle)
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        with Image.open(io.BytesIO(data)) as image:
            assert len(image.convert("RGB").getcolors(2**24) or ()) > 8, f"{path.name} is an empty page"
            image.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)


@contextmanager
def browser() -> Iterator[Page]:
    """Chromium with one page while the block runs; it keeps nothing."""
    from websockets.sync.client import connect

    program = chromium()
    assert program, NO_CHROMIUM
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as place:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--disable-dev-shm-usage"]
        command = [program, *options, "--remote-debugging-port=0", f"--user-data-dir={place}", "about:blank"]
        about, log = Path(place) / "DevToolsActivePort", Path(place) / "log"
        with running(command, log, SIGTERM) as process:
            wait_until(lambda: about.exists() and bool(about.read_text()), process, log)
            port = about.read_text().split()[0]
            request = urllib.request.Request(f"http://127.0.0.1:{port}/json/new?about:blank", method="PUT")
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                address = json.load(answer)["webSocketDebuggerUrl"]
            with connect(address, max_size=2**27) as socket:
                page = Page(socket)
                page.call("Page.enable")
                yield page
