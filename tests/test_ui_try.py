"""Try: whose models may be asked, what is said of a picture that cannot be read, and that pictures come as they are."""

import asyncio
import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio.data_classes import ImageData
from pictures import picture
from PIL import Image

from tl_core.catalogue import DEFAULT_MODEL
from tl_core.ui.panels import trained_model, try_model
from tl_core.ui.session import build_session


@pytest.fixture(scope="module")
def panel_and_handlers() -> tuple[try_model.TryPanel, dict[str, Callable[..., Any]]]:
    async def build() -> tuple[gr.Blocks, try_model.TryPanel]:  # outside of a loop Gradio makes loops, never closed
        with gr.Blocks(analytics_enabled=False) as app:
            session, panel = build_session(), try_model.build()
            try_model.bind(panel, session)
        return app, panel

    app, panel = asyncio.run(build())
    return panel, {each.fn.__name__: each.fn for each in app.fns.values() if each.fn is not None}


def test_a_picture_is_answered_and_no_answer_stays_beside_an_error(
    home: Path, tmp_path: Path, panel_and_handlers: tuple[try_model.TryPanel, dict[str, Callable[..., Any]]]
) -> None:
    panel, handlers = panel_and_handlers
    good, broken = tmp_path / "good.png", tmp_path / "broken.png"
    picture(0.1, 0).save(good)
    broken.write_bytes(b"no picture")
    answered = handlers["ask"](DEFAULT_MODEL, "", str(good), "")
    assert DEFAULT_MODEL in answered[panel.answer] and not answered[panel.notice]
    refused = handlers["ask"](DEFAULT_MODEL, "", str(broken), "")
    assert refused[panel.answer] == refused[panel.second_answer] == ""
    assert "broken.png" in refused[panel.notice] and str(tmp_path) not in html.unescape(refused[panel.notice])
    half = handlers["ask"](DEFAULT_MODEL, "no-such-model", str(good), "")
    assert half[panel.answer] == answered[panel.answer] and not half[panel.second_answer]
    assert "no-such-model" in half[panel.notice]


def test_a_shared_page_opens_no_folder_as_a_model(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    panel_and_handlers: tuple[try_model.TryPanel, dict[str, Callable[..., Any]]],
) -> None:
    panel, handlers = panel_and_handlers
    monkeypatch.setenv("TL_SHARED", "1")
    picture(0.1, 0).save(tmp_path / "good.png")
    for word in (str(tmp_path), "../model", "~/model"):
        for pair in ((word, ""), (DEFAULT_MODEL, word)):
            assert "cannot be used here" in handlers["ask"](*pair, str(tmp_path / "good.png"), "a" * 43)[panel.notice]


def test_a_folder_is_not_asked_as_a_picture(
    home: Path, tmp_path: Path, panel_and_handlers: tuple[try_model.TryPanel, dict[str, Callable[..., Any]]]
) -> None:
    """Gradio lets its own upload folder pass, in which the pictures of everybody lie."""
    panel, handlers = panel_and_handlers
    picture(0.1, 0).save(tmp_path / "theirs.png")
    sent = panel.image.preprocess(ImageData(path=str(tmp_path), orig_name="a.svg"))
    refused = handlers["ask"](DEFAULT_MODEL, "", sent, "")
    assert refused[panel.answer] == "" and "not there any more" in refused[panel.notice]


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # Gradio looks into the file and leaves it open
def test_pictures_reach_the_core_as_they_came(tmp_path: Path) -> None:
    """Gradio would drop the transparency itself, and another colour than in training would stand behind the picture."""
    file = tmp_path / "see-through.png"
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(file)

    async def build() -> list[gr.Image]:
        with gr.Blocks(analytics_enabled=False):
            return [try_model.build().image, trained_model.build().image]

    for component in asyncio.run(build()):
        assert component.preprocess(ImageData(path=str(file), orig_name=file.name)) == str(file)
