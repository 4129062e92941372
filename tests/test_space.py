"""The app as a Space serves it, from exactly the files that `deploy` sends: it listens, says whose machine this is and
what is lost, offers the sign-in, and answers."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from browser import App, running_browser, visit
from hub_server import Hub, serve
from patience import PATIENCE
from pictures import picture
from space_app import SIGN_IN, ask, running_space

from tl_core.settings import SPACE_KEPT_RUNS, SPACE_MAX_IMAGES, SPACE_MAX_RUN_MINUTES

pytestmark = pytest.mark.slow

# What Gradio's own front end asks of others on a Space: typefaces, whether the Space runs, and whose it is.
GRADIOS = {
    "https://fonts.googleapis.com/": "",
    "https://huggingface.co/api/spaces/ada/teach": json.dumps(
        {"id": "ada/teach", "author": "ada", "likes": 0, "runtime": {"stage": "RUNNING"}}
    ),
    "https://huggingface.co/api/users/ada/avatar": json.dumps({"avatarUrl": "data:,"}),
    "https://huggingface.co/api/organizations/ada/avatar": json.dumps({"avatarUrl": "data:,"}),
}
VOLUME = Path("/dev/shm")  # a mounted file system that whoever runs tests may write to


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with serve({}) as hub:
        about = {"issuer": hub.url, "authorization_endpoint": f"{hub.url}/oauth/authorize"}
        hub.bodies["/.well-known/openid-configuration"] = json.dumps(about).encode()
        yield hub


@pytest.fixture(scope="module")
def space(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    with running_space(tmp_path_factory.mktemp("space"), hub.url) as app:
        yield app


def test_it_listens_and_its_page_is_there(space: App) -> None:
    answer = httpx.get(space.address, timeout=PATIENCE)
    assert answer.status_code == 200
    assert "Teach an image classifier" in answer.text


def test_it_answers_a_picture(space: App, tmp_path: Path) -> None:
    picture(0.3, 1, (80, 60)).save(tmp_path / "mine.png")
    assert re.search(r"tl-lead\">[^<]+, \d+\.\d%", ask(space, tmp_path / "mine.png"))


def test_who_signs_in_is_sent_to_the_hub_with_no_more_than_the_card_asks(space: App, hub: Hub) -> None:
    answer = httpx.get(f"{space.address}/login/huggingface", timeout=PATIENCE)
    place = urlsplit(answer.headers["location"])
    asked = {name: values[0] for name, values in parse_qs(place.query).items()}
    assert (answer.status_code, f"{place.scheme}://{place.netloc}{place.path}") == (302, f"{hub.url}/oauth/authorize")
    assert (asked["client_id"], asked["scope"]) == (SIGN_IN["OAUTH_CLIENT_ID"], SIGN_IN["OAUTH_SCOPES"])
    assert asked["redirect_uri"].startswith("https://ada-teach.hf.space/login/callback")
    assert SIGN_IN["OAUTH_CLIENT_SECRET"] not in str(answer.headers) + answer.text


def test_the_page_says_whose_machine_this_is(browser: Any, space: App) -> None:
    with visit(browser, space.address, elsewhere=GRADIOS) as visitor:
        visitor.see("#sign-in", "Sign in with Hugging Face")
        visitor.see("#duplicate", "Duplicate this Space")
        visitor.see("#what-is-lost", re.compile("neither push .* nor download .* is lost when this Space restarts"))
        visitor.see("#huggingface-space-header")
        for button in ("#sign-in", "#duplicate"):
            visitor.page.locator(button).click(trial=True)  # fails where Gradio's bar lies over it
        visitor.open_tab("Train")
        for limit in (
            f"{SPACE_MAX_IMAGES:,} images",
            f"{SPACE_MAX_RUN_MINUTES:,} minutes",
            f"{SPACE_KEPT_RUNS:,} runs",
        ):
            visitor.see("#train-allowed", limit)


def test_with_a_volume_nothing_is_said_to_be_lost(browser: Any, hub: Hub, tmp_path: Path) -> None:
    if not os.path.ismount(VOLUME) or not os.access(VOLUME, os.W_OK):
        pytest.skip(f"{VOLUME} is no file system of its own that can be written to")
    home = Path(tempfile.mkdtemp(dir=VOLUME))
    try:
        with (
            running_space(tmp_path, hub.url, {"TL_HOME": str(home)}) as app,
            visit(browser, app.address, elsewhere=GRADIOS) as visitor,
        ):
            visitor.see("#duplicate", "Duplicate this Space")
            assert visitor.page.locator("#what-is-lost .tl-notice").count() == 0
    finally:
        shutil.rmtree(home)
