"""Your images: how they come in — files, a sample, a dataset, or what was begun earlier — each into one draft.

Must not know class boxes or what the check says beyond its first sentence.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from tl_core.drafts import Draft
from tl_core.images.samples import SAMPLE_PREFIX
from tl_core.images.wording import count
from tl_core.settings import read_settings
from tl_core.ui.doors import add_to_class, are_loose, earlier_choices, open_upload, open_words, still_there
from tl_core.ui.events import listen
from tl_core.ui.markup import notice, paragraph
from tl_core.ui.session import Session, draft_word, own_draft
from tl_core.ui.slot import slot
from tl_core.ui.waiting import WAITING, tick_into

# Button and what it opens.
SAMPLES = {"Drawn shapes": f"{SAMPLE_PREFIX}shapes", "Handwritten digits": f"{SAMPLE_PREFIX}digits"}


@dataclass(frozen=True)
class DataPanel:
    notice: gr.HTML
    trouble: gr.HTML  # of looking, which a success of doing must not be wiped out by
    files: gr.File
    loose: gr.Group
    label: gr.Textbox
    add: gr.Button
    samples: tuple[gr.Button, ...]
    word: gr.Textbox
    open: gr.Button
    earlier: gr.Dropdown
    anew: gr.Button


def build() -> DataPanel:
    slot(
        paragraph(
            "A model learns from examples: some pictures of each thing that it shall tell apart. Ten of each are a "
            "start, a hundred are good. Bring them in one of these ways, or collect them class by class below."
        )
    )
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=300):
            slot('<h2 class="tl-h2">Drop your files</h2>')
            files = gr.File(
                label="A zip of class folders, a table, or pictures of one class",
                file_count="multiple",
                height=170,
                elem_id="data-files",
            )
            with gr.Group(visible=False) as loose:
                label = gr.Textbox(
                    label="What do these pictures show?",
                    info="The class they belong to.",
                    max_lines=1,
                    elem_id="data-label",
                )
                add = gr.Button("Add them to this class", elem_id="data-add")
        with gr.Column(scale=1, min_width=300):
            slot('<h2 class="tl-h2">Or start from a sample or a dataset</h2>')
            with gr.Row():
                samples = tuple(
                    gr.Button(name, elem_id=f"data-{word.removeprefix(SAMPLE_PREFIX)}", min_width=120)
                    for name, word in SAMPLES.items()
                )
            word = gr.Textbox(
                label="A dataset",
                info=_describe_words(),
                placeholder="owner/name",
                max_lines=1,
                elem_id="data-word",
            )
            opened = gr.Button("Open", elem_id="data-open")
    told, trouble = slot(elem_id="data-notice"), slot()
    with gr.Row(equal_height=True):
        earlier = gr.Dropdown(
            [], value=None, label="Go on with earlier images", visible=False, scale=3, elem_id="data-earlier"
        )
        anew = gr.Button("Start anew", visible=False, size="md", scale=0, min_width=140, elem_id="data-anew")
    return DataPanel(told, trouble, files, loose, label, add, samples, word, opened, earlier, anew)


def bind(panel: DataPanel, session: Session) -> None:
    def show(word: str, token: str) -> dict[Any, Any]:
        """Forget a draft that is gone, and offer the others."""
        kept = still_there(word, token)
        choices = earlier_choices(token)
        # Only then: another edit may have been made since this was asked.
        forgotten = {session.draft: ""} if word and not kept else {}
        return {
            **forgotten,
            panel.earlier: gr.Dropdown(
                choices=choices, value=kept.partition("@")[0] or None, visible=len(choices) > bool(kept)
            ),
            panel.anew: gr.Button(visible=bool(kept)),
        }

    def take_files(files: list[str] | None, token: str, progress: gr.Progress = WAITING) -> dict[Any, Any]:
        if not files:
            return {panel.loose: gr.Group(visible=False)}
        if are_loose(files):
            many = count(len(files), "picture", "pictures")
            return {
                panel.loose: gr.Group(visible=True),
                panel.notice: notice(f"{many}, and no class yet: name it in the field under them.", "warn"),
            }
        return _shown(open_upload(files, token, tick_into(progress)))

    def take_loose(
        files: list[str] | None, label: str, word: str, token: str, progress: gr.Progress = WAITING
    ) -> dict[Any, Any]:
        return _shown(add_to_class(label, files or [], word, token, tick_into(progress)))

    def open_images(word: str, files: list[str] | None, token: str, progress: gr.Progress = WAITING) -> dict[Any, Any]:
        """Open data by its word (a sample, a Hub id, a path), or an uploaded zip or table; what the check found."""
        ticker = tick_into(progress)
        return _shown(open_upload(files, token, ticker) if files and not word else open_words(word, token, ticker))

    def open_sample(name: str, token: str, progress: gr.Progress = WAITING) -> dict[Any, Any]:
        return _shown(open_words(SAMPLES.get(name), token, tick_into(progress)))

    def open_earlier(draft_id: str | None, token: str) -> dict[Any, Any]:
        return {session.draft: draft_word(own_draft(draft_id, token))} if draft_id else {}

    def begin_anew() -> dict[Any, Any]:
        return {session.draft: "", panel.notice: notice("A new collection; the one before can be chosen again above.")}

    def _shown(opened: tuple[Draft, str]) -> dict[Any, Any]:
        draft, sentence = opened
        return {
            session.draft: draft_word(draft),
            panel.notice: notice(sentence),
            panel.files: None,
            panel.label: "",
            panel.loose: gr.Group(visible=False),
        }

    taken = [session.draft, panel.files, panel.label, panel.loose]
    take = partial(listen, outputs=taken, notice=panel.notice)
    own = [session.draft, session.token]
    shown = [session.draft, panel.earlier, panel.anew]
    listen(
        [session.ready.change, session.draft.change], show, inputs=own, outputs=shown, notice=panel.trouble, kind="view"
    )
    take([panel.files.upload, panel.files.clear], take_files, inputs=[panel.files, session.token])
    take([panel.add.click, panel.label.submit], take_loose, inputs=[panel.files, panel.label, *own])
    asked = [panel.word, panel.files, session.token]
    take([panel.open.click, panel.word.submit], open_images, inputs=asked, api_name="open_images")
    for button in panel.samples:
        take(button.click, open_sample, inputs=[button, session.token])
    view = partial(listen, outputs=[session.draft], notice=panel.notice, kind="view")
    view(panel.earlier.input, open_earlier, inputs=[panel.earlier, session.token])
    view(panel.anew.click, begin_anew)


def _describe_words() -> str:
    hub = "The id of an image dataset on the Hugging Face Hub"
    return f"{hub}." if read_settings().shared else f"{hub}, or a folder, zip or table on this computer."
