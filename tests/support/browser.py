"""A real browser: headless Chromium, driven over its own debugging protocol through two pipes.

Owns starting and stopping it, one page at a time, evaluating expressions in that page, and
pictures. No port is opened, no driver is needed, and nothing is left when the context ends.

    with Browser() as browser:
        browser.open("http://127.0.0.1:9464/")
        browser.wait_for("document.querySelectorAll('.model').length === 3")
"""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

PROGRAM = "chromium-headless-shell"
_OPTIONS = [
    "--remote-debugging-pipe",
    "--no-sandbox",  # the tests run as root, and the page is our own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
]
# Far longer than anything takes on a loaded machine.
SECONDS = 120


class BrowserError(AssertionError):
    """The browser did not do, or the page did not become, what was asked for."""


class Browser:
    """One browser with one page; ``messages`` is all that the page's console and policies said."""

    def __init__(self):
        self.messages = []
        self._ids = itertools.count(1)
        self._session = None
        self._rest = b""

    def __enter__(self):
        self._profile = tempfile.mkdtemp(prefix="modelpack-browser-")
        commands, self._to = os.pipe()
        self._from, answers = os.pipe()
        # The protocol's pipes are descriptors 3 and 4.
        start = f'exec "$0" "$@" 3<&{commands} 4>&{answers}'
        self._process = subprocess.Popen(
            ["bash", "-c", start, PROGRAM, *_OPTIONS, f"--user-data-dir={self._profile}"],
            pass_fds=(commands, answers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
            self._session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log"):
                self.call(f"{domain}.enable")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_):
        self._session = None
        try:
            self.call("Browser.close")
        except BrowserError:
            self._process.kill()
        self._end()

    def _end(self):
        os.close(self._to)
        os.close(self._from)
        try:
            self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)

    def call(self, method, **parameters):
        """Send one command and return its result; events that come first are noted."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + SECONDS
        while True:
            answer = self._read(deadline)
            if answer.get("id") == number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._note(answer)

    def _read(self, deadline):
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], max(0, deadline - time.monotonic()))
            data = os.read(self._from, 1 << 16) if ready else b""
            if not data:
                raise BrowserError("the browser does not answer any more")
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _note(self, event):
        details = event.get("params", {})
        if event.get("method") == "Log.entryAdded":
            self.messages.append(details["entry"]["text"])
        elif event.get("method") == "Runtime.exceptionThrown":
            described = details["exceptionDetails"]
            self.messages.append(described.get("exception", {}).get("description", "exception"))
        elif event.get("method") == "Runtime.consoleAPICalled":
            self.messages.append(" ".join(str(arg.get("value")) for arg in details["args"]))

    def open(self, url):
        """Go to an address and wait until the document is there."""
        result = self.call("Page.navigate", url=url)
        if result.get("errorText"):
            raise BrowserError(f"{url}: {result['errorText']}")
        self.wait_for("document.readyState === 'complete'")

    def evaluate(self, expression):
        """Return the value of a JavaScript expression, which may be a promise."""
        result = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in result:
            raise BrowserError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait_for(self, expression):
        """Wait until an expression is true, and fail with what the page shows if it never is."""
        deadline = time.monotonic() + SECONDS
        while not self.evaluate(expression):
            if time.monotonic() > deadline:
                shown = self.evaluate("document.body.innerText")
                raise BrowserError(f"never true: {expression}\n{shown}\n{self.messages}")
            time.sleep(0.05)

    def look(self, *, width=1120, height=900, scale=1.0, scheme="light", **features):
        """Set the window's size, and whether the user likes light or dark, motion, and so on."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=False,
        )
        media = {"prefers-color-scheme": scheme}
        media |= {name.replace("_", "-"): value for name, value in features.items()}
        self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": name, "value": value} for name, value in media.items()],
        )

    def press(self, key):
        """Press and release a key, such as ``Tab``."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def picture(self, path=None):
        """Return a PNG of the whole page, and write it to a file if one is named."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        area = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=area)
        image = base64.b64decode(shot["data"])
        if path is not None:
            path.write_bytes(image)
        return image
