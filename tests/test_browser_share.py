"""From a training to a model on the Hub in a real browser: on a Space with its sign-in, and with a token of one's own.

Gradio mocks the sign-in where it is on no real Space: its buttons, cookies and redirects are the real ones.
"""

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from browser import App, Visitor, running_app, running_browser, visit
from hub_server import Hub, Person, Repo, serve
from patience import PATIENCE

pytestmark = pytest.mark.slow

# What Gradio gives to whoever signs in on a mocked Space, and the token of the machine itself, which is not to be used.
SIGNED_IN = "mock-oauth-token-for-local-dev"
MACHINES = "hf_OfTheMachineItself"
PASTED = "hf_PastedIntoTheField"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with serve({}) as hub:
        hub.people[MACHINES] = Person("ada")  # the name that the mocked sign-in shows
        hub.people[SIGNED_IN] = Person("ada", {"garden": "write", "museum": "read"}, role="oauth")
        hub.people[PASTED] = Person("grace")
        yield hub


def of_hub(hub: Hub) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


@pytest.fixture(scope="module")
def space(browser: Any, hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    given = {"SPACE_ID": "space-owner/app", "HF_TOKEN": MACHINES, "OPENID_PROVIDER_URL": hub.url, "TL_KEPT_RUNS": "1"}
    given |= {"OAUTH_CLIENT_ID": "id", "OAUTH_CLIENT_SECRET": "secret", "OAUTH_SCOPES": "openid contribute-repos"}
    with running_app(tmp_path_factory.mktemp("space"), shared=True, more={**of_hub(hub), **given}) as app:
        yield app


@pytest.fixture(scope="module")
def shared(browser: Any, hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    more = {**of_hub(hub), "HF_TOKEN": MACHINES}
    with running_app(tmp_path_factory.mktemp("shared"), shared=True, more=more) as app:
        yield app


def test_who_signs_in_on_a_space_keeps_what_they_made_and_pushes_it(browser: Any, space: App, hub: Hub) -> None:
    hub.repos["garden/leaves"] = Repo({"README.md": b"somebody's"}, made_by=SIGNED_IN)
    with visit(browser, space.address) as visitor:
        visitor.see("#what-is-lost", re.compile("lost when this Space restarts"))
        visitor.see("#duplicate")
        run = visitor.train_shapes("leaves")
        visitor.see("#watch-outcome", "It is done")
        visitor.open_tab("Train")
        visitor.see("#train-allowed", re.compile("When the next one is started, “leaves .* is removed"))
        visitor.open_tab("Share")
        visitor.see("#share-who", "You are not signed in")
        visitor.press("#share-push")
        visitor.see("#share-notice", "You are not signed in")

        leave(visitor, "#share-sign-in")
        visitor.see("#sign-in", "Sign out (ada)")
        visitor.see("#share-who", "You are ada on the Hub")
        visitor.read("#share-run input", re.compile(rf"^leaves \({run}\)"))
        choose_owner(visitor, "garden")
        visitor.page.locator("#share-space input").check()
        visitor.press("#share-push")
        visitor.see("#share-plan", "holds something else already")
        visitor.see("#share-replace")
        visitor.page.locator("#share-private input").check()
        visitor.gone("#share-replace")  # it was said of something else
        visitor.page.locator("#share-private input").uncheck()
        visitor.press("#share-push")
        visitor.see("#share-plan", "holds something else already")
        assert set(hub.repos["garden/leaves"].files) == {"README.md"}
        visitor.press("#share-replace")
        visitor.see("#share-plan", "It is on the Hub")
        links = [each.get_attribute("href") for each in visitor.page.locator("#share-plan a").all()]
        assert links == [f"{hub.url}/garden/leaves", f"{hub.url}/spaces/garden/leaves-demo"]
        visitor.see("#share-went", "garden/leaves")
        visitor.fits("Share")
    assert {"README.md", "model.safetensors", "config.json", "report.json"} <= set(hub.repos["garden/leaves"].files)
    assert {"app.py", "README.md"} <= set(hub.repos["spaces/garden/leaves-demo"].files)
    assert asked_to_write(hub) == {SIGNED_IN}
    is_nowhere(SIGNED_IN, space, MACHINES)


def test_who_is_signed_in_lets_a_training_push_when_it_is_done(browser: Any, space: App, hub: Hub) -> None:
    asked = len(hub.requests)
    with visit(browser, space.address) as visitor:
        visitor.open_tab("Train")
        visitor.see("#when-done-who", "You are not signed in")
        assert not hub.requests[asked:], "nobody is asked for before they have signed in"
        leave(visitor, "#when-done-sign-in", "train")
        visitor.see("#when-done-who", "You are ada on the Hub")
        choose_owner(visitor, "garden", "#when-done-owner")
        visitor.fill("#when-done-name", "later")
        visitor.train_shapes("later")
        visitor.open_tab("Train")
        visitor.press("text=The same in a terminal")
        visitor.see("#train-command", "--push-to garden/later")
        visitor.fits("Train")
        visitor.open_tab("Watch")
        visitor.see("#watch-outcome", "It is done")
        deadline = time.monotonic() + PATIENCE
        while "model.safetensors" not in getattr(hub.repos.get("garden/later"), "files", ()):
            assert time.monotonic() < deadline, "waited in vain for the push"
            time.sleep(0.1)
    assert asked_to_write(hub, asked) == {SIGNED_IN}
    is_nowhere(SIGNED_IN, space, MACHINES)


def test_a_token_that_is_pasted_pushes_and_stays_nowhere(browser: Any, shared: App, hub: Hub) -> None:
    with visit(browser, shared.address, width=390, height=844, scheme="dark") as visitor:
        visitor.train_shapes("at home")
        visitor.see("#watch-outcome", "It is done")
        assert visitor.page.locator("#sign-in, #duplicate, #what-is-lost .tl-notice").count() == 0
        visitor.open_tab("Results")
        visitor.press("#results-share")
        visitor.see("#share-who", "There is no access token")
        visitor.fill("#share-token", PASTED)
        visitor.page.locator("#share-token input").blur()
        visitor.see("#share-who", "You are grace on the Hub")
        visitor.fits("Share")
        visitor.press("#share-look")
        visitor.see("#share-plan", "a new public one")
        can_be_read_in_the_dark(visitor, "#share-plan a")
        visitor.press("#share-card-fold button")
        visitor.see("#share-card h1", "at home")
        visitor.see("#share-card img")
        visitor.fits("Share")
        visitor.press("#share-push")
        visitor.see("#share-plan", "It is on the Hub")
        can_be_read_in_the_dark(visitor, "#share-plan a, #share-went a")
        visitor.read("#share-token input", "")
        kept = visitor.page.evaluate(
            "JSON.stringify([localStorage, sessionStorage, document.documentElement.outerHTML])"
        )
        assert PASTED not in kept
    assert "model.safetensors" in hub.repos["grace/at-home"].files
    is_nowhere(PASTED, shared, MACHINES)


def asked_to_write(hub: Hub, since: int = 0) -> set[str]:
    """The tokens with which the Hub was asked to change something."""
    asked = zip(hub.requests[since:], hub.tokens[since:], strict=True)
    return {token for request, token in asked if re.search("create|commit|preupload", request)}


def leave(visitor: Visitor, selector: str, step: str = "share") -> None:
    """Press what leads to another page, and come back."""
    visitor.leaving = True
    visitor.page.once("framenavigated", lambda _: visitor.arrive())
    visitor.press(selector)
    visitor.page.wait_for_url(re.compile(f"step={step}"))


def can_be_read_in_the_dark(visitor: Visitor, selector: str) -> None:
    """These links are light there, as bright as the middle at least in their brightest part."""
    found = [link.evaluate("link => getComputedStyle(link).color") for link in visitor.page.locator(selector).all()]
    assert found
    assert all(max(map(int, re.findall(r"\d+", colour)[:3])) > 128 for colour in found), found


def choose_owner(visitor: Visitor, name: str, place: str = "#share-owner") -> None:
    visitor.press(f"{place} input")
    visitor.page.get_by_role("option", name=name).click()


def is_nowhere(token: str, app: App, *others: str) -> None:
    """No token lies in a file of the app or in what it has printed."""
    for file in app.home.parent.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not [each for each in (token, *others) if each.encode() in content], file
