"""What the tests of the page share: a real `app.py` in a process of its own, and a Chromium that watches what it does.

Without Playwright or Chromium these tests skip and say why; where CI_BROWSER is "required" they fail instead.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest
from patience import PATIENCE

from tl_core.files import read_json
from tl_core.processes import lives

PROJECT = Path(__file__).resolve().parent.parent
HOSTILE = '<img src=x onerror="window.hacked=1">'
# The page's steps, and what is to be seen in each.
STEPS = {
    "Try": "#try-model",
    "Your images": "#data-files",
    "Train": "#train-model",
    "Watch": "#runs-list",
    "Results": "#results-run",
    "Share": "#share-run",
}
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# In a container Chromium has no sandbox and no graphics card; the rest keeps it from calling anybody by itself.
_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]


@dataclass(frozen=True)
class App:
    """A page that is served, with a home folder of its own."""

    address: str
    home: Path
    stderr: Path

    def process_of(self, run_id: str) -> int:
        """The process id of a run's worker, which leads a process group."""
        process = read_json(self.home / "runs" / run_id / "process.json")
        assert process is not None
        return int(process["pid"])


@contextmanager
def running_app(folder: Path, *, shared: bool = False, more: Mapping[str, str] | None = None) -> Iterator[App]:
    """`python app.py`, with `more` in its environment, until the block ends; nothing that it started outlives it, and
    it has printed no traceback."""
    home, stderr = folder / "home", folder / "stderr.txt"
    environment = {
        **os.environ,
        "TL_HOME": str(home),
        "TL_SHARED": "1" if shared else "0",
        "HF_HOME": str(folder / "hf"),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "GRADIO_TEMP_DIR": str(folder / "gradio"),
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        **(more or {}),
    }
    with served(["--port", str(free_port())], PROJECT, environment, home, stderr) as app:
        yield app


@contextmanager
def served(
    arguments: list[str], project: Path, environment: Mapping[str, str], home: Path, stderr: Path
) -> Iterator[App]:
    """`python app.py` of this project or of a copy of it, in nothing but this environment. Else as `running_app`."""
    with stderr.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "app.py", *arguments],
            cwd=project,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    try:
        yield App(_address_told_by(process, stderr), home, stderr)
    finally:
        _end(process, home)
    assert "Traceback" not in stderr.read_text(), stderr.read_text()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _address_told_by(process: subprocess.Popen[str], stderr: Path) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://(127\.0\.0\.1|0\.0\.0\.0):(\d+)", line):
            return f"http://127.0.0.1:{found[2]}"  # an app that listens everywhere listens there too
    raise AssertionError(f"app.py ended before it told its address: {stderr.read_text()}")


def _end(process: subprocess.Popen[str], home: Path) -> None:
    """The page first, so that it starts no next worker; then those it started, and those that they started."""
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    workers = [named for file in home.glob("runs/*/process.json") if lives(named := read_json(file))]
    for member in [*family, *(psutil.Process(named["pid"]) for named in workers)]:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue


@contextmanager
def running_browser() -> Iterator[Any]:
    """Chromium, driven by Playwright. Not for longer than a module: Playwright keeps an event loop running."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _cannot("Playwright is not installed")
    path = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if path is None:
        _cannot(f"no browser is installed, none of {', '.join(_BROWSERS)} is found")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_FLAGS)
        yield browser
        browser.close()


def _cannot(reason: str) -> NoReturn:
    if os.environ.get("CI_BROWSER") == "required":
        pytest.fail(f"{reason}, and CI_BROWSER says that it must be")
    pytest.skip(f"{reason}: the page cannot be looked at")


@dataclass
class Visitor:
    """One person with a browser of their own: a context, so that nothing is shared with others."""

    page: Any
    troubles: list[str] = field(default_factory=list)  # errors in the console, requests to other hosts
    leaving: bool = False

    def leave_for(self, address: str) -> None:
        """Open another address in this browser.

        Gradio closes its own client when a page is left, and what is still open there then calls itself a lost
        connection. What a page says between that and the arrival of the next is therefore not held against it. An
        empty page comes first, for until then a new address that a page gives itself would be taken for an arrival.
        """
        self.leaving = True
        self.page.goto("about:blank")
        self.page.once("framenavigated", lambda _: self.arrive())
        self.page.goto(address)

    def arrive(self) -> None:
        self.leaving = False

    def complain(self, trouble: str) -> None:
        if not self.leaving:
            self.troubles.append(trouble)

    def open_tab(self, name: str) -> None:
        """A step of the way; on a narrow screen it may hide in a menu.

        Which of the two is there changes while the page is being drawn: nothing is asked now and relied on later.
        """
        tab = self.page.get_by_role("tab", name=name, exact=True)
        menu = self.page.locator("#steps .overflow-menu > button")
        hidden = self.page.locator("#steps .overflow-dropdown").get_by_role("button", name=name, exact=True)
        tab.or_(menu).filter(visible=True).first.click()
        self.page.get_by_role("tab", name=name, exact=True, selected=True).or_(hidden).first.wait_for()
        if hidden.is_visible():
            hidden.click()

    def see(self, selector: str, words: str | re.Pattern[str] | None = None) -> Any:
        """Wait until it is there, with these words in it."""
        from playwright.sync_api import expect

        found = self.page.locator(selector).first
        expect(found).to_be_visible(timeout=1000 * PATIENCE)
        if words is not None:
            expect(found).to_contain_text(words, timeout=1000 * PATIENCE)
        return found

    def read(self, selector: str, value: str | re.Pattern[str]) -> None:
        """Wait until a field holds this."""
        from playwright.sync_api import expect

        expect(self.page.locator(selector)).to_have_value(value, timeout=1000 * PATIENCE)

    def gone(self, selector: str) -> None:
        """Wait until it is no longer there."""
        self.page.locator(selector).first.wait_for(state="detached")

    def give(self, place: str, files: Any) -> None:
        """Put files into a component."""
        self.page.set_input_files(f"{place} input[type=file]", files)

    def fill(self, place: str, words: str) -> None:
        """Write into a component after a click, which waits until Gradio has drawn it and written there itself."""
        field = self.page.locator(f"{place} input, {place} textarea")
        field.click()
        field.fill(words)

    def press(self, selector: str) -> None:
        """Click it once it is there and can be clicked."""
        self.page.locator(selector).first.click()

    def await_camera(self) -> None:
        """Wait until its pictures come: before, the button that takes one does nothing."""
        playing = "() => [...document.querySelectorAll('video')].some(each => each.videoWidth && each.currentTime > 0)"
        self.page.wait_for_function(playing)

    def train_shapes(self, name: str) -> str:
        """Start a training on the drawn shapes under this name; the run's id."""
        self.open_tab("Your images")
        self.press("#data-shapes")
        self.see("#findings .tl-bars")
        self.press("#findings-go")
        self.fill("#option-name", name)
        return self.start_training()

    def start_training(self) -> str:
        """From what will happen to a run that is watched; its id, which the address tells."""
        self.press("#train-start")
        self.page.wait_for_url(re.compile(r"[?&]run="))
        self.see("#watch-head h2")
        return self.page.url.partition("run=")[2].partition("&")[0]

    def fits(self, step: str) -> None:
        """Nothing of a step that is open reaches beyond the right edge of the screen."""
        self.see(STEPS[step])
        wide, screen = self.page.evaluate("[document.body.scrollWidth, document.documentElement.clientWidth]")
        assert wide <= screen, f"{step} is {wide} px wide on a screen of {screen} px"

    def was_not_hacked(self) -> None:
        assert self.page.evaluate("window.hacked") is None
        assert self.page.locator("img[src=x]").count() == 0


@contextmanager
def visit(
    browser: Any,
    address: str,
    *,
    width: int = 1280,
    height: int = 900,
    scheme: str = "light",
    shown: str = "#try-model",
    elsewhere: Mapping[str, str] | None = None,
) -> Iterator[Visitor]:
    """Open the page as somebody new; afterwards nothing has gone wrong there, and nobody else was asked anything.

    It is open once `shown` is there: something of the step that the address leads to. `elsewhere` has the beginnings of
    other addresses that may be asked, and what they answer: no such request leaves this machine.
    """
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        permissions=["camera"],
        accept_downloads=True,
    )
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    visitor = Visitor(page)
    own = ("data:", "blob:", "/".join(address.split("/")[:3]), *(elsewhere or {}))
    for beginning, body in (elsewhere or {}).items():
        page.route(f"{beginning}**", partial(_answer, body))

    def note_request(request: Any) -> None:
        if not request.url.startswith(own):
            visitor.troubles.append(f"asked {request.url}")

    def note_message(message: Any) -> None:
        if message.type == "error":
            visitor.complain(f"console: {message.text}")

    page.on("request", note_request)
    page.on("console", note_message)
    page.on("pageerror", lambda error: visitor.complain(f"error: {error}"))
    page.goto(address)
    visitor.see(shown)
    yield visitor
    context.close()
    assert not visitor.troubles, visitor.troubles


def _answer(body: str, route: Any) -> None:
    """In another site's place."""
    route.fulfill(body=body, headers={"Access-Control-Allow-Origin": "*"})
