"""A model that is published as soon as its training has succeeded, and whose token is where."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hub_server import CLOSED, Hub, Person, Repo
from models import save_resnet
from patience import PATIENCE
from pictures import make_folder

from tl_core import api, jobs, tokens
from tl_core.cli import main
from tl_core.config import TrainConfig
from tl_core.delivery import wish_of
from tl_core.errors import HubError
from tl_core.files import read_json, write_json
from tl_core.hub.account import is_stored
from tl_core.jobs import kill_run, queue_of, request_stop
from tl_core.ml.worker import work
from tl_core.runs import LIVE_STATES, Run, create_run, derive_state, list_runs
from tl_core.settings import Settings
from tl_core.sharing import published
from tl_core.terminal import lines_of_runs, lines_of_training

ANA, BEN, HOST = "hf_AnaAnaAnaAnaAna", "hf_BenBenBenBenBen", "hf_HostHostHostHost"
NAME = "ana/tomatoes"
ROOT = Path(__file__).parent.parent


@pytest.fixture
def people(hub: Hub) -> Hub:
    hub.people |= {ANA: Person("ana", {"museum": "read"}), BEN: Person("ben"), HOST: Person("host")}
    return hub


@pytest.fixture
def mine(people: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A Hub on which Ana's token is the one at hand."""
    monkeypatch.setenv("HF_TOKEN", ANA)
    return people


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    """A training of a second, to be published."""
    make_folder(tmp_path / "photos", {"a": 12, "b": 12})
    return {"data": str(tmp_path / "photos"), "model": str(save_resnet(tmp_path / "m").path), "push_to": NAME}


@pytest.fixture
def busy(values: dict[str, Any], settings: Settings) -> Iterator[None]:
    """Somebody's run is at work in the background, so that others wait; afterwards no worker is left."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    create_run(TrainConfig.parse(values), settings).claim(process.pid, background=True)
    yield
    for run in list_runs(settings):
        if run.view().state == "queued":
            request_stop(run)
    process.communicate(b"\n")
    jobs.start_next(settings)


def words_of(values: dict[str, Any], *more: str) -> list[str]:
    return [
        "train",
        *(word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", value)),
        *more,
    ]


def the_run(settings: Settings) -> Run:
    (run,) = list_runs(settings)
    return run


def notes_of(run: Run) -> str:
    return "\n".join(event["text"] for event in run.events() if event["kind"] == "note")


# What is published, and what a run that was published says


def test_a_run_in_the_foreground_is_published_when_it_is_done(
    mine: Hub, values: dict[str, Any], settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words_of(values, "--push-private", "--push-space", "--json")) == 0
    push = json.loads(capsys.readouterr().out)["push"]
    run = the_run(settings)
    assert push["url"] == f"{mine.url}/{NAME}" and push["space_url"] == f"{mine.url}/spaces/{NAME}-demo"
    assert {f"{mine.url}/{NAME}", push["space_url"]} == {entry["url"] for entry in published(run)}
    assert mine.repos[NAME].private and mine.repos[f"spaces/{NAME}-demo"].private
    view = run.view()
    assert (view.state, view.stage, view.unpublished) == ("succeeded", "succeeded", None)
    stages = [event["name"] for event in run.events() if event["kind"] == "stage"]
    assert stages[-1] == "pushing" and f"published at {push['url']}" in notes_of(run)
    assert not any(ANA in json.dumps(event) for event in run.events())
    for name, content in mine.repos[NAME].files.items():
        if name.endswith((".md", ".json")):  # who repeats this run publishes nothing
            assert "push_" not in content.decode() and "--push" not in content.decode(), name


def test_what_is_sent_is_counted_in_bytes(mine: Hub, values: dict[str, Any]) -> None:
    told: list[tuple[int, int]] = []
    report = api.train(
        values, ticker=lambda stage, done, total: told.append((done, total)) if stage == "pushing" else None
    )
    assert told[-1] == (report["push"]["bytes"],) * 2
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_options_of_publishing_need_a_name() -> None:
    for name in ("push_private", "push_space", "push_replace"):
        with pytest.raises(Exception, match=f"--{name.replace('_', '-')} has no meaning without --push-to"):
            TrainConfig.parse({"data": "x", name: True})
        assert "push" not in TrainConfig.parse({"data": "x", "push_to": NAME, name: True}).portable().command()


# Before anything is written


BEFORE = {
    "no access token": {},
    "may not write": {"token": "hf_reader"},
    "does not accept this access token": {"token": "hf_expired"},
    "may not create repositories for 'museum'": {"token": ANA, "push_to": "museum/x"},
    "must be owner/name": {"token": ANA, "push_to": "tomatoes"},
    "exists with other content.*allow it with --push-replace": {"token": ANA, "push_to": "ana/full"},
    "ana/full-demo exists with other content": {"token": ANA, "push_to": "ana/full", "push_replace": False},
    "exists and is public": {"token": ANA, "push_to": "ana/full", "push_replace": True, "push_private": True},
    "cannot be reached": {"token": ANA, "endpoint": CLOSED},
    "HF_HUB_OFFLINE forbids": {"token": ANA, "offline": "1"},
}


@pytest.mark.parametrize("start", [api.train, api.train_in_background])
@pytest.mark.parametrize("sentence", BEFORE)
def test_whatever_is_in_the_way_is_said_before_anything_is_written(
    people: Hub, values: dict[str, Any], home: Path, monkeypatch: pytest.MonkeyPatch, sentence: str, start: Any
) -> None:
    people.people["hf_reader"] = Person("ana", role="read")
    people.repos["ana/full"] = Repo({"README.md": b"mine", "model.safetensors": b"\0"})
    given = dict(BEFORE[sentence])
    if "demo" in sentence:
        people.repos = {"spaces/ana/full-demo": Repo({"app.py": b"mine"})}
        given["push_space"] = True
    token = given.pop("token", None)
    if "endpoint" in given:
        monkeypatch.setenv("HF_ENDPOINT", given.pop("endpoint"))
    if "offline" in given:
        monkeypatch.setenv("HF_HUB_OFFLINE", given.pop("offline"))
    with pytest.raises(HubError, match=sentence) as raised:
        start({**values, **given}, token=token)
    assert not home.exists()
    assert token is None or token not in str(raised.value)


def test_on_a_shared_machine_its_owners_token_is_for_nobody(
    mine: Hub, values: dict[str, Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TL_SHARED", "1")
    with pytest.raises(HubError, match="no access token"):
        api.train_in_background(values)
    assert not home.exists() and mine.requests == []


# What goes wrong afterwards


def test_a_model_that_cannot_be_published_is_there_and_the_command_publishes_it(
    mine: Hub, values: dict[str, Any], settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    mine.fail("POST", "/commit/", 1, 403, says="no, TOKEN")
    assert main(words_of(values)) == 0
    run, told = the_run(settings), capsys.readouterr()
    view = run.view()
    assert view.state == "succeeded" and view.unpublished is not None
    error, command = view.unpublished["error"], view.unpublished["command"]
    assert "does not let this access token do that" in error and view.unpublished["repo_id"] == NAME
    lines = told.out.splitlines()
    assert lines[-2:] == [f"not published as {NAME}: {error}", f"publish: {command}"]
    assert error in notes_of(run) and error in run.log_path.read_text() and error not in told.err
    assert command in lines_of_runs([view.to_json()])[0]
    assert ANA not in told.out + told.err + json.dumps(run.events()) + run.log_path.read_text()
    assert main(shlex.split(command)[3:]) == 0
    assert "model.safetensors" in mine.repos[NAME].files and run.view().unpublished is None


def test_what_a_script_reads_of_a_failed_push(
    mine: Hub, values: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    mine.fail("POST", "/repos/create", 1, 500)
    assert main(words_of(values, "--push-replace", "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["model_dir"] and "failed at" in told["push"]["error"] and "url" not in told["push"]
    assert told["push"]["command"].endswith(f"--repo-id {NAME} --replace")


def test_a_fault_of_ours_leaves_the_model_and_no_token_in_the_log(
    mine: Hub, values: dict[str, Any], settings: Settings
) -> None:
    def stumble(stage: str, *_: object) -> None:
        if stage == "pushing":
            raise LookupError(f"header {ANA}")

    report = api.train(values, ticker=stumble)
    assert "unexpected LookupError" in report["push"]["error"]
    log = the_run(settings).log_path.read_text()
    assert "LookupError: header …" in log and ANA not in log
    assert the_run(settings).view().state == "succeeded"


@pytest.mark.parametrize("insists", [False, True])
def test_publishing_can_be_stopped_and_the_run_has_succeeded(
    mine: Hub, values: dict[str, Any], settings: Settings, insists: bool
) -> None:
    def stop(stage: str, _: int, total: int) -> None:
        if stage == "pushing" and total:
            assert the_run(settings).view().state == "running"
            the_run(settings).request_stop()
            if insists:
                raise KeyboardInterrupt

    if insists:
        with pytest.raises(KeyboardInterrupt):
            api.train(values, ticker=stop)
    else:
        assert "you have stopped that" in api.train(values, ticker=stop)["push"]["error"]
    view = the_run(settings).view()
    assert view.state == "succeeded" and view.metrics is not None
    assert view.unpublished is not None and not mine.asked("/commit/")


def test_a_run_that_is_killed_while_it_is_published_has_succeeded(values: dict[str, Any], settings: Settings) -> None:
    assert derive_state("running", True, True, False, reached="succeeded") == "running"
    assert derive_state("running", True, False, False, reached="succeeded") == "succeeded"
    run = create_run(TrainConfig.parse(values), settings)
    run.claim(os.getpid())
    write_json(run.dir / "status.json", {"state": "running", "reached": "succeeded", "stage": "pushing"})
    kill = {**(read_json(run.dir / "process.json") or {}), "started": 1.0}
    write_json(run.dir / "process.json", kill)
    assert run.view().state == "succeeded"
    with pytest.raises(Exception, match="nothing to resume"):
        api.resume(run.id)


def test_a_stopped_run_is_not_published_and_says_so(mine: Hub, values: dict[str, Any], settings: Settings) -> None:
    def stop(stage: str, *_: object) -> None:
        if stage == "training":
            the_run(settings).request_stop()

    report = api.train({**values, "strategy": "scratch", "minutes": 1}, ticker=stop)
    run = the_run(settings)
    assert report["stopped"] and report["model_dir"]
    assert f"resume {run.id}` continues it, and publishes it" in report["push"]["error"]
    assert f"not published as {NAME}" in notes_of(run)
    assert mine.repos == {} and run.view().unpublished is None

    mine.requests.clear()
    run.claim(os.getpid())
    run.request_stop()
    again = work(run, settings, echo=None)  # stopped before it has begun
    assert again["push"] == report["push"] and mine.requests == []
    told = lines_of_training(again)
    assert told[-1] == f"not published as {NAME}: {report['push']['error']}"


def test_a_run_that_is_resumed_without_a_token_says_so_at_once_and_at_the_end(
    people: Hub, values: dict[str, Any], settings: Settings
) -> None:
    run = create_run(TrainConfig.parse(values), settings)
    report = api.resume(run.id)
    first, *_, last = notes_of(run).splitlines()
    assert "will not be published: nobody has given this run an access token" in first
    assert "there is no access token" in report["push"]["error"] and report["push"]["error"] in last
    assert run.view().state == "succeeded" and people.requests == []


# Whose token is where


def test_a_run_that_waits_for_its_token_is_started_by_nobody_else(
    mine: Hub, values: dict[str, Any], busy: None, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words_of(values, "--background")) == 0
    told, run = capsys.readouterr(), list_runs(settings)[-1]
    wish = wish_of(run)
    assert wish is not None and wish.command(run) in told.err and "stored nowhere" in told.err
    assert tokens.kept(run) == ANA and ANA not in (run.dir / "queued").read_text()
    code = (
        "from tl_core.settings import read_settings; from tl_core.jobs import start_next; "
        "print([run.id for run in start_next(read_settings())])"
    )
    free = {**os.environ, "TL_PARALLEL_RUNS": "2"}
    others = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=free, capture_output=True, text=True, check=True
    )
    assert others.stdout.strip() == "[]"
    since = run.queued_since()
    jobs._let_go(settings)  # as this process does when it ends
    assert run.waits_for() is None and run.queued_since() == since and queue_of(settings) == [run.id]
    request_stop(run)
    wait_for(lambda: tokens.kept(run) is None)


def test_a_stored_login_is_not_kept(people: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no-token").write_text(ANA + "\n")
    assert is_stored(ANA) and not is_stored(BEN)
    monkeypatch.setenv("TL_SHARED", "1")
    assert not is_stored(ANA)


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def wait_for_end(runs: list[Run]) -> set[str]:
    """Names, arguments and environments of their workers."""
    seen, deadline = set(), time.monotonic() + PATIENCE
    while any(run.view().state in ("queued", *LIVE_STATES) for run in runs):
        assert time.monotonic() < deadline, [run.log_tail(30) for run in runs]
        for run in runs:
            try:
                worker = psutil.Process((read_json(run.dir / "process.json") or {"pid": 0})["pid"])
                family = [worker, *worker.children(recursive=True)] if worker.pid else []
                for process in family:
                    seen |= {process.name(), *process.cmdline(), *process.environ().values()}
            except psutil.Error:
                continue
        time.sleep(0.2)
    return seen


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="environments are read as POSIX has them")
def test_runs_of_two_people_have_each_its_own_token_and_nobody_elses(
    people: Hub,
    values: dict[str, Any],
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TL_SHARED", "1")
    monkeypatch.setenv("HF_TOKEN", HOST)
    (tmp_path / "hf").mkdir(exist_ok=True)
    (tmp_path / "hf" / "token").write_text(HOST)
    begun = [api.train_in_background(values, token=ANA, owner="a")]
    # Somebody's run whose token is gone with the process that knew it, and for which a worker will look in vain.
    gone = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    orphan = create_run(TrainConfig.parse({**values, "push_to": "ben/orphan"}), settings, "b")
    with orphan.hold():
        orphan.join_queue(gone.pid)
    assert orphan.waits_for() is not None
    gone.communicate(b"\n")
    begun += [orphan, api.train_in_background({**values, "push_to": "ben/leaves"}, token=BEN, owner="b")]
    ana, orphan, ben = begun
    try:
        assert [run.view().state for run in begun] == ["starting", "queued", "queued"]
        words = wait_for_end(begun)
    finally:
        for run in begun:
            if run.view().state in LIVE_STATES:
                kill_run(run)
        jobs.start_next(settings)
    assert [run.view().state for run in begun] == ["succeeded"] * 3
    assert set(people.repos) == {NAME, "ben/leaves"}, [run.log_tail(20) for run in begun]
    assert "no access token" in (orphan.view().unpublished or {})["error"]
    assert "not published as ben/orphan" in orphan.log_path.read_text()
    assert (ana.view().unpublished, ben.view().unpublished) == (None, None)

    asked = list(zip(people.requests, people.tokens, strict=True))
    assert {token for request, token in asked if NAME in request} <= {ANA, ""}
    assert {token for request, token in asked if "ben/leaves" in request} <= {BEN, ""}
    assert not [request for request, token in asked if token == HOST or "orphan" in request]

    secret = (ANA, BEN)
    assert not [word for word in words if any(token in word for token in (*secret, HOST))]
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert not [path for path, content in kept.items() if any(token.encode() in content for token in secret)]
    assert not [token for run in begun if (token := tokens.kept(run))]
