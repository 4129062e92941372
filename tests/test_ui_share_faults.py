"""Share and a Hub that fails: a sentence where the person looks, nothing remembered, and pressing again works."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_faults import FAULTS
from hub_server import CLOSED, Hub, Person, Repo, UseHub
from hub_state import contents_of
from page import Elements, by_id, handlers_of

from tl_core.files import write_json
from tl_core.runs import Run
from tl_core.sharing import files_of, published
from tl_core.ui import signin
from tl_core.ui.panels import share

TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz"
NAME = "me/leaves"
FORM = [None, "me", "leaves", False, False, False]
EARLIER = [{"repo_id": "me/earlier", "kind": "model", "url": "http://x/me/earlier", "commit": "c", "at": "2026-01-01"}]
Handlers = dict[str, Callable[..., dict[Any, Any]]]


@pytest.fixture
def mine(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A Hub that knows the token; nobody waits to try again."""
    hub.people[TOKEN] = Person("me")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    signin._accounts.clear()
    return hub


@pytest.fixture
def handlers(home: Path) -> Handlers:
    return handlers_of(share)


@pytest.fixture
def run(run: Run) -> Run:
    """That run, published once before as something else."""
    write_json(run.dir / "published.json", EARLIER)
    return run


def refused(answer: dict[Any, Any], capfd: pytest.CaptureFixture[str]) -> str:
    """The words of a notice, beside which nothing has changed: what the person has filled in is still there."""
    seen = by_id(answer)
    assert list(seen) == ["share-notice"]
    printed = capfd.readouterr()
    page = Elements(seen["share-notice"])
    assert "alert" in str(page.all("div")) and "fault of the app" not in page.words
    assert not [text for text in (page.words, printed.out, printed.err) if "Traceback" in text or TOKEN in text]
    return page.words


def is_there(hub: Hub, run: Run) -> bool:
    return contents_of(files_of(run, NAME)).items() <= hub.repos[NAME].files.items()


@pytest.mark.parametrize(("method", "path", "kind", "sentence"), FAULTS.values(), ids=FAULTS)
def test_each_fault_is_a_sentence_and_pressing_again_works(
    handlers: Handlers,
    run: Run,
    mine: Hub,
    capfd: pytest.CaptureFixture[str],
    method: str,
    path: str,
    kind: int | str,
    sentence: str,
) -> None:
    send = handlers["share.send"]
    mine.fail(method, path, 99, kind)
    assert re.search(sentence, refused(send(run.id, "", TOKEN, *FORM), capfd), re.IGNORECASE)
    assert published(run) == EARLIER
    assert not [name for repo in mine.repos.values() for name in repo.files if name != ".gitattributes"]
    mine.faults.clear()
    done = by_id(send(run.id, "", TOKEN, *FORM))
    assert "It is on the Hub" in done["share-plan"] and done["share-notice"] == ""
    assert is_there(mine, run) and [entry["repo_id"] for entry in published(run)] == ["me/earlier", NAME]


@pytest.mark.parametrize("fault", ["401", "403 to commit", "409", "500", "cut", "wrong hash"])
def test_a_replacement_that_fails_leaves_what_is_there_and_may_be_pressed_again(
    handlers: Handlers, run: Run, mine: Hub, capfd: pytest.CaptureFixture[str], fault: str
) -> None:
    method, path, kind, sentence = FAULTS[fault]
    mine.repos[NAME] = Repo({"README.md": b"theirs", "notes.txt": b"kept"})
    said = by_id(handlers["share.look"](run.id, "", TOKEN, *FORM))["the changes that were shown"]
    over = handlers["share.send_over"]
    mine.fail(method, path, 99, kind)
    assert re.search(sentence, refused(over(run.id, "", TOKEN, said, *FORM), capfd), re.IGNORECASE)
    assert mine.repos[NAME].files == {"README.md": b"theirs", "notes.txt": b"kept"} and published(run) == EARLIER
    mine.faults.clear()
    assert "It is on the Hub" in by_id(over(run.id, "", TOKEN, said, *FORM))["share-plan"]
    assert is_there(mine, run) and mine.repos[NAME].files["notes.txt"] == b"kept"


@pytest.mark.parametrize("why", ["no network", "forbidden"])
def test_without_the_hub_it_is_said_and_works_later(
    handlers: Handlers,
    run: Run,
    mine: Hub,
    use_hub: UseHub,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    why: str,
) -> None:
    send = handlers["share.send"]
    if why == "forbidden":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    else:
        use_hub(CLOSED)
    said = "HF_HUB_OFFLINE forbids asking the Hub" if why == "forbidden" else f"{CLOSED} cannot be reached"
    for name in ("share.send", "share.look"):
        assert said in refused(handlers[name](run.id, "", TOKEN, *FORM), capfd)
    assert said in refused(handlers["share.send_over"](run.id, "", TOKEN, "a word", *FORM), capfd)
    assert published(run) == EARLIER and mine.requests == []
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    use_hub(mine.url)
    assert "It is on the Hub" in by_id(send(run.id, "", TOKEN, *FORM))["share-plan"]
