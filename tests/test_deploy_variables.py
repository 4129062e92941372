"""The settings of an app on a Space: which may be given, and that they are set where they differ, and secrets never."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub, Person, UseHub
from huggingface_hub import HfApi

from tl_core import settings
from tl_core.cli import main
from tl_core.errors import ConfigError
from tl_core.settings import check_variable, read_settings

TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz"
APP, SPACE = "me/teach", "spaces/me/teach"
GIVEN = ("--variable", "TL_MAX_IMAGES=20000", "--variable", "TL_SHARED=1")
WANTED = {"TL_MAX_IMAGES": "20000", "TL_SHARED": "1"}


@pytest.fixture
def mine(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A Hub that knows this computer's token."""
    hub.people[TOKEN] = Person("me")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


def deploy(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["deploy", "--repo-id", APP, *words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def written(hub: Hub) -> list[str]:
    """The requests about variables and secrets that could change one, and commits."""
    changing = [request for request in hub.requests if not request.startswith(("GET", "HEAD"))]
    return [request for request in changing if re.search("/variables|/secrets|/commit/", request)]


def test_variables_are_set_where_they_differ_and_a_second_deployment_sends_nothing(
    mine: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    first = deploy(capsys, *GIVEN)
    space = mine.repos[SPACE]
    assert (first["variables"], first["variables_set"]) == (WANTED, list(WANTED))
    assert space.variables == WANTED and space.secrets == {}
    mine.requests.clear()
    again = deploy(capsys, *GIVEN)
    assert (again["variables"], again["variables_set"], again["bytes"]) == (WANTED, [], 0)
    assert written(mine) == []

    space.variables |= {"TL_MAX_IMAGES": "5", "THEIRS": "kept"}
    assert deploy(capsys, *GIVEN)["variables_set"] == ["TL_MAX_IMAGES"]
    assert written(mine) == [f"POST /api/{SPACE}/variables"]
    assert space.variables == {**WANTED, "THEIRS": "kept"}


def test_who_gives_none_asks_for_none(mine: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    answer = deploy(capsys)
    assert (answer["variables"], answer["variables_set"]) == ({}, [])
    assert mine.asked("/variables") == [] == mine.asked("/secrets")


def test_a_person_reads_what_would_be_and_what_was_set(mine: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deploy", "--repo-id", APP, *GIVEN, "--dry-run"]) == 0
    planned = capsys.readouterr().out.splitlines()
    assert planned[-2:] == [f"{name}={value} would be set there, if it is not so" for name, value in WANTED.items()]
    for expected in ([f"{name}={value} set" for name, value in WANTED.items()], []):
        assert main(["deploy", "--repo-id", APP, *GIVEN]) == 0
        assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("TL_")] == expected


def test_a_rehearsal_lists_them_without_a_network(use_hub: UseHub, capsys: pytest.CaptureFixture[str]) -> None:
    use_hub("http://127.0.0.1:9")
    assert deploy(capsys, *GIVEN, "--dry-run")["variables"] == WANTED


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["HF_TOKEN=hf_secret"], r"'HF_TOKEN' is no setting of this program; allowed are .*TL_MAX_IMAGES"),
        (["TL_OFFLINE=1"], "'TL_OFFLINE' is no setting"),
        (["tl_workers=1"], "'tl_workers' is no setting"),
        (["=1"], "'' is no setting"),
        (["hf_secret"], "--variable is NAME=VALUE"),
        (["TL_MAX_IMAGES=many"], "TL_MAX_IMAGES is 'many'; it must be a whole number"),
        (["TL_KEPT_RUNS="], "TL_KEPT_RUNS is given without a value"),
        (["TL_PROJECT_URL=here"], "TL_PROJECT_URL is 'here'; it must be an address"),
        (["TL_SHARED=0"], "would show everybody .* add --private"),
        (["TL_SHARED=perhaps"], "TL_SHARED is 'perhaps'; it must be 1 or 0"),
        (["TL_HOME="], "TL_HOME is given without a value"),
        (["TL_WORKERS=1", "TL_WORKERS=2"], "TL_WORKERS is given twice"),
    ],
)
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_what_is_no_setting_is_refused_before_anything_is_asked(
    mine: Hub, capsys: pytest.CaptureFixture[str], words: list[str], said: str, more: list[str]
) -> None:
    given = [part for word in words for part in ("--variable", word)]
    refused = deploy(capsys, *given, *more, code=2)["error"]
    assert re.search(said, refused) and "\n" not in refused and "hf_secret" not in refused
    assert mine.requests == [] and mine.repos == {}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_token_that_may_not_set_them_is_said_and_a_second_try_goes_on(
    mine: Hub, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    mine.fail(method, "/variables", 1, 403, says="not you, TOKEN")
    refused = deploy(capsys, *GIVEN, code=2)["error"]
    assert re.search(
        r"does not let this access token .* its files are there, and its variables \(TL_MAX_IMAGES, TL_SHARED\) "
        "perhaps not; use a token",
        refused,
    )
    assert TOKEN not in refused and "app.py" in mine.repos[SPACE].files and mine.repos[SPACE].variables == {}
    again = deploy(capsys, *GIVEN)
    assert (again["bytes"], again["variables_set"]) == (0, list(WANTED))


def test_every_variable_that_is_read_may_be_given_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    named = set(re.findall(r'"(TL_[A-Z_]+)"', Path(settings.__file__).read_text(encoding="utf-8")))
    assert named == set(settings._VARIABLES)
    for name in named:
        check_variable(name, "https://example.org/project" if name == "TL_PROJECT_URL" else "1")
        if name != "TL_HOME":
            monkeypatch.setenv(name, "-3")
            with pytest.raises(ConfigError, match=f"{name} is '-3'"):
                read_settings()
            monkeypatch.delenv(name)


def test_the_hub_of_the_tests_keeps_secrets_and_variables_as_the_client_asks(mine: Hub) -> None:
    api = HfApi(endpoint=mine.url, token=TOKEN)
    api.create_repo(APP, repo_type="space", space_sdk="gradio")
    api.add_space_secret(APP, "KEY", "hidden", description="of somebody")
    api.add_space_variable(APP, "A", "1")
    assert {name: each.value for name, each in api.add_space_variable(APP, "B", "2").items()} == {"A": "1", "B": "2"}
    assert api.get_space_variables(APP)["B"].value == "2"
    assert list(api.get_space_secrets(APP)) == ["KEY"] and "hidden" not in str(api.get_space_secrets(APP))
    assert mine.repos[SPACE].secrets == {"KEY": "hidden"}
    assert list(api.delete_space_variable(APP, "A")) == ["B"]
    api.delete_space_secret(APP, "KEY")
    assert mine.repos[SPACE].secrets == {} and mine.repos[SPACE].variables == {"B": "2"}
    runtime = HfApi(endpoint=mine.url, token=False).get_space_runtime(APP)
    assert (runtime.stage, runtime.hardware) == ("NO_APP_FILE", "cpu-basic")
