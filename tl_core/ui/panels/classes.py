"""The class boxes: name a class, fill it by file or camera, look at it and mend it, whatever door its pictures came by.

Must not know the check, nor how whole collections come in.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from tl_core.errors import DataError
from tl_core.images.wording import count, shorten
from tl_core.ui.boxes import boxes_of, draw_boxes, draw_pictures, read_names, read_pick, read_picks, title_of, turned
from tl_core.ui.doors import add_class, add_to_class
from tl_core.ui.events import listen
from tl_core.ui.markup import hint, notice
from tl_core.ui.panels import camera
from tl_core.ui.session import Session, draft_word, own_draft
from tl_core.ui.slot import PICK, slot
from tl_core.ui.waiting import WAITING, tick_into

_PRESS = (
    "element.addEventListener('click', event => { const button = event.target.closest('[data-pick]'); "
    "if (!button) return; button.setAttribute('aria-pressed', button.getAttribute('aria-pressed') !== 'true'); "
    "trigger('click', {picked: [...element.querySelectorAll('[data-pick][aria-pressed=true]')]"
    ".map(each => each.dataset.pick)}); });"
)
_EMPTY = "No classes yet. Name the first thing to tell apart, then the second: each gets a box for its pictures."


@dataclass(frozen=True)
class ClassesPanel:
    notice: gr.HTML
    trouble: gr.HTML  # of looking, which a success of doing must not be wiped out by
    name: gr.Textbox
    add: gr.Button
    cards: gr.HTML
    chosen: gr.Textbox  # the class that is looked at
    page: gr.Number  # of its pictures, from 1
    marked: gr.Textbox  # names of its pictures that were pressed, as JSON
    box: gr.Column
    title: gr.HTML
    files: gr.File
    from_camera: camera.CameraPanel
    pictures: gr.HTML
    place: gr.HTML
    back: gr.Button
    on: gr.Button
    mark_all: gr.Button
    remove: gr.Button
    target: gr.Dropdown
    move: gr.Button
    new_name: gr.Textbox
    rename: gr.Button
    remove_class: gr.Button


def build() -> ClassesPanel:
    slot('<h2 class="tl-h2">Classes</h2>')
    with gr.Row(equal_height=True, elem_classes="tl-inline"):
        name = gr.Textbox(
            show_label=False,
            placeholder="Name a class, such as oak",
            label="Name of a new class",
            max_lines=1,
            scale=3,
            container=False,
            elem_id="classes-name",
        )
        add = gr.Button("Add class", scale=1, min_width=120, elem_id="classes-add")
    told_here, trouble = slot(elem_id="classes-notice"), slot()
    cards = slot(hint(_EMPTY), js_on_load=PICK, elem_id="classes-cards")
    chosen = gr.Textbox(visible="hidden", label="class", elem_id="classes-chosen")
    page = gr.Number(1, visible="hidden", label="page", precision=0)
    marked = gr.Textbox("[]", visible="hidden", label="marked")
    burst = camera.build_burst()
    with gr.Column(visible=False, elem_classes="tl-box", elem_id="classes-box") as box:
        title = slot(elem_id="classes-title")
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=300):
                files = gr.File(
                    label="Add pictures to this class", file_count="multiple", height=150, elem_id="classes-files"
                )
            with gr.Column(scale=1, min_width=300):
                from_camera = camera.build(burst)
        pictures = slot(js_on_load=_PRESS, elem_id="classes-pictures")
        with gr.Row(equal_height=True, elem_classes="tl-buttons"):
            back = gr.Button("◀ Before", size="sm", visible=False, elem_id="classes-back")
            place = slot()
            on = gr.Button("More ▶", size="sm", visible=False, elem_id="classes-on")
        with gr.Row(equal_height=False, elem_classes="tl-buttons"):
            mark_all = gr.Button("Choose all of these", size="sm", elem_id="classes-mark-all")
            remove = gr.Button("Remove the chosen", size="sm", interactive=False, elem_id="classes-remove")
            target = gr.Dropdown([], label="Move them to the class", min_width=160, elem_id="classes-target")
            move = gr.Button("Move the chosen", size="sm", interactive=False, elem_id="classes-move")
        with gr.Row(equal_height=True, elem_classes="tl-buttons"):
            new_name = gr.Textbox(
                label="Another name for this class",
                show_label=False,
                placeholder="Another name (that of another class joins the two)",
                container=False,
                max_lines=1,
                scale=2,
                min_width=200,
                elem_id="classes-new-name",
            )
            rename = gr.Button("Rename the class", size="sm", elem_id="classes-rename")
            remove_class = gr.Button("Remove the class", size="sm", variant="stop", elem_id="classes-remove-class")
    return ClassesPanel(
        told_here,
        trouble,
        name,
        add,
        cards,
        chosen,
        page,
        marked,
        box,
        title,
        files,
        from_camera,
        pictures,
        place,
        back,
        on,
        mark_all,
        remove,
        target,
        move,
        new_name,
        rename,
        remove_class,
    )


def bind(panel: ClassesPanel, session: Session) -> None:
    whole = [
        *(panel.cards, panel.page, panel.marked, panel.box, panel.title, panel.pictures, panel.place),
        *(panel.back, panel.on, panel.remove, panel.move, panel.target, panel.notice),
    ]
    view = [session.draft, panel.chosen, panel.page, session.token]

    def show(word: str, chosen: str, page: int, token: str, *, pressed: bool = False) -> dict[Any, Any]:
        draft = own_draft(word, token) if word else None
        boxes = boxes_of(draft, draft.settings) if draft else {}
        if draft is None or not boxes:
            said: dict[Any, Any] = {} if word else {panel.notice: ""}
            return {**said, panel.cards: hint(_EMPTY), panel.box: gr.Column(visible=False)}
        cards: dict[Any, Any] = {panel.cards: draw_boxes(boxes, chosen, draft.settings)}
        if chosen not in boxes:
            return {**cards, panel.box: gr.Column(visible=False)}
        answer: dict[Any, Any] = {**cards, panel.box: gr.Column(visible=True)}
        part, page, pages = turned(boxes[chosen], page)
        marked = [each.name for each in part] if pressed else []
        return {
            **answer,
            **_marked(marked),
            panel.page: page,
            panel.title: title_of(chosen, boxes),
            panel.pictures: draw_pictures(part, draft.settings, version=f"{word} {time.time_ns()}", pressed=pressed),
            panel.place: f'<p class="tl-quiet">page {page:,} of {pages:,}</p>' if pages > 1 else "",
            panel.back: gr.Button(visible=page > 1),
            panel.on: gr.Button(visible=page < pages),
            panel.target: gr.Dropdown(choices=[name for name in boxes if name != chosen], value=None),
        }

    def _marked(names: Sequence[str]) -> dict[Any, Any]:
        some = bool(names)
        return {
            panel.marked: json.dumps(list(names)),
            panel.remove: gr.Button(
                f"Remove the chosen ({len(names)})" if some else "Remove the chosen", interactive=some
            ),
            panel.move: gr.Button(interactive=some),
        }

    def pick(event: gr.EventData) -> dict[Any, Any]:
        return {panel.chosen: read_pick(getattr(event, "picked", None)), panel.page: 1}

    def press(event: gr.EventData) -> dict[Any, Any]:
        return _marked(read_picks(getattr(event, "picked", None)))

    def press_all(word: str, chosen: str, page: int, token: str) -> dict[Any, Any]:
        return show(word, chosen, page, token, pressed=True)

    def go_back(word: str, chosen: str, page: int, token: str) -> dict[Any, Any]:
        return show(word, chosen, page - 1, token)

    def go_on(word: str, chosen: str, page: int, token: str) -> dict[Any, Any]:
        return show(word, chosen, page + 1, token)

    def name_class(name: str, word: str, token: str) -> dict[Any, Any]:
        draft, added = add_class(name, word, token)
        words = f"Class “{shorten(added)}”: now add pictures to it."
        chosen = {panel.chosen: added, panel.page: 1}
        return {session.draft: draft_word(draft), **chosen, panel.name: "", panel.notice: notice(words)}

    def add_pictures(
        label: str, files: list[str] | None, word: str, token: str, progress: gr.Progress = WAITING
    ) -> dict[Any, Any]:
        """Add picture files to a class of the collection, which is made if needed."""
        draft, sentence = add_to_class(label, files or [], word, token, tick_into(progress))
        return {session.draft: draft_word(draft), panel.notice: notice(sentence), panel.files: None}

    def remove(marked: str, word: str, token: str) -> dict[Any, Any]:
        draft = own_draft(word, token)
        gone = draft.remove_pictures(read_names(marked))
        return {
            session.draft: draft_word(draft),
            panel.notice: notice(f"{count(gone, 'picture', 'pictures')} removed."),
        }

    def move(marked: str, target: str | None, word: str, token: str) -> dict[Any, Any]:
        if not target:
            raise DataError("no class is chosen to move them to; choose one in the list")
        draft = own_draft(word, token)
        moved = draft.move_pictures(read_names(marked), target)
        words = f"{count(moved, 'picture', 'pictures')} moved to “{shorten(target)}”."
        return {session.draft: draft_word(draft), panel.notice: notice(words)}

    def rename(chosen: str, new: str, word: str, token: str) -> dict[Any, Any]:
        draft = own_draft(word, token)
        name = draft.rename_class(chosen, new)
        words = f"The class is called “{shorten(name)}” now."
        return {session.draft: draft_word(draft), panel.chosen: name, panel.new_name: "", panel.notice: notice(words)}

    def remove_class(chosen: str, word: str, token: str) -> dict[Any, Any]:
        draft = own_draft(word, token)
        gone = draft.remove_class(chosen)
        words = f"The class “{shorten(chosen)}” is gone, with {count(gone, 'picture', 'pictures')}."
        closed = {panel.chosen: "", panel.box: gr.Column(visible=False)}
        return {**closed, session.draft: draft_word(draft), panel.notice: notice(words)}

    look = partial(listen, inputs=view, outputs=whole, notice=panel.trouble, kind="view")
    # Nothing but a person's doing sets the chosen class: a look that was asked for before it would set it back.
    look([session.ready.change, session.draft.change, panel.chosen.change], show)
    look(panel.mark_all.click, press_all)
    look(panel.back.click, go_back)
    look(panel.on.click, go_on)
    click = partial(listen, notice=panel.notice, kind="view", trigger_mode="always_last")
    click(panel.cards.click, pick, outputs=[panel.chosen, panel.page])
    click(panel.pictures.click, press, outputs=[panel.marked, panel.remove, panel.move])
    edit = partial(listen, notice=panel.notice)
    own, changed = [session.draft, session.token], [session.draft]
    named = [*changed, panel.chosen, panel.page, panel.name]
    edit([panel.add.click, panel.name.submit], name_class, inputs=[panel.name, *own], outputs=named)
    edit(
        panel.files.upload,
        add_pictures,
        inputs=[panel.chosen, panel.files, *own],
        outputs=[*changed, panel.files],
        api_name="add_pictures",
    )
    camera.bind(panel.from_camera, session, panel.chosen, panel.notice)
    edit(panel.remove.click, remove, inputs=[panel.marked, *own], outputs=changed)
    edit(panel.move.click, move, inputs=[panel.marked, panel.target, *own], outputs=changed)
    renamed = [*changed, panel.chosen, panel.new_name]
    edit(panel.rename.click, rename, inputs=[panel.chosen, panel.new_name, *own], outputs=renamed)
    closed = [*changed, panel.chosen, panel.box]
    edit(panel.remove_class.click, remove_class, inputs=[panel.chosen, *own], outputs=closed)
