"""A page in a real headless Chromium, driven through the DevTools protocol over a pair of pipes."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SWITCHES = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions",
    "--no-first-run", "--disable-background-networking", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip


class Page:
    """One tab. `events`: what the browser said by itself."""

    def __init__(self, to: int, answers: int):
        self.to, self.answers, self.rest = to, answers, b""
        self.events, self.number, self.session = [], 0, None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method, **parameters):
        """The result of a command."""
        self.number += 1
        command = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            command["sessionId"] = self.session
        os.write(self.to, json.dumps(command).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self.number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def _read(self):
        while b"\0" not in self.rest:
            found = os.read(self.answers, 1 << 20)
            assert found, "the browser has ended"
            self.rest += found
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path):
        """Load a file, to its end."""
        self.events.clear()
        self.send("Page.navigate", url=path.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def run(self, script: str):
        """The value of an expression, or of a function's body that returns."""
        if "return " in script:
            script = f"(() => {{ {script} }})()"
        told = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def resize(self, width: int, height: int = 900):
        """As on a screen of this size."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def prefer(self, theme: str, media: str = "screen"):
        """The system's colours, light or dark; media: screen or print."""
        self.send(
            "Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": theme}]
        )

    def press(self, key: str):
        """A key of that name; Tab moves the focus as it does for a person."""
        for kind in ("keyDown", "keyUp"):
            code = {"Tab": 9, "ArrowRight": 39, "Enter": 13}[key]
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def wrong(self) -> list:
        """Errors on the console, exceptions, refused content, and requests beside the page itself."""
        found = []
        for event in self.events:
            told = event.get("params", {})
            if event["method"] == "Runtime.exceptionThrown":
                found.append(told["exceptionDetails"])
            if event["method"] == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
                found.append(told["args"])
            if event["method"] == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
                found.append(told["entry"])
            if event["method"] == "Network.requestWillBeSent" and told.get("type") != "Document":
                url = told["request"]["url"]
                if not url.startswith("data:"):
                    found.append(url)
        return found


@contextlib.contextmanager
def opened():
    """A new browser with one empty page; it has ended, and its files are gone, afterwards."""
    commands, to = os.pipe()
    answers, back = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = _started(profile, commands, back)
        try:
            page = Page(to, answers)
            yield page
            page.session = None
            page.send("Browser.close")
        except BaseException:
            os.kill(process, signal.SIGKILL)
            raise
        finally:
            os.close(to)
            os.close(answers)
            os.waitpid(process, 0)


def _started(profile: str, commands: int, back: int) -> int:
    """The process's number. Chromium reads commands from descriptor 3 and answers on 4."""
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (commands, back)]
    actions = [(os.POSIX_SPAWN_DUP2, end, place) for end, place in zip(high, (3, 4), strict=True)]
    actions += [(os.POSIX_SPAWN_OPEN, place, os.devnull, os.O_RDWR, 0) for place in (0, 1, 2)]
    arguments = [PROGRAM, *SWITCHES, f"--user-data-dir={profile}"]
    process = os.posix_spawn(PROGRAM, arguments, os.environ, file_actions=actions)
    for end in (commands, back, *high):
        os.close(end)
    return process
