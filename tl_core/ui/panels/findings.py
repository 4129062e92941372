"""What the check found in the images: counts, split, warnings, look-alikes, and whether they can be trained on.

Looks at the draft whenever it has changed. Must not know how images come in, nor class boxes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from tl_core.drafts import Draft
from tl_core.errors import DataError
from tl_core.images.wording import count
from tl_core.settings import read_settings
from tl_core.sources import Ticker
from tl_core.survey import Survey, survey
from tl_core.ui.boxes import read_pick
from tl_core.ui.events import listen
from tl_core.ui.found import alike_in, can_be_trained, copies_in, draw_findings, surplus
from tl_core.ui.markup import as_sentence, hint, notice_of_error
from tl_core.ui.session import Session, draft_word, own_draft
from tl_core.ui.slot import PICK, slot
from tl_core.ui.waiting import WAITING, tick_into

EMPTY = (
    "Nothing to look at yet. Drop a zip, open a sample, or name a class and take some pictures: what they are, how "
    "they are divided and what is odd about them appears here."
)
_Groups = Callable[[Survey], Sequence[Sequence[int]]]


@dataclass(frozen=True)
class FindingsPanel:
    notice: gr.HTML
    found: gr.HTML
    thin_copies: gr.Button
    thin_alike: gr.Button
    go: gr.Button


def build() -> FindingsPanel:
    slot('<h2 class="tl-h2">What the check found</h2>')
    notice = slot(elem_id="findings-notice")
    found = slot(hint(EMPTY), js_on_load=PICK, elem_id="findings")
    with gr.Row(elem_classes="tl-buttons"):
        thin_copies = gr.Button("Keep one of each", visible=False, elem_id="findings-thin-copies")
        thin_alike = gr.Button("Keep one of each", visible=False, elem_id="findings-thin-alike")
    go = gr.Button("Go on: choose how to teach it", variant="primary", interactive=False, elem_id="findings-go")
    return FindingsPanel(notice, found, thin_copies, thin_alike, go)


def bind(panel: FindingsPanel, session: Session) -> None:
    def show(word: str, token: str, progress: gr.Progress = WAITING) -> dict[Any, Any]:
        if not word:
            return _blank(hint(EMPTY))
        try:
            draft = own_draft(word, token)
            draft.require_classes()
        except DataError as failure:
            return _blank(hint(as_sentence(failure.message)))
        try:
            found = survey(draft, draft.settings, tick_into(progress))
        except DataError as failure:
            return {**_blank(""), panel.notice: notice_of_error(failure)}
        return {
            panel.found: draw_findings(found, draft.settings, [name for name, n in draft.classes().items() if not n]),
            panel.thin_copies: _thinning(surplus(found, copies_in(found)), "copy", "copies"),
            panel.thin_alike: _thinning(surplus(found, alike_in(found)), "look-alike", "look-alikes"),
            panel.go: gr.Button(interactive=can_be_trained(found.report)),
        }

    def _blank(words: str) -> dict[Any, Any]:
        hidden = gr.Button(visible=False)
        return {
            panel.found: words,
            panel.thin_copies: hidden,
            panel.thin_alike: hidden,
            panel.go: gr.Button(interactive=False),
        }

    def remove(word: str, token: str, event: gr.EventData) -> dict[Any, Any]:
        draft = own_draft(word, token)
        draft.remove_pictures([read_pick(getattr(event, "picked", None))])
        return {session.draft: draft_word(draft)}

    def keep_one_copy(word: str, token: str, progress: gr.Progress = WAITING) -> dict[Any, Any]:
        draft = own_draft(word, token)
        thin(draft, copies_in, tick_into(progress))
        return {session.draft: draft_word(draft)}

    def keep_one_alike(word: str, token: str, progress: gr.Progress = WAITING) -> dict[Any, Any]:
        draft = own_draft(word, token)
        thin(draft, alike_in, tick_into(progress))
        return {session.draft: draft_word(draft)}

    edit = partial(listen, inputs=[session.draft, session.token], notice=panel.notice)
    shown = [panel.found, panel.thin_copies, panel.thin_alike, panel.go]
    edit([session.ready.change, session.draft.change], show, outputs=shown)
    edit(panel.found.click, remove, outputs=[session.draft])
    edit(panel.thin_copies.click, keep_one_copy, outputs=[session.draft])
    edit(panel.thin_alike.click, keep_one_alike, outputs=[session.draft])


def thin(draft: Draft, groups: _Groups, ticker: Ticker | None = None) -> int:
    """Take out all but one picture of each of these groups; how many. Raises DataError."""
    return draft.remove_pictures(surplus(found := survey(draft, read_settings(), ticker), groups(found)))


def _thinning(names: Sequence[str], one: str, many: str) -> gr.Button:
    words = f"Keep one of each: remove {count(len(names), one, many)}"
    return gr.Button(words, visible=bool(names))
