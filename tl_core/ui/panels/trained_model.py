"""The trained model itself: ask it about a picture, and take it away as a zip.

Must not know how good it is.
"""

import secrets
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from tl_core import api
from tl_core.errors import DataError, TLError
from tl_core.model_card import usage
from tl_core.runs import Run
from tl_core.settings import read_settings
from tl_core.ui.asking import answer_of
from tl_core.ui.events import listen
from tl_core.ui.judged import (
    CARD_SIDE,
    Judged,
    example_buttons,
    judged_pictures,
    labelled_pictures,
    one_of_each_class,
    small_copies,
)
from tl_core.ui.markup import hint, notice_of_error, paragraph
from tl_core.ui.panels.mistakes import own_report
from tl_core.ui.picture import picture_box
from tl_core.ui.session import Session, own_run
from tl_core.ui.slot import PICK, slot

MOST_EXAMPLES = 60  # of as many classes: more small pictures nobody looks through
EXAMPLE_SIDE = 96  # pixels; where one is asked about, the picture itself is
_WAITING = "Drop a picture, paste one, take one with the camera, or click one below: the answer appears here."
_EXAMPLES = {
    "held-out": "A test picture of each class, which the model was not taught:",
    "k-fold": "A picture of each class; the model that was kept has been taught all of them:",
}
# Where a zip lies cannot be guessed, for whatever lies there is served to who asks for it by name.
_SECRET = secrets.token_bytes(32)
# A link of our own, followed once the zip is there; where packing failed the notice says why, and nothing is fetched.
_FETCH = (
    "(file, notice) => { if (!notice && file && file.url) { const link = document.createElement('a'); "
    "link.href = file.url; link.download = file.orig_name; document.body.append(link); "
    "link.click(); link.remove(); } }"
)


@dataclass(frozen=True)
class TrainedModelPanel:
    notice: gr.HTML
    image: gr.Image
    answer: gr.HTML
    examples: gr.HTML
    pack: gr.Button
    file: gr.DownloadButton
    share: gr.Button
    usage: gr.Code


def build() -> TrainedModelPanel:
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=300):
            gr.Markdown("### Try it")
            image = picture_box("Your picture", height=260, elem_id="results-image")
            examples = slot(js_on_load=PICK, elem_id="results-examples")
        with gr.Column(scale=1, min_width=300):
            notice = slot()
            answer = slot(hint(_WAITING), elem_id="results-answer")
            gr.Markdown("### Take it with you")
            pack = gr.Button("Download the model", variant="primary", elem_id="results-download")
            file = gr.DownloadButton("The packed model", elem_id="results-file", elem_classes="tl-unseen")
            share = gr.Button("Share it on the Hub", elem_id="results-share")
            usage = gr.Code(
                language="python",
                label="How to use it: unpack the zip, pip install transformers torch pillow",
                interactive=False,
                elem_id="results-usage",
            )
    return TrainedModelPanel(notice, image, answer, examples, pack, file, share, usage)


def bind(panel: TrainedModelPanel, session: Session, shown: gr.Textbox) -> None:
    """`shown` is the "ID@VERSION" of the report on the page; that it is the asker's is asked again."""

    def show(word: str, token: str) -> dict[Any, Any]:
        empty = {panel.image: None, panel.answer: hint(_WAITING), panel.file: None}
        if not word:
            return {**empty, panel.examples: ""}
        run = own_run(word.partition("@")[0], token)
        report = own_report(word, token)
        copies, _ = small_copies(examples_of(report), EXAMPLE_SIDE, read_settings())
        about = _EXAMPLES[report["metrics"]["method"]] if copies else ""
        return {
            **empty,
            panel.examples: paragraph(about, "tl-quiet") + example_buttons(copies),
            panel.pack: download_label(run),
            panel.usage: usage(run.id),
        }

    def ask(word: str, image: str | None, token: str) -> dict[Any, Any]:
        if image is None:
            return {panel.answer: hint(_WAITING)}
        try:
            return {panel.answer: asked(own_run(word.partition("@")[0], token), image)}
        except TLError as failure:  # none of another picture beside what went wrong
            return {panel.answer: "", panel.notice: notice_of_error(failure)}

    def ask_example(word: str, token: str, event: gr.EventData) -> dict[Any, Any]:
        run = own_run(word.partition("@")[0], token)
        example = example_picked(own_report(word, token), getattr(event, "picked", None))
        copies, _ = small_copies([example], CARD_SIDE, read_settings())
        return {panel.answer: labelled_pictures(copies) + asked(run, example.path)}

    def pack(run_id: str, token: str) -> dict[Any, Any]:
        return {panel.file: str(pack_own(own_run(run_id, token)))}

    listen(
        shown.change,
        show,
        inputs=[shown, session.token],
        outputs=[panel.image, panel.answer, panel.file, panel.examples, panel.pack, panel.usage],
        notice=panel.notice,
        kind="view",
    )
    answer = partial(listen, outputs=[panel.answer], notice=panel.notice, kind="model")
    answer(panel.image.change, ask, inputs=[shown, panel.image, session.token])
    answer(panel.examples.click, ask_example, inputs=[shown, session.token])
    packed = listen(
        panel.pack.click,
        pack,
        inputs=[session.run, session.token],
        outputs=[panel.file],
        notice=panel.notice,
        kind="control",
        api_name="download",
    )
    packed.then(None, [panel.file, panel.notice], js=_FETCH)


def examples_of(report: dict[str, Any]) -> list[Judged]:
    """A test picture of each class, the first classes where there are many."""
    return one_of_each_class(judged_pictures(report))[:MOST_EXAMPLES]


def example_picked(report: dict[str, Any], picked: object) -> Judged:
    """Raises DataError for what no button of `examples_of` sends."""
    examples = examples_of(report)
    numbers = [str(number) for number in range(len(examples))]
    if picked not in numbers:
        raise DataError("this picture is not one of the examples, or is no longer there; click another one")
    return examples[numbers.index(str(picked))]


def asked(run: Run, image: str | Path) -> str:
    """Markup of the most probable classes of a picture. Raises TLError."""
    return answer_of(run.id, image, run.view().name or run.id)


def pack_own(run: Run) -> Path:
    """The run's zip where the page may hand it out, in place of an earlier one. Raises JobError."""
    folder = blake2b(run.id.encode(), key=_SECRET, digest_size=16).hexdigest()
    return api.pack(run.id, Path(get_upload_folder(), folder))


def download_label(run: Run) -> str:
    size = sum(file.stat().st_size for file in run.model_dir.rglob("*") if file.is_file())
    return f"Download the model ({size / 1e6:,.1f} MB)"
