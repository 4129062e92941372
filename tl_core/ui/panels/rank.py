"""Which backbone suits these images: several are asked before anything is trained, and one is put into the form.

Must not know how a backbone is judged, nor what else the form holds.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from tl_core import api, catalogue
from tl_core.errors import ConfigError, ModelError, TLError
from tl_core.settings import read_settings
from tl_core.ui.choices import allowed_model, model_choices
from tl_core.ui.events import listen
from tl_core.ui.markup import hint, notice, notice_of_error, paragraph
from tl_core.ui.ranked import draw_ranking
from tl_core.ui.session import Session
from tl_core.ui.slot import PICK, slot
from tl_core.ui.starting import draft_of
from tl_core.ui.waiting import WAITING, tick_into

# Each is asked in this process, while others wait for their answers.
MOST_BACKBONES = 6
_ABOUT = (
    "No backbone is the best for all pictures. Here each one looks at a sample of yours once, without being changed, "
    "and a quick last layer on what it saw is judged by pictures that it was not taught. Nothing is trained for good; "
    "what was computed is kept, and a feature extraction begins with it."
)
_INFO = (
    f"Up to {MOST_BACKBONES}: those that are on this computer already are chosen. One from the Hugging Face Hub is "
    "fetched first, and larger ones take minutes."
)
_WAITING = "Press the button: one bar for each backbone appears here, and what to take for accuracy and for speed."


@dataclass(frozen=True)
class RankPanel:
    models: gr.Dropdown
    ask: gr.Button
    notice: gr.HTML
    ranking: gr.HTML


def build() -> RankPanel:
    embedded = [backbone.id for backbone in catalogue.embedded()]
    with gr.Accordion("Which backbone suits these images?", open=False, elem_id="rank"):
        slot(paragraph(_ABOUT, "tl-quiet"))
        models = gr.Dropdown(
            embedded,
            value=embedded[:MOST_BACKBONES],
            multiselect=True,
            max_choices=MOST_BACKBONES,
            allow_custom_value=True,
            label="Backbones to compare",
            info=_INFO,
            elem_id="rank-models",
        )
        ask = gr.Button("Compare them on these images", elem_id="rank-ask")
        told = slot(elem_id="rank-notice")
        ranking = slot(hint(_WAITING), js_on_load=PICK, elem_id="rank-table")
    return RankPanel(models, ask, told, ranking)


def bind(panel: RankPanel, session: Session, model: gr.Dropdown) -> None:
    """`model` is the control that the backbone of a training is chosen in."""

    def load(token: str) -> dict[Any, Any]:
        choices = model_choices(token, with_head=False)
        return {panel.models: gr.Dropdown(choices, value=api.models_at_hand()[:MOST_BACKBONES], multiselect=True)}

    def offer(token: str) -> dict[Any, Any]:
        return {panel.models: gr.Dropdown(model_choices(token, with_head=False), multiselect=True)}

    def forget() -> dict[Any, Any]:
        """What was said of other images is not true of these."""
        return {panel.ranking: hint(_WAITING)}

    def compare(models: list[str] | None, draft: str, token: str, progress: gr.Progress = WAITING) -> dict[Any, Any]:
        try:
            return {panel.ranking: ranking_of(models, draft, token, progress)}
        except TLError as failure:  # no earlier ranking beside what went wrong
            return {panel.ranking: "", panel.notice: notice_of_error(failure)}

    def take(token: str, event: gr.EventData) -> dict[Any, Any]:
        word = picked_model(event, token)
        return {model: word, panel.notice: notice(f"The training will begin from {word}.")}

    view = partial(listen, inputs=[session.token], notice=panel.notice, kind="view")
    view(session.ready.change, load, outputs=[panel.models])
    view(session.finished.change, offer, outputs=[panel.models])
    view(session.draft.change, forget, inputs=[], outputs=[panel.ranking])
    view(panel.ranking.click, take, outputs=[model])
    listen(
        panel.ask.click,
        compare,
        inputs=[panel.models, session.draft, session.token],
        outputs=[panel.ranking],
        notice=panel.notice,
        kind="model",
        trigger_mode="once",
    )


def ranking_of(models: list[str] | None, draft: str | None, token: str | None, progress: gr.Progress = WAITING) -> str:
    """Markup of a ranking of backbones that the asker may use, on the asker's images. Raises TLError."""
    words = models or []
    if not words:
        raise ConfigError("no backbone is chosen; choose one or more to compare")
    if len(words) > MOST_BACKBONES:
        raise ConfigError(f"{len(words)} backbones are too many to compare at once; choose up to {MOST_BACKBONES}")
    allowed = [allowed_model(word, token) for word in words]
    if read_settings().shared:  # what is compared is loaded here, where the others' answers come from too
        here = {*api.models_at_hand(), *(word for word in allowed if "/" not in word)}
        for word in allowed:
            if word not in here:
                raise ModelError(f"{word} is not on this machine: a shared page compares only backbones that are")
    value = api.rank(draft_of(draft, token).words, models=allowed, ticker=tick_into(progress))
    return draw_ranking(value)


def picked_model(event: object, token: str | None) -> str:
    """The backbone whose button was pressed, if the asker may use it. Raises ModelError, JobError."""
    return allowed_model(str(getattr(event, "picked", None) or ""), token)
