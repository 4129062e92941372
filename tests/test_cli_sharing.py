"""`push` and `deploy` as a person types them: rehearsed, done, done again, refused; and where the token is not."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hub_server import Hub, Person, Repo, UseHub
from hub_state import contents_of

import tl_core
from tl_core.cli import main
from tl_core.deployment import COMMIT_TITLE, OURS, app_files
from tl_core.runs import Run

TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz"
NAME, APP = "me/tomatoes", "me/teach"
ROOT = Path(__file__).parent.parent


@pytest.fixture
def mine(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A Hub that knows this computer's token."""
    hub.people[TOKEN] = Person("me")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


def say(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    """The one JSON object that a command answers with."""
    capsys.readouterr()
    assert main([*words, "--json"]) == code
    printed = capsys.readouterr().out
    assert TOKEN not in printed
    return json.loads(printed)


def test_a_rehearsal_lists_files_and_sizes(run: Run, use_hub: UseHub, capsys: pytest.CaptureFixture[str]) -> None:
    use_hub("http://127.0.0.1:9")
    planned = say(capsys, "push", "last", "--repo-id", NAME, "--space", "--dry-run")
    assert main(["push", run.id, "--repo-id", NAME, "--space", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for part in (planned, planned["space"]):
        for file in part["files"]:
            assert f"{file['bytes']:,}  {file['path']}" in [line.strip() for line in lines]
        assert f"{len(part['files'])} files of {part['bytes']:,} bytes would go to {part['url']}" in lines
    assert not (run.dir / "published.json").exists()


def test_without_a_token_the_person_hears_what_to_do(run: Run, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", run.id, "--repo-id", NAME]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: there is no access token") and "hf auth login" in line
    assert main(["deploy", "--repo-id", APP]) == 2
    assert "there is no access token" in capsys.readouterr().err
    assert hub.requests == []


def test_this_computers_token_is_not_for_the_visitors_of_a_shared_page(
    run: Run, mine: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TL_SHARED", "1")
    with pytest.raises(tl_core.TLError, match="there is no access token"):
        tl_core.push(run.id, NAME)
    assert tl_core.push(run.id, NAME, token=TOKEN)["url"] == f"{mine.url}/{NAME}"


def test_a_run_is_pushed_and_pushed_again(run: Run, mine: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", run.id, "--repo-id", NAME, "--space", "--private"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"model: 8 new; demo: 4 new, 1 changed; [\d,]+ bytes sent", lines[0])
    assert lines[1:] == [f"{mine.url}/{NAME}", f"{mine.url}/spaces/{NAME}-demo"]
    assert mine.repos[NAME].private and mine.repos[f"spaces/{NAME}-demo"].private
    again = say(capsys, "push", run.id, "--repo-id", NAME, "--space", "--private")
    assert again["bytes"] == 0 and len(again["space_changes"]["same"]) == 5
    assert main(["push", run.id, "--repo-id", NAME]) == 0
    assert "0 bytes sent" in capsys.readouterr().out


def test_what_is_there_already_is_told_and_replaced_when_asked(
    run: Run, mine: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    mine.repos[NAME] = Repo({"README.md": b"mine\n", "model.bin": b"\0"})
    refused = say(capsys, "push", run.id, "--repo-id", NAME, code=2)
    assert "README.md" in refused["error"] and "--replace" in refused["error"]
    assert say(capsys, "push", run.id, "--repo-id", NAME, "--replace")["changes"]["changed"] == ["README.md"]


def test_a_deployment_is_rehearsed_without_token_and_network(
    use_hub: UseHub, capsys: pytest.CaptureFixture[str]
) -> None:
    use_hub("http://127.0.0.1:9")
    planned = say(capsys, "deploy", "--repo-id", APP, "--dry-run")
    assert {file["path"] for file in planned["files"]} == set(app_files())
    assert main(["deploy", "--repo-id", APP, "--dry-run"]) == 0
    assert f"{planned['bytes']:,} bytes would go to" in capsys.readouterr().out


def test_deployed_twice_nothing_is_sent_and_then_only_what_has_changed(
    mine: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    first = say(capsys, "deploy", "--repo-id", APP)
    space = mine.repos[f"spaces/{APP}"]
    assert (first["url"], space.sdk) == (f"{mine.url}/spaces/{APP}", "gradio")
    assert contents_of(app_files()).items() <= space.files.items()

    mine.received.clear()
    again = say(capsys, "deploy", "--repo-id", APP)
    assert (again["bytes"], again["commit"]) == (0, first["commit"])
    assert mine.bytes_of("PUT") == 0 and not [line for line, _ in mine.received if "/commit/" in line]

    # As an older version of the app left it, with a file of somebody's.
    space.put("Add notes", {"notes.txt": b"their own"})
    space.put(COMMIT_TITLE, {"app.py": b"an older version", "tl_core/gone.py": b""})
    changes = say(capsys, "deploy", "--repo-id", APP)["changes"]
    assert (changes["new"], changes["changed"], changes["removed"]) == ([], ["app.py"], ["tl_core/gone.py"])
    assert space.files["notes.txt"] == b"their own"


def test_another_app_is_replaced_only_when_asked(mine: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = {"README.md": b"---\nsdk: gradio\n---\n", "app.py": b"mine", "other.py": b""}
    mine.repos[f"spaces/{APP}"] = Repo(dict(theirs), sdk="gradio")
    refused = say(capsys, "deploy", "--repo-id", APP, code=2)
    assert "--replace" in refused["error"]
    assert mine.repos[f"spaces/{APP}"].files == theirs
    say(capsys, "deploy", "--repo-id", APP, "--replace")
    assert {"other.py", OURS} <= set(mine.repos[f"spaces/{APP}"].files)


def test_an_app_that_somebody_has_changed_is_theirs(mine: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    say(capsys, "deploy", "--repo-id", APP)
    space = mine.repos[f"spaces/{APP}"]
    space.put("Update app.py", {"app.py": b"mine", "tl_core/extra.py": b"mine"})
    edited = dict(space.files)
    refused = say(capsys, "deploy", "--repo-id", APP, code=2)["error"]
    assert "app.py replaced; tl_core/extra.py deleted" in refused and "--replace" in refused
    assert space.files == edited
    changes = say(capsys, "deploy", "--repo-id", APP, "--replace")["changes"]
    assert (changes["changed"], changes["removed"]) == (["app.py"], ["tl_core/extra.py"])
    say(capsys, "deploy", "--repo-id", APP)


def test_a_renamed_app_is_not_overwritten(mine: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    say(capsys, "deploy", "--repo-id", "me/school")
    mine.moved[f"spaces/{APP}"] = "spaces/me/school"
    assert "is called me/school now" in say(capsys, "deploy", "--repo-id", APP, "--replace", code=2)["error"]


def test_a_public_app_is_not_called_private(mine: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    say(capsys, "deploy", "--repo-id", APP)
    assert "exists and is public" in say(capsys, "deploy", "--repo-id", APP, "--private", code=2)["error"]
    mine.repos[f"spaces/{APP}"].private = True
    assert say(capsys, "deploy", "--repo-id", APP)["private"]


def test_examples_without_a_demo_are_a_mistake(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert "add --space" in say(capsys, "push", run.id, "--repo-id", NAME, "--examples", code=2)["error"]


def test_an_interrupted_deployment_goes_on(mine: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    mine.fail("POST", "/commit/", 1, "cut")
    assert "try again" in say(capsys, "deploy", "--repo-id", APP, code=2)["error"]
    mine.received.clear()
    say(capsys, "deploy", "--repo-id", APP)
    assert mine.bytes_of("PUT") == 0


def _processes(started: subprocess.Popen[str]) -> Iterator[psutil.Process]:
    try:
        family = psutil.Process(started.pid)
        yield from (family, *family.children(recursive=True))
    except psutil.NoSuchProcess:
        return


@pytest.mark.parametrize("fault", [None, 401])
def test_the_token_is_in_no_file_no_word_and_no_argument(
    run: Run, mine: Hub, home: Path, tmp_path: Path, fault: int | None
) -> None:
    if fault:
        mine.fail("POST", "/commit/", 99, fault, says="no, TOKEN")  # a server that repeats what it was told
    command = [sys.executable, "-m", "tl_core", "push", run.id, "--repo-id", NAME, "--space", "--json"]
    started = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    words = set()
    while started.poll() is None:
        for process in _processes(started):
            try:
                words |= {process.name(), *process.cmdline()}
            except psutil.Error:
                continue
        time.sleep(0.02)
    printed = "".join(started.communicate())
    assert started.returncode == (2 if fault else 0)
    assert NAME in words and not [word for word in words if TOKEN in word]
    assert TOKEN not in printed
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert (run.dir / "published.json" in kept) == (fault is None)
    assert not [path for path in kept if TOKEN.encode() in path.read_bytes()]
    published = [content for repo in mine.repos.values() for content in repo.files.values()]
    assert not [content for content in published if TOKEN.encode() in content]
    assert TOKEN in mine.tokens  # it was used all the same
