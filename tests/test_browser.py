"""The page in a real browser, on a computer of one's own: the whole way, and what goes wrong on it."""

import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import HOSTILE, STEPS, App, Visitor, running_app, running_browser, visit
from pictures import make_folder, picture

from tl_core.catalogue import DEFAULT_MODEL
from tl_core.ui.explanations import GROUPS, WAYS
from tl_core.ui.theme import NAME

pytestmark = pytest.mark.slow


NARROW = {"width": 390, "height": 844}  # pixels of a telephone
# Gradio takes a toast away after ten seconds.
COLLECT_TOASTS = """() => {
  window.toasts = [];
  new MutationObserver(() => {
    document.querySelectorAll(".toast-body").forEach(toast => window.toasts.push(toast.innerText));
  }).observe(document.body, { childList: true, subtree: true });
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def app(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    with running_app(tmp_path_factory.mktemp("page")) as app:
        yield app


@pytest.fixture
def visitor(browser: Any, app: App) -> Iterator[Visitor]:
    with visit(browser, app.address) as visitor:
        yield visitor


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip of three class folders; the name of one is what somebody would call it who means harm."""
    root = tmp_path_factory.mktemp("photographs")
    folder = make_folder(root / "photos", {"red": 24, "green": 24, HOSTILE: 24}, size=(64, 48))
    with zipfile.ZipFile(root / "photos.zip", "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder))
    return root / "photos.zip"


def test_the_first_page_answers_about_a_picture_and_two_models_side_by_side(visitor: Visitor) -> None:
    assert visitor.page.title() == NAME
    visitor.see("header.tl-header svg")
    visitor.see("header.tl-header h1", NAME)
    visitor.press("#try-examples .thumbnail-item")
    first = visitor.see("#try-answer .tl-lead", re.compile(r"\d%")).inner_text()
    second = visitor.page.locator("#try-second input")
    second.fill(DEFAULT_MODEL)
    second.press("Enter")
    assert visitor.see("#try-second-answer .tl-lead", re.compile(r"\d%")).inner_text() == first


def test_from_a_zip_of_photographs_to_a_model_that_transformers_loads(
    browser: Any, app: App, photographs: Path, tmp_path: Path
) -> None:
    with visit(browser, app.address) as visitor:
        visitor.open_tab("Your images")
        visitor.give("#data-files", photographs)
        visitor.see("#findings .tl-lead", "72 images in 3 classes, 24 each.")
        visitor.see("#findings .tl-bars", HOSTILE)
        visitor.press("#findings-go")
        visitor.see("#train-plan .tl-text", re.compile(r"^About \d+ (s|min)"))
        visitor.see("#train-reasons table")
        visitor.fill("#option-name", HOSTILE)
        visitor.page.set_viewport_size(NARROW)
        visitor.fits("Train")
        visitor.open_tab("Your images")
        visitor.fits("Your images")
        visitor.open_tab("Train")
        run = visitor.start_training()
        visitor.see("#watch-stop, #watch-to-results")  # the tab is closed on a training, on a slow day after it
        visitor.was_not_hacked()

    with visit(browser, f"{app.address}/?run={run}", shown="#watch-head") as visitor:
        visitor.see("#watch-head h2", HOSTILE)
        visitor.see("#watch-outcome", "It is done")
        visitor.see("#runs-list", HOSTILE)
        visitor.press("#watch-to-results")
        visitor.see("#results-verdict .tl-lead", re.compile(r"\d+ of \d+|%"))
        visitor.see("#results-matrix", HOSTILE)
        visitor.press("#results-matrix button[data-pick='0,0']")
        visitor.see("#results-cell .tl-lead", re.compile(r"pictures? of"))
        visitor.see("#results-pictures img")
        visitor.press("#results-examples button")
        visitor.see("#results-answer .tl-lead", re.compile(r"\d%"))

        picture(0.0, 999, (64, 48)).save(tmp_path / "mine.png")
        visitor.give("#results-image", tmp_path / "mine.png")
        visitor.see("#results-image img")
        visitor.gone("#results-answer .tl-judged")
        answer = visitor.see("#results-answer .tl-lead", re.compile(r"\d%")).inner_text()
        with visitor.page.expect_download() as download:
            visitor.press("#results-download")
        download.value.save_as(tmp_path / "model.zip")
        visitor.page.set_viewport_size(NARROW)
        visitor.fits("Results")
        visitor.open_tab("Watch")
        visitor.fits("Watch")
        visitor.was_not_hacked()

    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    assert ask_without_this_project(tmp_path / "unpacked", tmp_path / "mine.png") == answer


def ask_without_this_project(unpacked: Path, image: Path) -> str:
    """What plain transformers says of a picture, in a process that cannot import this project: "label, share"."""
    (folder,) = (file.parent for file in unpacked.rglob("config.json"))
    assert (folder / "README.md").is_file()
    program = (
        "import sys; sys.modules['tl_core'] = None\n"
        "from transformers import pipeline\n"
        "best = pipeline('image-classification', model=sys.argv[1], device='cpu')(sys.argv[2])[0]\n"
        "print('ANSWER', f'{best[\"label\"]}, {best[\"score\"]:.1%}')\n"
    )
    command = [sys.executable, "-I", "-c", program, str(folder), str(image)]
    done = subprocess.run(command, cwd=unpacked, capture_output=True, text=True, check=True)
    return done.stdout.partition("ANSWER ")[2].strip()


def test_class_boxes_are_filled_by_file_and_by_camera(visitor: Visitor, tmp_path: Path) -> None:
    files = sorted(make_folder(tmp_path, {"red": 6}).rglob("*.*"))
    visitor.open_tab("Your images")
    add_class(visitor, HOSTILE)
    visitor.give("#classes-files", files)
    visitor.see("#classes-notice", "6 pictures added")
    add_class(visitor, "camera")
    visitor.press("#classes-camera-fold button")
    visitor.press("#classes-camera button:has-text('Access Webcam'), #classes-camera .access-webcam-button")
    visitor.press("#classes-camera button[aria-label*='ecord'], #classes-camera button:has-text('Record')")
    visitor.see("#classes-counted", re.compile(r"([3-9]|\d\d) pictures taken for “camera”"))
    visitor.press("#classes-camera button:has-text('Stop')")
    visitor.see("#classes-counted", "The camera has stopped")
    visitor.see("#classes-title", re.compile(r"camera\s*\d+ pictures"))
    visitor.see("#findings .tl-lead", re.compile(r"images in 2 classes"))
    visitor.see("#findings .tl-bars", HOSTILE)
    visitor.was_not_hacked()


def endless(visitor: Visitor) -> None:
    """A training that ends only when it is stopped or killed, however slowly the page looks on."""
    visitor.press("#train-everything button")
    visitor.press("#train-everything button:has-text('{}')".format(GROUPS["training"][0]))
    visitor.fill("#option-epochs", "10000")
    visitor.fill("#option-patience", "0")


def add_class(visitor: Visitor, name: str) -> None:
    visitor.fill("#classes-name", name)
    visitor.press("#classes-add")
    visitor.see("#classes-title", name)


def test_a_wrong_file_is_answered_with_a_sentence_where_it_was_dropped(
    visitor: Visitor, app: App, tmp_path: Path
) -> None:
    for name in ("photos.zip", "note.txt", "photo.png"):
        (tmp_path / name).write_text("neither a zip nor a picture")
    visitor.see("#try-examples img")
    visitor.page.evaluate(COLLECT_TOASTS)
    visitor.give("#try-image", tmp_path / "note.txt")
    visitor.page.wait_for_function("window.toasts.some(words => words.includes('note.txt'))")
    visitor.give("#try-image", tmp_path / "photo.png")
    said = visitor.see("[role=alert]:not(.toast-body)", "photo.png").inner_text()
    assert "Traceback" not in said and "fault of the app" not in said and str(app.home.parent) not in said
    visitor.open_tab("Your images")
    visitor.give("#data-files", tmp_path / "photos.zip")
    said = visitor.see("#data-notice [role=alert]", re.compile(r"photos\.zip", re.IGNORECASE)).inner_text()
    assert "Traceback" not in said and "fault of the app" not in said
    assert visitor.page.locator("#findings-go").is_disabled()


def test_a_training_is_stopped_resumed_and_killed_and_the_page_lives_on(visitor: Visitor, app: App) -> None:
    visitor.open_tab("Your images")
    visitor.press("#data-shapes")
    visitor.see("#findings .tl-bars")
    visitor.press("#findings-go")
    visitor.page.get_by_label(WAYS["lp-ft"].name).check()
    visitor.see("#train-explanation", WAYS["lp-ft"].what[:40])
    endless(visitor)
    run = visitor.start_training()
    visitor.see("#watch-head .tl-stage", re.compile(r"step|train|tun", re.IGNORECASE))
    visitor.press("#watch-stop")
    visitor.see("#watch-outcome", "It was stopped.")
    visitor.see("#watch-head .tl-state", "stopped")

    visitor.press("#watch-resume")
    visitor.see("#watch-head .tl-state", "running")
    os.killpg(app.process_of(run), signal.SIGKILL)
    visitor.see("#watch-head .tl-state", "lost")
    visitor.see("#watch-outcome", "Its process is gone")
    visitor.see("#watch-resume")
    visitor.open_tab("Try")
    visitor.press("#try-examples .thumbnail-item")
    visitor.see("#try-answer .tl-lead", re.compile(r"\d%"))


@pytest.mark.parametrize("width, scheme", [(NARROW["width"], "light"), (1280, "dark")])
def test_no_step_is_wider_than_the_screen_and_dark_is_dark(browser: Any, app: App, width: int, scheme: str) -> None:
    with visit(browser, app.address, width=width, scheme=scheme) as visitor:
        visitor.see("#try-examples img")
        for step in STEPS:
            visitor.open_tab(step)
            visitor.fits(step)
        colours = visitor.page.evaluate("getComputedStyle(document.body).backgroundColor")
        light = sum(int(each) for each in re.findall(r"\d+", colours)[:3]) / (3 * 255)
        assert light < 0.2 if scheme == "dark" else light > 0.8
