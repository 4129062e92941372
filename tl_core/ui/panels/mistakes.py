"""Where a model is wrong: the confusion matrix, the pictures behind it, figures for each class, its surest mistakes.

Must not know how good the model is, nor how it was made.
"""

from dataclasses import dataclass
from typing import Any

import gradio as gr
from PIL import Image

from tl_core.errors import JobError
from tl_core.settings import read_settings
from tl_core.ui.events import listen
from tl_core.ui.judged import behind_cell, describe_missing, judged_pictures, mistakes_shown, small_copies
from tl_core.ui.markup import paragraph
from tl_core.ui.matrix import describe_cell, draw_matrix, read_pick
from tl_core.ui.session import Session, own_run
from tl_core.ui.slot import PICK, slot
from tl_core.ui.verdict import per_class

CELL_PICTURES = 60
CELL_SIDE = 320  # pixels: they can be opened to fill the gallery
MISTAKES = 24


@dataclass(frozen=True)
class MistakesPanel:
    notice: gr.HTML
    matrix: gr.HTML
    about: gr.HTML
    pictures: gr.Gallery
    classes: gr.HTML
    surest: gr.HTML


def build() -> MistakesPanel:
    gr.Markdown("### What was taken for what")
    with gr.Row(equal_height=False):
        with gr.Column(scale=7, min_width=300):
            matrix = slot(js_on_load=PICK, elem_id="results-matrix")
        with gr.Column(scale=5, min_width=300):
            notice = slot()
            about = slot(elem_id="results-cell")
            pictures = gr.Gallery(
                label="Pictures of one cell",
                format="jpeg",
                columns=3,
                fit_columns=False,
                height=340,
                buttons=[],
                interactive=False,
                object_fit="contain",
                visible=False,
                elem_id="results-pictures",
            )
    gr.Markdown("### Its surest mistakes")
    surest = slot(elem_id="results-mistakes")
    gr.Markdown("### Each class")
    classes = slot(elem_id="results-classes")
    return MistakesPanel(notice, matrix, about, pictures, classes, surest)


def bind(panel: MistakesPanel, session: Session, shown: gr.Textbox) -> None:
    """`shown` is the "ID@VERSION" of the report on the page; that it is the asker's is asked again."""

    def show(word: str, token: str) -> dict[Any, Any]:
        empty = {panel.about: "", panel.pictures: gr.Gallery([], visible=False)}
        if not word:
            return {**empty, panel.matrix: "", panel.classes: "", panel.surest: ""}
        report = own_report(word, token)
        metrics = report["metrics"]
        return {
            **empty,
            panel.matrix: draw_matrix(metrics["labels"], metrics["confusion_matrix"]),
            panel.classes: per_class(metrics),
            panel.surest: mistakes_shown(judged_pictures(report), MISTAKES, read_settings()),
        }

    def pick(word: str, token: str, event: gr.EventData) -> dict[Any, Any]:
        said, gallery = cell_shown(own_report(word, token), getattr(event, "picked", None))
        return {panel.about: said, panel.pictures: gr.Gallery(gallery, visible=True, selected_index=None)}

    asked = [shown, session.token]
    listen(
        shown.change,
        show,
        inputs=asked,
        outputs=[panel.matrix, panel.about, panel.pictures, panel.classes, panel.surest],
        notice=panel.notice,
        kind="view",
    )
    listen(panel.matrix.click, pick, inputs=asked, outputs=[panel.about, panel.pictures], notice=panel.notice)


def own_report(word: str | None, token: str | None) -> dict[str, Any]:
    """The report that an "ID@VERSION" names, as it is now. Raises JobError where there is none of the asker's."""
    run = own_run((word or "").partition("@")[0], token)
    report = run.report()
    if report is None:
        raise JobError(f"run {run.id} has no results")
    return report


def cell_shown(report: dict[str, Any], picked: object) -> tuple[str, list[tuple[Image.Image, str]]]:
    """What is behind a cell: markup that says it, and captioned pictures. Raises DataError for a cell there is not."""
    labels = report["metrics"]["labels"]
    row, column = read_pick(picked, len(labels))
    pictures = behind_cell(judged_pictures(report), labels[row], labels[column])
    copies, missing = small_copies(pictures[:CELL_PICTURES], CELL_SIDE, read_settings())
    said = describe_cell(len(pictures), labels[row], labels[column])
    more = f"; the {CELL_PICTURES} surest are shown" if len(pictures) > CELL_PICTURES else ""
    words = paragraph(f"{said}{more}.", "tl-lead") + paragraph(describe_missing(missing), "tl-quiet")
    return words, [(image, each.words) for each, image in copies]
