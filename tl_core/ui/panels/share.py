"""Share: a run's model, and on request a demo of it, as repositories on the Hub.

What would be sent can be looked at first; what is there already is replaced only after it was said what would change.
Must not know how good the model is, nor how a repository is written to.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from tl_core import api
from tl_core.errors import DataError, HubError, TLError
from tl_core.hub.changes import Changes, Occupied
from tl_core.hub.names import Kind
from tl_core.runs import Run
from tl_core.settings import read_settings
from tl_core.sharing import files_of, foresee
from tl_core.ui.destinations import (
    history_of,
    needs_consent,
    shown_card,
    what_would_be_sent,
    where_it_is,
    word_of,
)
from tl_core.ui.events import listen
from tl_core.ui.markup import as_sentence, hint, notice, notice_of_error, paragraph
from tl_core.ui.panels.results import find_result, run_choices
from tl_core.ui.push_form import ANY_NAME, ANY_OWNER, Wanted, example_pictures, suggested_name
from tl_core.ui.session import Session, own_run
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
from tl_core.ui.waiting import WAITING, tick_into

_ABOUT = (
    "Put the model on the Hugging Face Hub, with a card that says what it recognises, how it was made and how good it "
    "is. Others then use it by its name, and you can train further from it anywhere."
)
_NO_RUN = "No run is chosen yet. Choose one above that has ended with a model, or train one in the steps before."
_READY = (
    "Press “Show what would be sent” to see every file first, or push at once: nothing that is there already is "
    "touched."
)
_TOKEN_INFO = (
    "With the role write, from huggingface.co/settings/tokens. It is used for this push alone: it is neither stored "
    "nor logged, and this field is emptied once it is done."
)
_TOKEN_LOOKS, _OWN_TOKEN = "hf_…", "left empty: the token of this computer"
_SPACE_INFO = "A small page on the Hub where anybody can try the model with a picture or the camera."
_EXAMPLES = "Show these test pictures in the demo: they become public"
_SURE = "Nothing was sent. If you want that, press “Replace what is there”; else take another name."
# What was said of another name is not true of this one. In the browser, for an answer that comes late would wipe out
# what has been said since.
_JS_UNSAY = f"""() => [{json.dumps(hint(_READY))}, "", {{"__type__": "update", "visible": false}}]"""
_CHANGED = "What is there has changed since you looked. Nothing was sent; look at it again."


@dataclass(frozen=True)
class SharePanel:
    run: gr.Dropdown
    state: gr.HTML
    shown: gr.Textbox  # the run that the form is about, "" where there is none
    body: gr.Column
    who: gr.HTML
    token_fold: gr.Accordion
    pasted: gr.Textbox
    sign_in: gr.Button
    owner: gr.Dropdown
    name: gr.Textbox
    private: gr.Checkbox
    space: gr.Checkbox
    examples: gr.Checkbox
    pictures: gr.HTML
    went: gr.HTML
    look: gr.Button
    push: gr.Button
    replace: gr.Button
    notice: gr.HTML
    plan: gr.HTML
    said: gr.Textbox  # stands for the changes that were shown, which alone may be allowed
    fold: gr.Accordion
    card: gr.Markdown

    @property
    def form(self) -> list[Any]:
        return [self.owner, self.name, self.private, self.space, self.examples]


def build() -> SharePanel:
    offered = is_offered(read_settings())
    made: dict[str, Any] = {}
    slot(paragraph(_ABOUT))
    made["run"] = gr.Dropdown([], label="Run", info="A training of yours that has a model.", elem_id="share-run")
    made["state"] = slot(hint(_NO_RUN), elem_id="share-state")
    made["shown"] = gr.Textbox(visible="hidden", label="the run that is shared")
    with gr.Column(visible=False, elem_id="share-body") as made["body"]:
        made["went"] = slot(elem_id="share-went")
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=300):
                gr.Markdown("### Where to")
                made["who"] = slot(elem_id="share-who")
                made["sign_in"] = sign_in_button("share", "share-sign-in")
                with gr.Accordion("Access token", open=False, visible=not offered, elem_id="share-token-fold") as made[
                    "token_fold"
                ]:
                    made["pasted"] = gr.Textbox(
                        label="Access token",
                        info=_TOKEN_INFO,
                        type="password",
                        max_lines=1,
                        placeholder=_TOKEN_LOOKS,
                        html_attributes=gr.InputHTMLAttributes(autocomplete="off", spellcheck=False),
                        elem_id="share-token",
                    )
                made["owner"] = owner_field("share-owner")
                made["name"] = gr.Textbox(
                    label="Name of the repository",
                    info="Letters, digits, hyphens, underscores and dots.",
                    max_lines=1,
                    elem_id="share-name",
                )
                made["private"] = gr.Checkbox(
                    label="Private", info="Only you, and whom you let, can see it.", elem_id="share-private"
                )
                made["space"] = gr.Checkbox(label="Also make a demo Space", info=_SPACE_INFO, elem_id="share-space")
                made["examples"] = gr.Checkbox(label=_EXAMPLES, visible=False, elem_id="share-examples")
                made["pictures"] = slot(elem_id="share-pictures")
            with gr.Column(scale=1, min_width=300):
                gr.Markdown("### What is sent")
                with gr.Row(elem_classes="tl-buttons"):
                    made["push"] = gr.Button("Push to the Hub", variant="primary", elem_id="share-push")
                    made["look"] = gr.Button("Show what would be sent", elem_id="share-look")
                made["notice"] = slot(elem_id="share-notice")
                made["plan"] = slot(hint(_READY), elem_id="share-plan")
                made["replace"] = gr.Button(
                    "Replace what is there", variant="stop", visible=False, elem_id="share-replace"
                )
                made["said"] = gr.Textbox(visible="hidden", label="the changes that were shown")
        with gr.Accordion("The card that others will read", open=False, elem_id="share-card-fold") as made["fold"]:
            made["card"] = gr.Markdown(elem_id="share-card", elem_classes="tl-card-shown")
    return SharePanel(**made)


def bind(panel: SharePanel, session: Session, *opened: Any) -> None:
    """`opened` are triggers that somebody comes to share: only then the Hub is asked who they are."""
    unsaid: dict[Any, Any] = {panel.said: "", panel.replace: gr.Button(visible=False)}

    def offer(run_id: str | None, token: str) -> dict[Any, Any]:
        choices = run_choices(token)
        return {panel.run: gr.Dropdown(choices, value=run_id if run_id in dict(choices).values() else None)}

    def choose(run_id: str | None) -> dict[Any, Any]:
        return {session.run: run_id or ""}

    def show(run_id: str | None, token: str, before: str) -> dict[Any, Any]:
        """What somebody has filled in stays while it is about the same run."""
        closed = {panel.card: "", panel.fold: gr.Accordion(open=False)}
        fresh = {**unsaid, **closed, panel.plan: hint(_READY), panel.notice: ""}
        nothing = {**fresh, panel.body: gr.Column(visible=False), panel.shown: ""}
        said, run, report = find_result(run_id, token, _NO_RUN)
        if run is None or report is None:
            return {**nothing, panel.state: said}
        now = {panel.state: said, panel.went: history_of(run)}
        if before == run.id:
            return now
        return {
            **fresh,
            **now,
            panel.shown: run.id,
            panel.body: gr.Column(visible=True),
            panel.name: suggested_name(run),
            panel.space: False,
            panel.examples: gr.Checkbox(False, visible=False),
            panel.pictures: "",
        }

    def identify(run_id: str, pasted: str, owner: str | None, signed: gr.OAuthToken | None) -> dict[Any, Any]:
        """Whose token is at hand, and under which names they may publish."""
        signed_out = is_offered(read_settings()) and signed is None
        button = {panel.sign_in: gr.Button(visible=signed_out)}
        if not run_id:
            return button
        try:
            account = account_for(token_for(pasted, signed, read_settings(), known=bool(owner)), read_settings())
        except TLError as failure:
            said = (
                notice(as_sentence(failure.message), "warn")
                if signed_out or not (pasted or "").strip()
                else notice_of_error(failure)
            )
            asked_for = {panel.token_fold: gr.Accordion(open=True)}
            return {**button, **asked_for, panel.who: said, panel.owner: gr.Dropdown([], value=None)}
        token_field = gr.Textbox(placeholder=_OWN_TOKEN if not (pasted or "").strip() else _TOKEN_LOOKS)
        return {
            **button,
            panel.who: introduced(account, of_computer=not signed and not (pasted or "").strip()),
            panel.owner: offered_owners(account, owner),
            panel.pasted: token_field,
        }

    def offer_examples(run_id: str, token: str, space: bool) -> dict[Any, Any]:
        if not space:
            return {panel.examples: gr.Checkbox(False, visible=False), panel.pictures: ""}
        run = own_run(run_id, token)
        try:
            shown = example_pictures(run)
        except DataError:  # the model was taught all its pictures, or they are gone: there is nothing to consent to
            return {panel.examples: gr.Checkbox(False, visible=False), panel.pictures: ""}
        return {panel.examples: gr.Checkbox(False, visible=True), panel.pictures: shown}

    def show_card(run_id: str, token: str, *form: Any) -> dict[Any, Any]:
        run, wanted = own_run(run_id, token), Wanted(*form)
        named = f"{(wanted.owner or '').strip() or ANY_OWNER}/{(wanted.name or '').strip() or ANY_NAME}"
        return {panel.card: shown_card(files_of(run, named))}

    def look(run_id: str, token: str, pasted: str, signed: gr.OAuthToken | None, *form: Any) -> dict[Any, Any]:
        run, wanted = own_run(run_id, token), Wanted(*form)
        try:
            access = token_for(pasted, signed, read_settings(), known=bool(wanted.owner))
        except HubError as failure:  # all but what is there already can be said without the Hub
            named = Wanted(wanted.owner or ANY_OWNER, *form[1:])
            planned = api.push(run.id, named.repo_id, **wanted.options, dry_run=True)
            said = notice(as_sentence(failure.message), "warn")
            return {**unsaid, panel.plan: what_would_be_sent(planned, None), panel.notice: said}
        return describe(run, wanted, what_is_there(run, wanted, access))

    def what_is_there(run: Run, wanted: Wanted, access: str) -> dict[Kind, Changes | None]:
        asked_for: dict[str, Any] = {"space": wanted.space, "private": wanted.private, "examples": wanted.pictures(run)}
        return foresee(run, wanted.repo_id, access, read_settings(), **asked_for)

    def describe(run: Run, wanted: Wanted, found: Mapping[Kind, Changes | None]) -> dict[Any, Any]:
        planned = api.push(run.id, wanted.repo_id, **wanted.options, dry_run=True)
        asks = needs_consent(found)
        return {
            panel.plan: what_would_be_sent(planned, found),
            panel.said: word_of(wanted.repo_id, found) if asks else "",
            panel.replace: gr.Button(visible=asks),
        }

    def send(
        run_id: str,
        token: str,
        pasted: str,
        signed: gr.OAuthToken | None,
        *form: Any,
        progress: gr.Progress = WAITING,
    ) -> dict[Any, Any]:
        run, wanted = own_run(run_id, token), Wanted(*form)
        access = token_for(pasted, signed, read_settings(), known=bool(wanted.owner))
        try:
            return publish(run, wanted, access, progress, replace=False)
        except Occupied:
            return {**describe(run, wanted, what_is_there(run, wanted, access)), panel.notice: notice(_SURE, "warn")}

    def send_over(
        run_id: str,
        token: str,
        pasted: str,
        said: str,
        signed: gr.OAuthToken | None,
        *form: Any,
        progress: gr.Progress = WAITING,
    ) -> dict[Any, Any]:
        """Only what was shown is allowed: where it is something else by now, that is shown first."""
        run, wanted = own_run(run_id, token), Wanted(*form)
        access = token_for(pasted, signed, read_settings(), known=bool(wanted.owner))
        found = what_is_there(run, wanted, access)
        if said and said == word_of(wanted.repo_id, found):
            seen = {kind: changes.commit for kind, changes in found.items() if changes is not None}
            try:
                return publish(run, wanted, access, progress, replace=seen)
            except Occupied:  # in between
                found = what_is_there(run, wanted, access)
        return {**describe(run, wanted, found), panel.notice: notice(_CHANGED, "warn")}

    def publish(
        run: Run, wanted: Wanted, access: str, progress: gr.Progress, *, replace: bool | Mapping[Kind, str]
    ) -> dict[Any, Any]:
        ticker = tick_into(progress, in_bytes=True)
        answer = api.push(run.id, wanted.repo_id, **wanted.options, replace=replace, token=access, ticker=ticker)
        return {
            **unsaid,
            panel.plan: where_it_is(answer),
            panel.went: history_of(run),
            panel.pasted: "",
        }

    changes = [session.run.change, session.ready.change, session.finished.change]
    asked = [session.run, session.token]
    shown = [panel.plan, panel.said, panel.replace]
    view = partial(listen, notice=panel.notice, kind="view")
    hub = partial(listen, notice=panel.notice, kind="hub", trigger_mode="once")
    view(changes, offer, inputs=asked, outputs=[panel.run], asked=False)
    view(panel.run.input, choose, inputs=[panel.run], outputs=[session.run])
    view(
        changes,
        show,
        inputs=[*asked, panel.shown],
        trigger_mode="always_last",
        asked=False,
        outputs=[
            *(
                panel.state,
                panel.shown,
                panel.body,
                panel.went,
                panel.name,
                panel.space,
                panel.examples,
                panel.pictures,
            ),
            *(panel.card, panel.fold, *shown),
        ],
    )
    listen(
        [*opened, session.run.change, panel.pasted.submit, panel.pasted.blur],
        identify,
        inputs=[session.run, panel.pasted, panel.owner],
        outputs=[panel.who, panel.sign_in, panel.owner, panel.token_fold, panel.pasted],
        notice=panel.notice,
        kind="hub",
        trigger_mode="always_last",
        show_progress="hidden",
        asked=False,
    )
    gr.on([part.input for part in panel.form], None, outputs=shown, js=_JS_UNSAY, api_visibility="private")
    view(panel.space.input, offer_examples, inputs=[*asked, panel.space], outputs=[panel.examples, panel.pictures])
    view([panel.fold.expand], show_card, inputs=[*asked, *panel.form], outputs=[panel.card])
    hub(panel.look.click, look, inputs=[*asked, panel.pasted, *panel.form], outputs=shown)
    sent = [*shown, panel.went, panel.pasted]
    hub(panel.push.click, send, inputs=[*asked, panel.pasted, *panel.form], outputs=sent)
    hub(panel.replace.click, send_over, inputs=[*asked, panel.pasted, panel.said, *panel.form], outputs=sent)
