"""Push when done: under whose name and which the model goes to the Hub as soon as its training has succeeded.

The Hub is asked who somebody is when they open the fold, or have signed in; never because a page is opened. Must not
know what is trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from tl_core.config import SHARE, options
from tl_core.errors import TLError
from tl_core.hub.account import sound_token, token_at_hand
from tl_core.settings import read_settings
from tl_core.ui.events import listen
from tl_core.ui.explanations import WHEN_DONE, WHEN_DONE_WORDS
from tl_core.ui.form import controls_for
from tl_core.ui.markup import as_sentence, hint, notice, paragraph
from tl_core.ui.signin import (
    account_for,
    introduced,
    is_offered,
    offered_owners,
    owner_field,
    sign_in_button,
    token_for,
)
from tl_core.ui.slot import slot

_SIGN_IN_FIRST = (
    "Sign in before you fill in this step: it opens the page anew, and what you have chosen here is not kept. Your "
    "images and runs are."
)
_NAME_INFO = "The name of the repository: letters, digits, '-', '_' and '.'. Left empty, nothing is pushed."


@dataclass(frozen=True)
class WhenDonePanel:
    fold: gr.Accordion
    notice: gr.HTML
    who: gr.HTML
    sign_in: gr.Button
    owner: gr.Dropdown
    name: gr.Textbox
    ticks: dict[str, Any]  # by option: what goes with `push_to`

    @property
    def form(self) -> list[Any]:
        return [self.owner, self.name, *self.ticks.values()]


def build() -> WhenDonePanel:
    settings, made = read_settings(), {}
    offered = is_offered(settings)
    (publish_as,) = (option for option in options() if option.name == "push_to")
    with gr.Accordion(
        WHEN_DONE,
        open=settings.on_space and not settings.persistent,
        visible=offered or not settings.shared,  # where others use it too, nobody's token is at hand but by signing in
        elem_id="when-done",
    ) as made["fold"]:
        slot(paragraph(WHEN_DONE_WORDS, "tl-quiet"))
        made["notice"] = slot()
        made["who"] = slot(elem_id="when-done-who")
        made["sign_in"] = sign_in_button("train", "when-done-sign-in")
        made["owner"] = owner_field("when-done-owner")
        made["name"] = gr.Textbox(
            label=publish_as.label, info=_NAME_INFO, max_lines=1, placeholder="my-classifier", elem_id="when-done-name"
        )
        made["ticks"] = controls_for(option.name for option in options() if option.group == SHARE and option.needs)
    return WhenDonePanel(**made)


def bind(panel: WhenDonePanel, *opened: Any) -> None:
    """`opened` are triggers that somebody comes here: who is signed in then is told so."""

    def identify(owner: str | None, signed: gr.OAuthToken | None) -> dict[Any, Any]:
        """Under which names the asker may publish."""
        settings = read_settings()
        offered = is_offered(settings)
        button = {panel.sign_in: gr.Button(visible=offered and signed is None)}
        try:
            account = account_for(_access(owner, signed), settings)
        except TLError as failure:
            said = notice(as_sentence(failure.message), "warn")
            said += hint(_SIGN_IN_FIRST) if offered and signed is None else ""
            return {**button, panel.who: said, panel.owner: gr.Dropdown([], value=None)}
        return {
            **button,
            panel.who: introduced(account, of_computer=not offered),
            panel.owner: offered_owners(account, owner),
        }

    def greet(owner: str | None, signed: gr.OAuthToken | None) -> dict[Any, Any]:
        return identify(owner, signed) if is_offered(read_settings()) else {}

    ask = partial(
        listen,
        inputs=[panel.owner],
        outputs=[panel.who, panel.sign_in, panel.owner],
        notice=panel.notice,
        kind="hub",
        trigger_mode="always_last",
        show_progress="hidden",
    )
    ask(panel.fold.expand, identify)
    if opened:
        ask(list(opened), greet)


def read_wish(panel: WhenDonePanel, values: Sequence[Any]) -> dict[str, Any]:
    """The values of `panel.form` by option: none of them counts where there is no name."""
    owner, name, *ticks = values
    owner, name = (owner or "").strip(), (name or "").strip()
    if not name:
        return {"push_to": None}
    whole = name if "/" in name or not owner else f"{owner}/{name}"
    return {"push_to": whole, **dict(zip(panel.ticks, ticks, strict=True))}


def _access(owner: str | None, signed: gr.OAuthToken | None) -> str:
    """The token of who is signed in, or this computer's. Raises HubError that says what to do."""
    settings = read_settings()
    if is_offered(settings):
        return token_for(None, signed, settings, known=bool(owner))
    return sound_token(token_at_hand())
