"""Share, its handlers: whose runs and tokens it takes, what it says before it sends, and that a token stays nowhere."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio.context import LocalContext
from hub_server import Hub, Person, Repo
from page import Elements, handlers_of
from signed import OFFERED, TOKEN, sign_in, their_token

from tl_core.files import write_json
from tl_core.runs import Run
from tl_core.settings import read_settings
from tl_core.sharing import published
from tl_core.ui import signin
from tl_core.ui.destinations import shown_card
from tl_core.ui.panels import monitor, share
from tl_core.ui.push_form import as_name, suggested_name
from tl_core.ui.session import own_run, own_runs, owner_of

MINE, THEIRS = "m" * 43, "t" * 43
Handlers = dict[str, Callable[..., dict[Any, Any]]]


@pytest.fixture
def hub(hub: Hub) -> Hub:
    """A Hub that knows one token."""
    hub.people[TOKEN] = Person("me", {"garden": "write", "museum": "read"})
    return hub


@pytest.fixture(autouse=True)
def _asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    signin._accounts.clear()


@pytest.fixture
def handlers(home: Path) -> Handlers:
    return handlers_of(share)


def told(answer: dict[Any, Any]) -> dict[str, Any]:
    """An answer by what the person sees it in; "" is the notice."""
    names = {part: (getattr(part, "elem_id", None) or getattr(part, "label", None) or "") for part in answer}
    return {names[part].removeprefix("share-"): value for part, value in answer.items()}


def push(
    handlers: Handlers, run: str, *, name: str = "leaves", token: str = "", pasted: str = TOKEN, **more: Any
) -> Any:
    form = ["me", name, more.get("private", False), more.get("space", False), more.get("examples", False)]
    return told(handlers["share.send"](run, token, pasted, more.get("signed"), *form))


@pytest.fixture(autouse=True)
def _nobody_asks() -> Any:
    yield
    LocalContext.request.set(None)


# Names


@pytest.mark.parametrize(
    ("words", "name"),
    [("Grüne Tomate!", "grune-tomate"), ("a--b..c", "a-b.c"), ("日本語", ""), ("-x-", "x"), ("repo.git", "repo")],
)
def test_a_suggested_name_is_one_that_the_hub_takes(words: str, name: str) -> None:
    assert as_name(words) == name


def test_a_run_without_a_name_is_not_called_after_a_folder(run: Run) -> None:
    assert suggested_name(run) == "image-classifier"
    config = json.loads((run.dir / "config.json").read_text())
    write_json(run.dir / "config.json", {**config, "data": "sample:shapes", "strategy": "frozen"})
    assert suggested_name(run) == "shapes-frozen"
    write_json(run.dir / "config.json", {**config, "name": "My Leaves"})
    assert suggested_name(run) == "my-leaves"


# Who one is


def test_owners_are_those_the_token_may_write_to(handlers: Handlers, run: Run, hub: Hub) -> None:
    seen = told(handlers["share.identify"](run.id, TOKEN, None, None))
    assert "You are me on the Hub." in seen["who"]
    assert seen["owner"]._constructor_args[0]["value"] == "me"
    assert seen["owner"]._constructor_args[0].get("choices", seen["owner"].choices)
    assert [value for _, value in seen["owner"].choices] == ["me", "garden"]
    again = told(handlers["share.identify"](run.id, TOKEN, "garden", None))
    assert again["notice"] == gr.skip(), "nobody has asked: what a button has said stays"
    assert "value" not in again["owner"]._constructor_args[0], "somebody may have chosen another one meanwhile"
    assert len(hub.asked("whoami")) == 1  # the Hub answers that only so often


def test_without_a_token_it_is_said_how_to_get_one_and_all_else_can_be_seen(
    handlers: Handlers, run: Run, hub: Hub
) -> None:
    seen = told(handlers["share.identify"](run.id, "", None, None))
    assert "paste one with the role write" in seen["who"] and "hf auth login" in seen["who"]
    looked = told(handlers["share.look"](run.id, "", "", None, None, "leaves", False, True, False))
    assert "your-name/leaves" in looked["plan"] and "model.safetensors" in looked["plan"] and "app.py" in looked["plan"]
    assert "paste one with the role write" in looked["notice"] and not hub.requests


def test_a_token_that_is_wrong_is_a_sentence_and_is_not_repeated(handlers: Handlers, run: Run, hub: Hub) -> None:
    answers = [
        told(handlers["share.identify"](run.id, "hf_wrong", None, None)),
        push(handlers, run.id, pasted="hf_wrong"),
    ]
    assert all("does not accept this access token" in str(answer) for answer in answers)
    assert "hf_wrong" not in str(answers)


# What is sent


def test_what_was_said_of_a_run_stays_with_it_and_goes_with_another(handlers: Handlers, run: Run) -> None:
    assert told(handlers["share.show"](run.id, "", run.id))["notice"] == gr.skip()
    assert told(handlers["share.show"](run.id, "", "another"))["notice"] == ""


def test_a_push_says_where_it_is_and_empties_the_token(handlers: Handlers, run: Run, hub: Hub) -> None:
    seen = push(handlers, run.id, space=True)
    links = [each["href"] for each in Elements(seen["plan"]).all("a")]
    assert links == [f"{hub.url}/me/leaves", f"{hub.url}/spaces/me/leaves-demo"]
    assert seen["token"] == "" and "me/leaves" in seen["went"] and seen["notice"] == ""
    assert {"README.md", "model.safetensors", "report.json"} <= set(hub.repos["me/leaves"].files)
    assert not [path for path in hub.repos["spaces/me/leaves-demo"].files if path.startswith("examples/")]
    assert [entry["repo_id"] for entry in published(run)] == ["me/leaves", "me/leaves-demo"]
    assert "nothing was sent" in push(handlers, run.id, space=True)["plan"]


def test_what_is_there_is_replaced_only_as_it_was_said(handlers: Handlers, run: Run, hub: Hub) -> None:
    hub.repos["me/leaves"] = Repo({"README.md": b"mine", "pytorch_model.bin": b"old", "notes.txt": b"x"})
    seen = push(handlers, run.id)
    assert (
        "holds something else already" in seen["plan"]
        and seen["replace"].visible
        and seen["the changes that were shown"]
    )
    for words in ("replaced: README.md", "deleted: pytorch_model.bin", "notes.txt", "added: "):
        assert words in seen["plan"]
    assert set(hub.repos["me/leaves"].files) == {"README.md", "pytorch_model.bin", "notes.txt"}

    over = handlers["share.send_over"]
    form = [None, "me", "leaves", False, False, False]
    hub.repos["me/leaves"].files["config.json"] = b"{}"  # somebody else was quicker
    again = told(over(run.id, "", TOKEN, seen["the changes that were shown"], *form))
    assert "has changed since you looked" in again["notice"] and "replaced: README.md, config.json" in again["plan"]
    assert "has changed" in told(over(run.id, "", TOKEN, "", *form))["notice"]
    assert b"mine" in hub.repos["me/leaves"].files.values()
    done = told(over(run.id, "", TOKEN, again["the changes that were shown"], *form))
    assert "It is on the Hub" in done["plan"] and set(hub.repos["me/leaves"].files) > {"notes.txt", "model.safetensors"}
    assert "pytorch_model.bin" not in hub.repos["me/leaves"].files


def test_who_waits_is_told_in_bytes_how_much_has_left(handlers: Handlers, run: Run, hub: Hub) -> None:
    shown: list[tuple[float, str]] = []
    form = [None, "me", "leaves", False, True, False]
    handlers["share.send"](run.id, "", TOKEN, *form, progress=lambda share, desc: shown.append((share, desc)))
    for kind in ("model", "space"):
        shares, words = zip(*[tick for tick in shown if tick[1].startswith(f"sending the {kind}: ")], strict=True)
        assert list(shares) == sorted(shares) and (shares[0], shares[-1]) == (0, 1)
        assert all(re.match(r"sending the \w+: [\d.,]+ (bytes|kB|MB) of [\d.]+ (kB|MB)", word) for word in words)


@pytest.mark.parametrize("changed", ["me/leaves", "spaces/me/leaves-demo"])
def test_a_file_that_somebody_changed_under_its_name_since_is_not_replaced(
    handlers: Handlers, run: Run, hub: Hub, changed: str
) -> None:
    hub.repos["me/leaves"] = Repo({"README.md": b"mine"})
    hub.repos["spaces/me/leaves-demo"] = Repo(
        {"README.md": b"mine", "app.py": b"mine"}, history=[{}], messages=["", ""]
    )
    form = [None, "me", "leaves", False, True, False]
    said = told(handlers["share.look"](run.id, "", TOKEN, *form))["the changes that were shown"]
    assert said == told(handlers["share.look"](run.id, "", TOKEN, *form))["the changes that were shown"]
    hub.repos[changed].put("quicker", {"README.md": b"theirs"})
    hub.received.clear()
    over = handlers["share.send_over"]
    again = told(over(run.id, "", TOKEN, said, *form))
    assert "has changed since you looked" in again["notice"] and again["replace"].visible
    assert hub.repos[changed].files["README.md"] == b"theirs" and hub.bytes_of("PUT") == 0
    assert not [request for request, _ in hub.received if "/commit/" in request] and published(run) == []
    assert "It is on the Hub" in told(over(run.id, "", TOKEN, again["the changes that were shown"], *form))["plan"]


def test_a_change_amid_replacing_is_not_replaced_unseen(handlers: Handlers, run: Run, hub: Hub) -> None:
    hub.repos["me/leaves"] = Repo({"README.md": b"mine"})
    form, over = [None, "me", "leaves", False, False, False], handlers["share.send_over"]
    said = told(handlers["share.look"](run.id, "", TOKEN, *form))["the changes that were shown"]
    # The look before is over when the push asks whose token it is, the look of the push itself is still to come.
    hub.fail("GET", "whoami", 1, lambda: hub.repos["me/leaves"].put("quicker", {"README.md": b"theirs"}))
    again = told(over(run.id, "", TOKEN, said, *form))
    assert "has changed since you looked" in again["notice"] and again["replace"].visible
    assert hub.repos["me/leaves"].files == {"README.md": b"theirs"} and published(run) == []
    # Between the look of the push and its commit: the Hub refuses a commit on what is not the newest any more.
    hub.fail("POST", "/preupload/", 1, lambda: hub.repos["me/leaves"].put("again", {"README.md": b"last"}))
    refused = told(over(run.id, "", TOKEN, again["the changes that were shown"], *form))
    assert "Somebody else changed the model me/leaves meanwhile" in refused["notice"]
    assert hub.repos["me/leaves"].files == {"README.md": b"last"} and published(run) == []


def test_an_interrupted_push_goes_on(handlers: Handlers, run: Run, hub: Hub) -> None:
    hub.fail("POST", "/commit/", 1, 403)
    failed = push(handlers, run.id)
    assert "is empty" in failed["notice"] and "plan" not in failed and published(run) == []
    before = hub.bytes_of("PUT")
    assert "It is on the Hub" in push(handlers, run.id)["plan"]
    assert hub.bytes_of("PUT") == before  # what had arrived whole was not sent again


def test_pictures_become_public_only_with_consent_and_are_shown_before(handlers: Handlers, run: Run, hub: Hub) -> None:
    assert told(handlers["share.offer_examples"](run.id, "", True))["pictures"] == ""  # it was taught all of them
    report = run.report() or {}
    report["metrics"]["method"] = "held-out"
    write_json(run.report_path, report)
    seen = told(handlers["share.offer_examples"](run.id, "", True))
    assert seen["examples"].value is False and seen["examples"].visible and "become public" in share._EXAMPLES
    assert len(Elements(seen["pictures"]).all("img")) == 3
    push(handlers, run.id, examples=True)  # without a demo there is nothing to show them in
    push(handlers, run.id, space=True, examples=True)
    assert len([path for path in hub.repos["spaces/me/leaves-demo"].files if path.startswith("examples/")]) == 3


def test_the_card_is_shown_with_its_pictures_and_asks_nobody_for_any(handlers: Handlers, run: Run) -> None:
    card = told(handlers["share.show_card"](run.id, "", None, "leaves", False, False, False))["card"]
    assert "your-name/leaves" in card and "data:image/png;base64," in card and not card.startswith("---")
    assert shown_card({"README.md": b"---\nlicense: x\n---\n# A\n![b](http://other/x.png)\n"}) == "# A\nb\n"


# Whose it is


def test_a_stranger_can_neither_push_nor_look(
    handlers: Handlers, run: Run, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TL_SHARED", "1")
    write_json(run.dir / "owner.json", {"owner": owner_of(MINE), "created_ns": 1})
    form = [None, "me", "leaves", False, False, False]
    for name, first in {
        "send": [TOKEN],
        "look": [TOKEN],
        "send_over": [TOKEN, "word"],
    }.items():
        for who in (THEIRS, "", None):
            answer = told(handlers[f"share.{name}"](run.id, who, *first, *form))
            assert list(answer) == ["notice"] and ("of yours" in answer["notice"] or "recognised" in answer["notice"])
    for name, more in {"show_card": ["me", "leaves", False, False, False], "offer_examples": [True]}.items():
        assert "of yours" in told(handlers[f"share.{name}"](run.id, THEIRS, *more))["notice"]
    assert "of yours" in told(handlers["share.show"](run.id, THEIRS, ""))["state"]
    assert not hub.requests
    assert "It is on the Hub" in push(handlers, run.id, token=MINE)["plan"]


def test_a_page_that_others_use_never_takes_the_token_of_its_computer(
    handlers: Handlers, run: Run, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert "by the access token of this computer" in told(handlers["share.identify"](run.id, "", None, None))["who"]
    monkeypatch.setenv("TL_SHARED", "1")
    seen = told(handlers["share.identify"](run.id, "", None, None))
    assert "there is no access token" in seen["who"].lower() and "hf auth login" not in seen["who"]


# Signed in


def test_who_is_signed_in_has_their_runs_everywhere_and_those_of_the_browser(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TL_SHARED", "1")
    write_json(run.dir / "owner.json", {"owner": owner_of(MINE), "created_ns": 1})
    before = owner_of(MINE)
    sign_in(monkeypatch, "1")
    assert owner_of(MINE) == owner_of(THEIRS) != before
    assert own_run(run.id, MINE) == run  # made in this browser before signing in
    assert own_runs(THEIRS) == []
    write_json(run.dir / "owner.json", {"owner": owner_of(MINE), "created_ns": 1})
    assert own_run(run.id, THEIRS) == run  # another browser of the same person
    sign_in(monkeypatch, "2")
    assert own_runs(MINE) == []
    sign_in(monkeypatch, "1", seconds=-1)
    with pytest.raises(Exception, match="sign in again"):
        own_run(run.id, MINE)


def test_another_site_cannot_use_who_is_signed_in_here(
    handlers: Handlers, run: Run, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_in(monkeypatch, "1", site="cross-site")
    write_json(run.dir / "owner.json", {"owner": owner_of(MINE), "created_ns": 1})
    signed = their_token()
    assert "another site" in push(handlers, run.id, token=MINE, signed=signed)["notice"]
    assert not hub.requests
    sign_in(monkeypatch, "1")
    assert "It is on the Hub" in push(handlers, run.id, token=MINE, pasted="", signed=signed)["plan"]


def test_a_run_that_is_resumed_takes_the_token_of_who_is_signed_in_if_it_is_to_be_pushed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str | None] = []
    monkeypatch.setattr("tl_core.jobs.enqueue", lambda run, settings, token: given.append(token))
    resume = handlers_of(monitor)["monitor.resume"]
    sign_in(monkeypatch, "1")
    write_json(run.dir / "owner.json", {"owner": owner_of(MINE), "created_ns": 1})
    signed = their_token()
    resume(run.id, "", MINE, signed)
    write_json(run.dir / "config.json", {**run.config().to_json(), "push_to": "me/leaves"})
    resume(run.id, "", MINE, signed)
    resume(run.id, "", MINE, None)
    assert given == [None, TOKEN, None]


def test_an_expired_sign_in_is_said_so(handlers: Handlers, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sign_in(monkeypatch, "1", seconds=-1)
    write_json(run.dir / "owner.json", {"owner": owner_of(MINE), "created_ns": 1})
    assert "Your sign-in has expired, and nothing was sent" in push(handlers, run.id, token=MINE, pasted="")["notice"]
    seen = told(handlers["share.identify"](run.id, "", None, None))
    assert "You are not signed in" in seen["who"] and seen["sign-in"].visible


def test_signing_in_is_offered_only_where_it_can_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not signin.is_offered(read_settings())
    for name, value in OFFERED.items():
        assert not signin.is_offered(read_settings())
        monkeypatch.setenv(name, value)
    assert signin.is_offered(read_settings())


def test_the_token_lies_in_no_file_and_no_answer(handlers: Handlers, run: Run, hub: Hub, home: Path) -> None:
    answers = [told(handlers["share.identify"](run.id, TOKEN, None, None)), push(handlers, run.id, space=True)]
    hub.fail("GET", "/api/models/me/other", 1, 401, says="TOKEN is wrong")
    answers.append(push(handlers, run.id, name="other"))
    assert "does not accept" in answers[-1]["notice"]
    assert TOKEN not in str(answers) and TOKEN not in repr(signin._accounts)
    for file in home.rglob("*"):
        assert not file.is_file() or TOKEN.encode() not in file.read_bytes(), file
