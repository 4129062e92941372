"""Which backbone suits these images: several are asked before anything is trained, and one is put into the form.

Must not know how a backbone is judged, nor what else the form holds.
"""

from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Any

import gradio as gr

from tl_core import api, catalogue
from tl_core.errors import ConfigError, JobError, ModelError, TLError
from tl_core.settings import read_settings
from tl_core.sources import Ticker
from tl_core.ui.choices import allowed_model, model_choices
from tl_core.ui.events import listen
from tl_core.ui.form import parse_form, read_controls
from tl_core.ui.markup import hint, notice, notice_of_error, paragraph
from tl_core.ui.ranked import draw_ranking
from tl_core.ui.session import Session, owner_of
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
_ENDED = "The comparison was stopped. What was computed is kept: started again, it goes on from there."
_WAITING = "Press the button: one bar for each backbone appears here, and what to take for accuracy and for speed."

# Set where somebody no longer wants the comparison that is being made for them.
_unwanted: dict[str, Event] = {}


class Unwanted(TLError):
    """A comparison ended because whoever asked for it said so."""


@dataclass(frozen=True)
class RankPanel:
    models: gr.Dropdown
    ask: gr.Button
    end: gr.Button
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
        with gr.Row():
            ask = gr.Button("Compare them on these images", elem_id="rank-ask")
            end = gr.Button("Stop comparing", visible=False, elem_id="rank-end")
        told = slot(elem_id="rank-notice")
        ranking = slot(hint(_WAITING), js_on_load=PICK, elem_id="rank-table")
    return RankPanel(models, ask, end, told, ranking)


def bind(panel: RankPanel, session: Session, model: gr.Dropdown, seed: gr.Number) -> None:
    """`model` is the control that the backbone of a training is chosen in, `seed` that of the training's seed: what a
    training tests on is left out."""

    def load(token: str) -> dict[Any, Any]:
        choices = model_choices(token, with_head=False)
        return {panel.models: gr.Dropdown(choices, value=api.models_at_hand()[:MOST_BACKBONES], multiselect=True)}

    def offer(token: str) -> dict[Any, Any]:
        return {panel.models: gr.Dropdown(model_choices(token, with_head=False), multiselect=True)}

    def forget() -> dict[Any, Any]:
        """What was said of other images is not true of these."""
        return {panel.ranking: hint(_WAITING)}

    def offer_end() -> dict[Any, Any]:
        return {panel.end: gr.Button(visible=True)}

    def compare(
        models: list[str] | None, draft: str, token: str, seed: float, progress: gr.Progress = WAITING
    ) -> dict[Any, Any]:
        done = {panel.end: gr.Button(visible=False)}
        try:
            return {**done, panel.ranking: ranking_of(models, draft, token, seed, progress)}
        except Unwanted:
            return {**done, panel.ranking: hint(_WAITING), panel.notice: notice(_ENDED)}
        except TLError as failure:  # no earlier ranking beside what went wrong
            return {**done, panel.ranking: "", panel.notice: notice_of_error(failure)}

    def take(token: str, event: gr.EventData) -> dict[Any, Any]:
        word = picked_model(event, token)
        return {model: word, panel.notice: notice(f"The training will begin from {word}.")}

    view = partial(listen, inputs=[session.token], notice=panel.notice, kind="view")
    view(session.ready.change, load, outputs=[panel.models], asked=False)
    view(session.finished.change, offer, outputs=[panel.models], asked=False)
    view(session.draft.change, forget, inputs=[], outputs=[panel.ranking])
    view(panel.ranking.click, take, outputs=[model])
    view(panel.ask.click, offer_end, inputs=[], outputs=[panel.end])
    listen(panel.end.click, end, inputs=[session.token], notice=panel.notice, kind="control")
    listen(
        panel.ask.click,
        compare,
        inputs=[panel.models, session.draft, session.token, seed],
        outputs=[panel.ranking, panel.end],
        notice=panel.notice,
        kind="model",
        trigger_mode="once",
    )


def ranking_of(
    models: list[str] | None, draft: str | None, token: str | None, seed: float | None, progress: gr.Progress = WAITING
) -> str:
    """Markup of a ranking of backbones that the asker may use, on the asker's images. Raises TLError; Unwanted where
    the asker has ended it."""
    if not models:
        raise ConfigError("no backbone is chosen; choose one or more to compare")
    if len(models) > MOST_BACKBONES:
        raise ConfigError(f"{len(models)} backbones are too many to compare at once; choose up to {MOST_BACKBONES}")
    allowed = [allowed_model(word, token) for word in models]
    if read_settings().shared:  # what is compared is loaded here, where the others' answers come from too
        here = {*api.models_at_hand(), *(word for word in allowed if "/" not in word)}
        for word in allowed:
            if word not in here:
                raise ModelError(f"{word} is not on this machine: a shared page compares only backbones that are")
    words = draft_of(draft, token).words
    chosen = parse_form({"data": words, **read_controls(["seed"], [seed])}).seed
    owner, unwanted = owner_of(token), Event()
    _unwanted[owner] = unwanted
    try:
        ticker = unless(unwanted, tick_into(progress))
        return draw_ranking(api.rank(words, models=allowed, seed=chosen, ticker=ticker))
    finally:
        if _unwanted.get(owner) is unwanted:
            del _unwanted[owner]


def unless(unwanted: Event, ticker: Ticker) -> Ticker:
    """`ticker`, which ends the work that tells it how far it is once that is no longer wanted."""

    def tick(said: str, done: int, total: int) -> None:
        if unwanted.is_set():
            raise Unwanted("the comparison was stopped")
        ticker(said, done, total)

    return tick


def end(token: str | None) -> dict[Any, Any]:
    """End the comparison that is made for the asker at its next step. Raises JobError where there is none."""
    unwanted = _unwanted.get(owner_of(token))
    if unwanted is None:
        raise JobError("nothing is being compared now; it has just ended, or waits for its turn")
    unwanted.set()
    return {}


def picked_model(event: object, token: str | None) -> str:
    """The backbone whose button was pressed, if the asker may use it. Raises ModelError, JobError."""
    return allowed_model(str(getattr(event, "picked", None) or ""), token)
