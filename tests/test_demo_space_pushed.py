"""The demo as a push has left it on the Hub: it starts with its own requirements alone, and answers, the camera too."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from asking import asking
from browser import free_port, running_browser, visit
from demos import put_down, started, told
from gradio_client import handle_file
from hub_server import Person, serve
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from page import NAMES
from pictures import picture
from PIL import Image
from transformers import pipeline

from tl_core.runs import Run
from tl_core.settings import read_settings
from tl_core.sharing import push_run

pytestmark = pytest.mark.slow

TOKEN = "hf_may_write_the_leaves"
NAME = "owner/leaves"


@dataclass(frozen=True)
class Demo:
    """A demo that is served, and the model that was pushed with it."""

    address: str
    model: Path
    lacking: frozenset[str]


@pytest.fixture(scope="module")
def demo(trained: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder, run = tmp_path_factory.mktemp("pushed"), Run(trained[0] / "runs" / trained[1])
    with serve({}) as hub, pytest.MonkeyPatch.context() as patch:
        hub.people[TOKEN] = Person("owner")
        for name, value in {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "ours"), "TL_HOME": str(folder)}.items():
            patch.setenv(name, value)
        push_run(run, NAME, TOKEN, read_settings(), space=True)
        (run.dir / "published.json").unlink()  # others have this run too
        put_down(hub.repos[f"spaces/{NAME}-demo"].files, folder)
        lacking = frozenset(all_but((folder / "requirements.txt").read_text()))
        given = {"HF_ENDPOINT": hub.url, "GRADIO_SERVER_PORT": str(free_port())}
        with started(folder, lacking=lacking, **given) as process:
            said = told(process, folder)
            address = re.search(r"http://127\.0\.0\.1:\d+", said)
            assert address is not None, said
            yield Demo(address.group(), run.model_dir, lacking)
        assert "Traceback" not in (folder / "output.txt").read_text(errors="replace")


def all_but(text: str) -> set[str]:
    """The packages that are installed here, but for those that `text` requires and what these do, as is imported."""
    asked = [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]
    needed = closure(asked)
    return {
        name
        for name, owners in packages_distributions().items()
        if not needed & {canonicalize_name(owner) for owner in owners}
    }


def closure(asked: Iterable[Requirement]) -> set[str]:
    """Names of distributions, with all that they require on this machine."""
    found: set[tuple[str, str]] = set()
    open_ends = [(required.name, extra) for required in asked for extra in (*required.extras, "")]
    while open_ends:
        name, extra = open_ends.pop()
        if (canonicalize_name(name), extra) in found:
            continue
        found.add((canonicalize_name(name), extra))
        try:
            lines = requires(name) or []
        except PackageNotFoundError:  # for another machine, or not asked for here
            continue
        for required in map(Requirement, lines):
            if required.marker is None or required.marker.evaluate({"extra": extra}):
                open_ends += [(required.name, each) for each in (*required.extras, "")]
    return {name for name, _ in found}


def test_it_answers_with_its_own_requirements_alone(demo: Demo, tmp_path: Path) -> None:
    assert {"timm", "torchvision", "datasets", "sklearn"} <= demo.lacking
    picture(0.35, 5, (90, 70)).save(tmp_path / "mine.png")
    with asking(demo.address, tmp_path) as client:
        answer, words = client.predict(handle_file(tmp_path / "mine.png"), api_name="/ask")
    with Image.open(tmp_path / "mine.png") as image:
        expected = {row["label"]: row["score"] for row in pipeline("image-classification", str(demo.model))(image)}
    assert not words
    assert {row["label"]: row["confidence"] for row in answer["confidences"]} == pytest.approx(expected, abs=1e-5)


def test_a_picture_of_the_camera_is_answered(demo: Demo) -> None:
    with running_browser() as browser, visit(browser, demo.address, shown=".intro h1") as visitor:
        visitor.see(".intro", re.compile("Models tagged tl_core on the Hub"))
        visitor.press("button[aria-label='Capture from camera']")
        visitor.press("button:has-text('Access Webcam'), .access-webcam-button")
        visitor.await_camera()
        visitor.press("button[aria-label='capture photo']")
        answer = visitor.see("[data-testid='label-output-value']").inner_text().strip()
        assert answer in NAMES
