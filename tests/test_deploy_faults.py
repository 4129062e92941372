"""The app is put on a Space and the Hub fails: one sentence, nothing half done, and a second try works."""

import json
import re
from pathlib import Path

import pytest
from hub_faults import FAULTS
from hub_server import CLOSED, Hub, Person, UseHub
from hub_state import contents_of

from tl_core.cli import main
from tl_core.deployment import COMMIT_TITLE, app_files

TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz"
APP, SPACE = "me/teach", "spaces/me/teach"


@pytest.fixture
def mine(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A Hub that knows this computer's token; nobody waits to try again."""
    hub.people[TOKEN] = Person("me")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    return hub


def refused(capfd: pytest.CaptureFixture[str], *more: str) -> str:
    """The sentence of a deployment that fails: with "--json" for programs, else for people."""
    capfd.readouterr()
    assert main(["deploy", "--repo-id", APP, *more]) == 2
    printed = capfd.readouterr()
    assert "Traceback" not in printed.out + printed.err and TOKEN not in printed.out + printed.err
    sentence = json.loads(printed.out)["error"] if more else printed.err.partition("error: ")[2].partition("\n")[0]
    assert sentence and "\n" not in sentence
    return str(sentence)


def holds_the_app(hub: Hub) -> bool:
    return contents_of(app_files()).items() <= hub.repos[SPACE].files.items()


@pytest.mark.parametrize(("method", "path", "kind", "sentence"), FAULTS.values(), ids=FAULTS)
def test_each_fault_is_one_sentence_after_which_a_second_try_works(
    mine: Hub,
    home: Path,
    capfd: pytest.CaptureFixture[str],
    method: str,
    path: str,
    kind: int | str,
    sentence: str,
) -> None:
    mine.fail(method, path, 99, kind)
    assert re.search(sentence, refused(capfd))
    assert not [
        name for repo in mine.repos.values() for name in repo.files if name not in (".gitattributes", "README.md")
    ]
    assert not [title for repo in mine.repos.values() for title in repo.messages if title == COMMIT_TITLE]
    assert not list(home.rglob("published.json"))
    mine.faults.clear()
    assert main(["deploy", "--repo-id", APP]) == 0
    assert holds_the_app(mine) and mine.repos[SPACE].messages == ["initial commit", COMMIT_TITLE]


@pytest.mark.parametrize("fault", ["401", "403 to commit", "500", "refused card"])
def test_a_new_version_that_fails_leaves_the_one_that_is_there(
    mine: Hub, capfd: pytest.CaptureFixture[str], fault: str
) -> None:
    method, path, kind, sentence = FAULTS[fault]
    assert main(["deploy", "--repo-id", APP]) == 0
    space = mine.repos[SPACE]
    space.put(COMMIT_TITLE, {"app.py": b"an older version", "README.md": b"---\nsdk: gradio\n---\nolder\n"})
    before, commits = dict(space.files), len(space.messages)
    mine.fail(method, path, 99, kind)
    assert re.search(sentence, refused(capfd, "--json"))
    assert space.files == before and len(space.messages) == commits
    mine.faults.clear()
    assert main(["deploy", "--repo-id", APP]) == 0
    assert holds_the_app(mine)


@pytest.mark.parametrize("why", ["no network", "forbidden"])
def test_without_the_hub_it_is_said_and_works_later(
    mine: Hub, use_hub: UseHub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], why: str
) -> None:
    if why == "forbidden":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        assert re.search("HF_HUB_OFFLINE forbids asking the Hub", refused(capfd, "--json"))
    else:
        use_hub(CLOSED)
        assert re.search(f"^{CLOSED} cannot be reached .* nothing was sent; check", refused(capfd))
    assert mine.requests == [] and mine.repos == {}
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    use_hub(mine.url)
    assert main(["deploy", "--repo-id", APP]) == 0
    assert holds_the_app(mine)
