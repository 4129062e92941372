"""Push when done: whose names are offered, what the form means, whose token a training is given, and when the Hub is
asked."""

import asyncio
import html
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio.context import LocalContext
from hub_server import Hub, Person
from page import by_id
from signed import TOKEN, sign_in, their_token

from tl_core import api
from tl_core.config import TrainConfig
from tl_core.drafts import create_draft
from tl_core.errors import HubError
from tl_core.runs import create_run, list_runs
from tl_core.settings import Settings, read_settings
from tl_core.ui import signin
from tl_core.ui.panels import train
from tl_core.ui.session import build_session, draft_word, owner_of
from tl_core.ui.starting import as_json, begin, configure, shown

MINE = "m" * 43
WISHED = {"push_to": "garden/leaves", "push_private": True, "push_space": True}
Handler = Callable[..., dict[Any, Any]]


@pytest.fixture
def hub(hub: Hub) -> Hub:
    hub.people[TOKEN] = Person("me", {"garden": "write", "museum": "read"})
    return hub


@pytest.fixture(autouse=True)
def _nobody_is_known() -> Any:
    signin._accounts.clear()
    yield
    LocalContext.request.set(None)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The tokens that trainings are started with; no worker is."""
    tokens: list[str | None] = []

    def start(config: TrainConfig, *, owner: str, token: str | None = None, ticker: Any = None) -> Any:
        tokens.append(token)
        return create_run(config, read_settings(), owner)

    monkeypatch.setattr(api, "train_in_background", start)
    return tokens


def build_step() -> tuple[train.TrainPanel, dict[str, Handler]]:
    """The step with its handlers, as the page has it: looked at when its tab is opened."""

    async def build() -> tuple[
        gr.Blocks, train.TrainPanel
    ]:  # outside of a loop Gradio makes loops and never closes them
        with gr.Blocks(analytics_enabled=False) as app:
            session = build_session()
            with gr.Tabs(), gr.Tab("Train") as tab:
                panel = train.build()
            train.bind(panel, session, tab.select)
        return app, panel

    app, panel = asyncio.run(build())
    return panel, {each.fn.__name__: each.fn for each in app.fns.values() if each.fn}


def filled(panel: train.TrainPanel, owner: str | None, name: str, *ticked: str) -> list[Any]:
    values = {id(control): control.value for control in panel.form}
    values |= {id(panel.when_done.owner): owner, id(panel.when_done.name): name}
    values |= {id(panel.when_done.ticks[option]): True for option in ticked}
    return [values[id(control)] for control in panel.form]


def meant(panel: train.TrainPanel, *form: Any) -> TrainConfig:
    return configure(train.read_form(panel, tuple(filled(panel, *form))), "sample:shapes", "")


# What the form means


def test_an_owner_and_a_name_are_the_option_and_the_command_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    panel, handlers = build_step()
    config = meant(panel, "garden", " leaves ", "push_private", "push_space")
    assert {name: getattr(config, name) for name in WISHED} == WISHED and not config.push_replace
    followed = by_id(handlers["follow"]("", "", *filled(panel, "garden", "leaves", "push_space")))
    assert followed["train-command"].endswith("--push-to garden/leaves --push-space")
    assert '"push_to": "garden/leaves"' in followed["train-config"]
    monkeypatch.setenv("TL_SHARED", "1")
    assert "--push-to garden/leaves --push-private" in shown(config).command() and "push_to" in as_json(shown(config))


def test_without_a_name_nothing_is_pushed_whatever_is_ticked() -> None:
    panel, _ = build_step()
    assert meant(panel, "me", " ", "push_private", "push_space") == TrainConfig.parse({"data": "sample:shapes"})
    assert meant(panel, "me", "garden/leaves").push_to == "garden/leaves"


# Who one is


def test_the_owners_are_those_of_who_is_signed_in(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    sign_in(monkeypatch, "1")
    _, handlers = build_step()
    seen = by_id(handlers["greet"](None, their_token()))
    assert "You are me on the Hub." in seen["when-done-who"] and "is not kept" not in seen["when-done-who"]
    assert not seen["when-done-sign-in"].visible
    assert [value for _, value in seen["when-done-owner"].choices] == ["me", "garden"]
    assert seen["when-done-owner"].value == "me"
    assert set(hub.tokens) == {TOKEN}


def test_who_is_not_signed_in_or_no_longer_is_told_so_and_the_hub_is_not_asked(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_in(monkeypatch, "1", seconds=-1)
    _, handlers = build_step()
    for owner, sentence in ((None, "You are not signed in"), ("me", "Your sign-in has expired")):
        seen = by_id(handlers["greet"](owner, None))
        assert sentence in seen["when-done-who"] and seen["when-done-sign-in"].visible
        assert "what you have chosen here is not kept" in seen["when-done-who"]  # the page opens anew
    assert hub.requests == []


def test_on_a_computer_of_ones_own_the_hub_is_asked_only_when_the_fold_is_opened(
    hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    panel, handlers = build_step()
    assert not panel.when_done.fold.open
    assert by_id(handlers["greet"](None, None)) == {"notice": ""} and hub.requests == []
    seen = by_id(handlers["identify"](None, None))
    assert "You are me on the Hub, by the access token of this computer." in seen["when-done-who"]
    assert len(hub.asked("whoami")) == 1
    monkeypatch.delenv("HF_TOKEN")
    assert "hf auth login" in by_id(handlers["identify"](None, None))["when-done-who"]


@pytest.mark.parametrize(("volume", "is_open"), [(False, True), (True, False)])
def test_where_everything_is_lost_at_a_restart_it_is_open_by_itself(
    monkeypatch: pytest.MonkeyPatch, volume: bool, is_open: bool
) -> None:
    sign_in(monkeypatch, "1")
    settings = Settings(home=Path("/data" if volume else "/tmp/x"), shared=True, on_space=True, persistent=volume)
    monkeypatch.setattr("tl_core.ui.panels.when_done.read_settings", lambda: settings)
    fold = build_step()[0].when_done.fold
    assert (fold.open, fold.visible) == (is_open, True)


def test_where_nobody_can_sign_in_and_others_look_on_it_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TL_SHARED", "1")
    assert not build_step()[0].when_done.fold.visible


# The start


def test_a_training_that_is_to_be_pushed_is_given_the_token_of_who_is_signed_in(
    home: Path, given: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_in(monkeypatch, "1")
    config = TrainConfig.parse({"data": "sample:shapes", **WISHED})
    begin(config, MINE, signed=their_token())
    begin(TrainConfig.parse({"data": "sample:shapes"}), MINE, signed=their_token())
    assert given == [TOKEN, None]


def test_without_a_sign_in_a_training_that_is_to_be_pushed_is_not_started(
    home: Path, given: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_in(monkeypatch, "1", seconds=-1)
    config = TrainConfig.parse({"data": "sample:shapes", **WISHED})
    with pytest.raises(HubError, match="you are not signed in"):
        begin(config, MINE)
    with pytest.raises(HubError, match="your sign-in has expired"):
        begin(config, MINE, known=True)
    panel, handlers = build_step()
    draft = draft_word(create_draft(read_settings(), owner_of(MINE), "sample:shapes"))
    for owner, sentence in (("garden", "sign-in has expired"), (None, "You are not signed in")):
        answer = by_id(handlers["start"](MINE, draft, None, *filled(panel, owner, "leaves")))
        assert sentence in html.unescape(answer["train-notice"]), answer
    assert given == [] and list_runs(read_settings()) == []


def test_gradio_hands_the_token_to_every_handler_that_takes_one() -> None:
    _, handlers = build_step()
    for name in ("greet", "identify", "start"):
        assert inspect.signature(handlers[name]).parameters["signed"].annotation == gr.OAuthToken | None
