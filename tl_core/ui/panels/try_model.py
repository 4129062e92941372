"""Try: a picture in, the most probable classes out, of one model or of two side by side.

Must not know data, training or runs beyond their place in the list of models.
"""

import importlib.util
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from tl_core import catalogue
from tl_core.errors import DataError, TLError
from tl_core.ui.asking import answer_of
from tl_core.ui.choices import about_model, allowed_model, model_choices
from tl_core.ui.events import listen
from tl_core.ui.markup import hint, notice_of_error
from tl_core.ui.picture import picture_box
from tl_core.ui.session import Session
from tl_core.ui.slot import slot

NO_SECOND = ("nothing", "")
# Photographs under CC BY 2.0 (by danielbuechele and vultilion on Flickr) that come with scikit-learn.
_EXAMPLES = ("flower.jpg", "china.jpg")
_EXAMPLE_SIDE = 200
_WAITING = "Drop a picture, paste one, take one with the camera, or click an example: the answer appears here."


@dataclass(frozen=True)
class TryPanel:
    model: gr.Dropdown
    about: gr.HTML
    second: gr.Dropdown
    image: gr.Image
    examples: gr.Gallery
    notice: gr.HTML
    answer: gr.HTML
    second_answer: gr.HTML


def build() -> TryPanel:
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=300):
            model = gr.Dropdown(
                [catalogue.DEFAULT_MODEL],
                value=catalogue.DEFAULT_MODEL,
                label="Model",
                info="A pretrained model has learnt from many pictures what edges, textures and things look like. "
                "Choose one, a run of yours, or type a Hugging Face id.",
                allow_custom_value=True,
                elem_id="try-model",
            )
            about = slot(about_model(catalogue.DEFAULT_MODEL))
            image = picture_box("Picture", format="png", height=300, elem_id="try-image")
            examples = gr.Gallery(
                label="Examples",
                columns=4,
                height=160,
                allow_preview=False,
                buttons=[],
                object_fit="cover",
                interactive=False,
                elem_id="try-examples",
            )
        with gr.Column(scale=6, min_width=300):
            notice = slot()
            answer = slot(hint(_WAITING), elem_id="try-answer")
            second = gr.Dropdown(
                [NO_SECOND],
                value="",
                label="Ask another model too",
                info="The same picture beside it: a backbone before and after you taught it, say.",
                allow_custom_value=True,
                elem_id="try-second",
            )
            second_answer = slot(elem_id="try-second-answer")
    return TryPanel(model, about, second, image, examples, notice, answer, second_answer)


def bind(panel: TryPanel, session: Session) -> None:
    def load(token: str) -> dict[Any, Any]:
        choices = model_choices(token, with_head=True)
        return {
            panel.model: gr.Dropdown(choices=choices),
            panel.second: gr.Dropdown(choices=[NO_SECOND, *choices]),
            panel.examples: [(small_example(name), Path(name).stem) for name in _EXAMPLES],
        }

    def describe(model: str) -> dict[Any, Any]:
        return {panel.about: about_model(model)}

    def show_example(event: gr.SelectData) -> dict[Any, Any]:
        return {panel.image: Image.open(example_path(_EXAMPLES[event.index]))}

    def ask(model: str, second: str | None, image: str | None, token: str) -> dict[Any, Any]:
        if image is None:
            return {panel.answer: hint(_WAITING), panel.second_answer: ""}
        answers = {panel.answer: "", panel.second_answer: ""}  # none of another picture beside what went wrong
        try:
            answers[panel.answer] = asked(model, image, token)
            answers[panel.second_answer] = asked(second, image, token) if second else ""
        except TLError as failure:
            return {**answers, panel.notice: notice_of_error(failure)}
        return answers

    view = partial(listen, notice=panel.notice, kind="view")
    loaded = [panel.model, panel.second, panel.examples]
    view([session.ready.change, session.finished.change], load, inputs=[session.token], outputs=loaded, asked=False)
    view(panel.model.change, describe, inputs=[panel.model], outputs=[panel.about])
    view(panel.examples.select, show_example, outputs=[panel.image])
    listen(
        [panel.image.change, panel.model.change, panel.second.change],
        ask,
        inputs=[panel.model, panel.second, panel.image, session.token],
        outputs=[panel.answer, panel.second_answer],
        notice=panel.notice,
        kind="edit",  # a model of the Hub may be fetched first, for which no other model should wait
        api_name="ask",
    )


def asked(model: str | None, image: str, token: str | None) -> str:
    """Markup of the most probable classes of a picture, by a model that the asker may use. Raises TLError."""
    word = allowed_model(model, token)
    return answer_of(word, image, word)


def example_path(name: str) -> Path:
    """Raises DataError where scikit-learn was installed without its pictures."""
    found = importlib.util.find_spec("sklearn")
    folders = list(found.submodule_search_locations or ()) if found is not None else []
    path = Path(folders[0], "datasets", "images", name) if folders else Path(name)
    if not path.is_file():
        raise DataError(f"the example {name} is missing; drop a picture of your own")
    return path


def small_example(name: str) -> Image.Image:
    picture = Image.open(example_path(name))
    picture.thumbnail((_EXAMPLE_SIDE, _EXAMPLE_SIDE))
    return picture
