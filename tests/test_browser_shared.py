"""The page that several people use: each sees their own runs only, whatever way they ask; folders stay closed."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from browser import App, running_app, running_browser, visit
from patience import PATIENCE

from tl_core.ui.session import MAKE_TOKEN

pytestmark = pytest.mark.slow

# A browser that was recognised, and has no run.
STRANGER = "s" * 43
# Handlers that are given a run: how their other values are filled in.
OF_A_RUN: dict[str, Any] = {
    "watch": lambda run: [run, STRANGER],
    "results": lambda run: [run, STRANGER],
    "stop_run": lambda run: [run, "", STRANGER],
    "download": lambda run: [run, STRANGER],
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def app(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    with running_app(tmp_path_factory.mktemp("page"), shared=True) as app:
        yield app


def test_two_browsers_see_their_own_runs_only_and_so_does_a_raw_call(browser: Any, app: App) -> None:
    with visit(browser, app.address) as one, visit(browser, app.address) as other:
        runs = [one.train_shapes("first of mine"), other.train_shapes("second of another")]
        assert runs[0] != runs[1]
        one.see("#runs-list", "first of mine")
        other.see("#runs-list", "second of another")
        other.see("#watch-head .tl-state", re.compile("queue|starting|running|succeeded"))
        assert "second of another" not in one.page.locator("main").inner_text()
        assert "first of mine" not in other.page.locator("main").inner_text()

        other.leave_for(f"{app.address}/?run={runs[0]}")
        other.see("[role=alert]", f"There is no run '{runs[0]}' of yours.")
        assert not other.page.locator("#watch-head").is_visible()
        assert "first of mine" not in other.page.locator("main").inner_text()

        for name, values in OF_A_RUN.items():
            for ask in (call, run_at_once):
                theirs = [ask(app, name, values(run)).replace(run, "RUN") for run in runs]
                unknown = ask(app, name, values("no-such-run")).replace("no-such-run", "RUN")
                assert theirs == [unknown, unknown]
                assert re.search(r"no run (&#x27;|')RUN(&#x27;|') of yours", unknown)
        one.see("#watch-outcome", "It is done")  # nobody else has stopped it


def test_who_presses_before_the_server_has_answered_is_somebody_already(browser: Any, app: App) -> None:
    pressed, held = [], []

    def hold(route: Any) -> None:
        """Everything that the page asks by itself, until a button was pressed."""
        if "Drawn shapes" in (asked := route.request.post_data or ""):
            pressed.append(asked)
        if pressed:
            route.continue_()
        else:
            held.append(route)

    with visit(browser, app.address) as visitor:
        visitor.leave_for(f"{app.address}/gradio_api/app_id")  # the same site, and nothing that asks or stores
        visitor.page.evaluate("localStorage.clear()")
        visitor.page.route(re.compile("/(run/predict|queue/join)"), hold)
        first = f'"fn_index":{follows_the_token(app)},'
        with visitor.page.expect_request(lambda request: first in (request.post_data or "")):
            visitor.leave_for(app.address)
        visitor.open_tab("Your images")
        visitor.press("#data-shapes")
        visitor.see("#findings .tl-bars")
        assert held
        for route in held:
            route.continue_()
        assert (token := token_in(pressed[0])) is not None

        visitor.page.unroute_all(behavior="wait")
        visitor.leave_for(app.address)
        visitor.open_tab("Your images")
        with visitor.page.expect_request(lambda request: "Drawn shapes" in (request.post_data or "")) as again:
            visitor.press("#data-shapes")
        assert token_in(again.value.post_data) == token
        assert visitor.page.evaluate(MAKE_TOKEN, token) == token
        assert token_in(json.dumps(visitor.page.evaluate(MAKE_TOKEN, "guessable"))) not in (None, token)


def follows_the_token(app: App) -> int:
    """Gradio's number for the first thing that the page asks once it has its token."""
    events = httpx.get(f"{app.address}/config", timeout=PATIENCE).json()["dependencies"]
    (drawn,) = [each["id"] for each in events if any(kind == "load" for _, kind in each["targets"])]
    (first,) = [each["id"] for each in events if each["trigger_after"] == drawn]
    return int(first)


def token_in(asked: str | None) -> str | None:
    found = re.search(r'"([\w-]{43})"', asked or "")
    return found and found[1]


def test_folders_are_neither_data_nor_models(app: App) -> None:
    for folder in (str(app.home), "/etc", "../runs", "~"):
        told = call(app, "open_images", [folder, None, STRANGER])
        assert "cannot be used here" in told and "root" not in told.replace(folder, "")
    draft = re.search(r'"(draft-[^"]+)"', call(app, "open_images", ["sample:shapes", None, STRANGER]))
    assert draft is not None
    for folder in (str(app.home), "/etc", "../runs"):
        for name in ("plan", "start"):
            assert "cannot be used here" in call(app, name, [draft[1], {"model": folder}, STRANGER])
    # Somebody who was not recognised, and the images of somebody else.
    assert "not been recognised" in call(app, "open_images", ["sample:shapes", None, ""])
    assert "RUN" not in call(app, "start", [draft[1], {}, "t" * 43])


def call(app: App, name: str, values: list[Any]) -> str:
    """The last event that an endpoint tells a client."""
    address = f"{app.address}/gradio_api/call/{name}"
    event = httpx.post(address, json={"data": values}, timeout=PATIENCE).json()["event_id"]
    return httpx.get(f"{address}/{event}", timeout=PATIENCE).text


def run_at_once(app: App, name: str, values: list[Any]) -> str:
    """What an endpoint answers without the queue, but for how long that took."""
    answer = httpx.post(f"{app.address}/gradio_api/run/{name}", json={"data": values}, timeout=PATIENCE).json()
    return str({key: value for key, value in answer.items() if "duration" not in key})
