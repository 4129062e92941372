"""The demo Space of a model as a process of its own: that it starts with what a Space has, and answers."""

import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from asking import asking
from browser import free_port
from demos import NAME, half_clear, make_demo, put_down, started, stored, told
from gradio_client import Client, handle_file
from hub_server import Person, Repo, commit, serve
from page import NAMES
from pictures import picture
from PIL import Image
from transformers import pipeline

from tl_core.runs import Run
from tl_core.settings import Settings

pytestmark = pytest.mark.slow

TOKEN = "hf_may_read_the_leaves"


@dataclass(frozen=True)
class Page:
    """A demo that is served, of a private model at an earlier revision than its newest."""

    address: str
    model: Path
    requests: list[str]
    strangers: socket.socket  # listens where every other computer would be asked for


@pytest.fixture(scope="module")
def page(trained: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder, run = tmp_path_factory.mktemp("space"), Run(trained[0] / "runs" / trained[1])
    report = run.report()
    assert report is not None
    model = {path.name: path.read_bytes() for path in run.model_dir.iterdir()}
    newest = {**model, "config.json": b"{}"}  # which could not be opened
    repo = Repo(newest, private=True, readers=frozenset({TOKEN}), history=[model])
    examples = {"one": stored(picture(0.4, 7, (700, 500))), "two": stored(picture(0.9, 8, (60, 60)))}
    settings = Settings(home=folder)
    put_down(make_demo(report, settings, revision=commit(model), examples=examples), folder)
    with serve({NAME: repo}) as hub, socket.create_server(("127.0.0.1", 0)) as strangers:
        hub.people["hf_of_somebody_else"] = Person("somebody")
        proxy = f"http://127.0.0.1:{strangers.getsockname()[1]}"
        given = {
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": TOKEN,
            **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), proxy),
            "GRADIO_SERVER_PORT": str(free_port()),
        }
        with started(folder, **given) as process:
            said = told(process, folder)
            address = re.search(r"http://127\.0\.0\.1:\d+", said)
            assert address is not None, said
            yield Page(address.group(), run.model_dir, hub.requests, strangers)
        assert "Traceback" not in (folder / "output.txt").read_text(errors="replace")
        assert TOKEN not in (folder / "output.txt").read_text(errors="replace")


@pytest.fixture
def client(page: Page, tmp_path: Path) -> Iterator[Client]:
    with asking(page.address, tmp_path) as client:
        yield client


def test_it_answers_as_transformers_does_with_the_weights_of_its_revision(
    page: Page, client: Client, tmp_path: Path
) -> None:
    picture(0.35, 5, (90, 70)).save(tmp_path / "mine.png")
    answer, words = client.predict(handle_file(tmp_path / "mine.png"), api_name="/ask")
    with Image.open(tmp_path / "mine.png") as image:
        expected = pipeline("image-classification", str(page.model))(image)
    assert [row["label"] for row in answer["confidences"]] == [row["label"] for row in expected]
    for row, theirs in zip(answer["confidences"], expected, strict=True):
        assert row["confidence"] == pytest.approx(theirs["score"], abs=1e-6)
    assert (answer["label"], words) == (expected[0]["label"], "")
    assert len([asked for asked in page.requests if "GET" in asked and asked.endswith("model.safetensors")]) == 1


def test_a_bad_file_gives_a_sentence_and_the_next_one_an_answer(page: Page, client: Client, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    Image.new("1", (11_000, 10_000)).save(tmp_path / "huge.png")  # 110 million pixels in some kilobytes
    for name in ("bad.jpg", "huge.png"):
        answer, words = client.predict(handle_file(tmp_path / name), api_name="/ask")
        assert not answer and words.startswith("This cannot be read as a picture") and str(tmp_path) not in words
    assert client.predict(None, api_name="/ask")[1].startswith("Drop a picture")
    (tmp_path / "good.gif").write_bytes(stored(half_clear("RGBA"), "GIF"))
    answer, words = client.predict(handle_file(tmp_path / "good.gif"), api_name="/ask")
    assert answer["label"] in NAMES and not words


def test_the_page_shows_its_examples_and_asks_nobody_else(page: Page, client: Client) -> None:
    parts = client.config["components"]
    samples = next(part["props"]["samples"] for part in parts if part["type"] == "dataset")
    assert [Path(sample[0]["path"]).name for sample in samples] == ["001.jpg", "002.jpg"]
    image = next(part["props"] for part in parts if part["type"] == "image")
    assert set(image["sources"]) == {"upload", "webcam", "clipboard"}
    assert not image["webcam_options"]["mirror"]
    page.strangers.setblocking(False)
    with pytest.raises(BlockingIOError):
        page.strangers.accept()


def test_a_private_model_without_a_token_ends_the_start_with_a_sentence(
    report: dict[str, Any], settings: Settings, tmp_path: Path
) -> None:
    put_down(make_demo(report, settings), tmp_path)
    with (
        serve({"owner/other": Repo({}, private=True)}) as hub,
        started(tmp_path, HF_ENDPOINT=hub.url, MODEL="owner/other") as process,
    ):
        said = told(process, tmp_path).strip()
        assert process.wait() == 1
    assert said.splitlines()[-1].startswith("error: the model owner/other cannot be opened: ")
    assert "give this Space a secret HF_TOKEN" in said and "Traceback" not in said
