"""The page without a browser: `gradio_client` asks a model, brings images, trains and reads the results."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from asking import asking
from browser import App, running_app
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from patience import PATIENCE
from pictures import picture

from tl_core.catalogue import DEFAULT_MODEL

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    with running_app(tmp_path_factory.mktemp("page")) as app:
        yield app


@pytest.fixture
def client(app: App, tmp_path: Path) -> Iterator[Client]:
    with asking(app.address, tmp_path) as client:
        yield client


def test_a_model_answers_and_two_side_by_side(client: Client, tmp_path: Path) -> None:
    picture(0.3, 1, (80, 60)).save(tmp_path / "mine.png")
    image = handle_file(tmp_path / "mine.png")
    answer, second, said = client.predict(DEFAULT_MODEL, DEFAULT_MODEL, image, "", api_name="/ask")
    assert re.search(r"tl-lead\">[^<]+, \d+\.\d%", answer) and not said
    assert second == answer
    *_, said = client.predict("no-such-model", "", image, "", api_name="/ask")
    assert 'role="alert"' in said and "no-such-model" in said and "Traceback" not in said


def test_from_a_sample_to_results(client: Client) -> None:
    draft, *_, said = client.predict("sample:shapes", None, "", api_name="/open_images")
    assert "360 images in 6 classes, 60 each." in said
    options = {"strategy": "frozen", "name": "by a client"}
    plan = client.predict(draft, options, "", api_name="/plan")
    assert "--strategy" in plan["command"] or "sample:shapes" in plan["command"]
    run = client.predict(draft, options, "", api_name="/start")
    told = watched(client, run)
    assert told["state"] == "succeeded" and told["run_id"] == run
    sentence = client.predict(run, "", api_name="/results")
    assert re.search(r"\d+(\.\d)?%", sentence)
    with pytest.raises(AppError, match="no run 'another' of yours"):
        client.predict("another", "", api_name="/watch")
    with pytest.raises(AppError, match="cats"):
        client.predict(draft, {"strategy": "cats"}, "", api_name="/plan")


def watched(client: Client, run: str) -> dict[str, object]:
    """What `watch` says once the run has ended."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        told = client.predict(run, "", api_name="/watch")
        if told["state"] in ("succeeded", "failed", "stopped", "lost"):
            return dict(told)
        time.sleep(0.3)  # between two looks
    raise AssertionError(f"the run has not ended: {told}")
