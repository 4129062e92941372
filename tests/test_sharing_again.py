"""A run is published where something is already: what is left alone, what is found in time, what is remembered."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub, Person, Repo

from tl_core import published as record
from tl_core.config import TrainConfig
from tl_core.errors import HubError, JobError
from tl_core.files import write_json
from tl_core.runs import Run
from tl_core.settings import Settings
from tl_core.sharing import Occupied, check_push, foresee, published, push_run

TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz"
NAME = "me/tomatoes"
DEMO = "spaces/me/tomatoes-demo"


@pytest.fixture
def mine(hub: Hub) -> Hub:
    hub.people[TOKEN] = Person("me")
    return hub


def push(run: Run, settings: Settings, **options: Any) -> dict[str, Any]:
    return push_run(run, NAME, TOKEN, settings, **options)


def change(run: Run) -> None:
    """The run is no more what was published."""
    (run.model_dir / "more.json").write_text("{}")


# What is somebody's


def test_only_parts_of_an_earlier_model_are_deleted(run: Run, mine: Hub, settings: Settings) -> None:
    theirs = {
        **{"onnx/model.safetensors": b"\0", "lora/adapter_model.safetensors": b"\0", "results/mine.png": b"\0"},
        **{"notes.txt": b"mine", "pytorch_model.bin": b"\0", "results/training-curves.png": b"\0"},
    }
    mine.repos[NAME] = Repo(dict(theirs))
    gone = ("pytorch_model.bin", "results/training-curves.png")
    found = foresee(run, NAME, TOKEN, settings)["model"]
    assert found is not None and found.removed == gone
    with pytest.raises(Occupied, match="deleted") as caught:
        push(run, settings)
    assert caught.value.details == tuple(f"- {path}" for path in gone)
    push(run, settings, replace=True)
    assert theirs.keys() - mine.repos[NAME].files.keys() == set(gone)


def test_a_renamed_repository_is_not_overwritten(run: Run, mine: Hub, settings: Settings) -> None:
    mine.repos["me/fruit"] = Repo({"README.md": b"mine"})
    mine.moved[NAME] = "me/fruit"
    with pytest.raises(HubError, match="is called me/fruit now"):
        push(run, settings, replace=True)
    assert mine.repos["me/fruit"].files == {"README.md": b"mine"}


def test_a_commit_of_somebody_elses_does_not_change_the_demo(run: Run, mine: Hub, settings: Settings) -> None:
    first = push(run, settings, space=True)
    before = published(run)
    mine.repos[NAME].put("Add notes", {"notes.txt": b"mine"})
    again = push(run, settings, space=True)
    assert (again["commit"], again["bytes"]) == (first["commit"], 0)
    assert published(run) == before


def test_a_demo_that_would_change_is_found_before_the_model_is_sent(run: Run, mine: Hub, settings: Settings) -> None:
    push(run, settings, space=True)
    del mine.repos[NAME]
    with pytest.raises(Occupied, match=r"^the Space me/tomatoes-demo exists with other content; .*figures"):
        push(run, settings, space=True)
    assert NAME not in mine.repos
    push(run, settings, space=True, replace=True)


# What is found in time


def test_a_space_that_nobody_may_have_is_found_before_the_model_is_sent(
    run: Run, mine: Hub, settings: Settings
) -> None:
    mine.fail("POST", "/create", 1, 402)
    said = r"wants a subscription or credits for the Space me/tomatoes-demo .*; nothing was sent; .*the model alone"
    with pytest.raises(HubError, match=said):
        push(run, settings, space=True)
    assert mine.repos == {} and published(run) == []
    push(run, settings, space=True)
    assert {NAME, DEMO} == set(mine.repos)


def test_a_public_demo_of_a_private_model_is_found_before_anything_is_sent(
    run: Run, mine: Hub, settings: Settings
) -> None:
    mine.repos[DEMO] = Repo({"app.py": b"mine"})
    with pytest.raises(HubError, match="the Space me/tomatoes-demo exists and is public"):
        push(run, settings, space=True, private=True, replace=True)
    assert NAME not in mine.repos


@pytest.mark.parametrize("place", [NAME, DEMO])
def test_what_may_not_be_written_to_is_found_before_a_training(mine: Hub, settings: Settings, place: str) -> None:
    mine.people[TOKEN] = Person("me", role="oauth")
    mine.repos[place] = Repo({"app.py": b"mine"})
    config = TrainConfig.parse({"data": "photos"})
    with pytest.raises(HubError, match="this access token may not write to it"):
        check_push(config, NAME, TOKEN, settings, space=True, replace=True)


def test_a_grant_for_what_is_not_there_is_found_before_a_training(mine: Hub, settings: Settings) -> None:
    mine.people[TOKEN] = Person("me", role="fineGrained", writes=(NAME,))
    config = TrainConfig.parse({"data": "photos"})
    with pytest.raises(HubError, match="and not create it, and it is not there"):
        check_push(config, NAME, TOKEN, settings)
    mine.repos[NAME] = Repo({".gitattributes": b"x"})
    check_push(config, NAME, TOKEN, settings)


def test_a_model_that_would_be_kept_out_is_found_before_a_training(mine: Hub, settings: Settings) -> None:
    mine.repos[NAME] = Repo({".gitignore": b"*.safetensors\n"})
    with pytest.raises(HubError, match=r"keeps out model\.safetensors"):
        check_push(TrainConfig.parse({"data": "photos"}), NAME, TOKEN, settings, replace=True)


# What is remembered


def test_what_is_private_already_is_said_to_be_private(run: Run, mine: Hub, settings: Settings) -> None:
    push(run, settings, private=True)
    change(run)
    assert push(run, settings, replace=True)["private"]
    assert [entry["private"] for entry in published(run)] == [True, True]


@pytest.mark.parametrize("damage", ["[{", '{"a": 1}', '[1, {"repo_id": "me/earlier"}]', "\udcff"])
def test_a_damaged_record_is_put_aside(run: Run, mine: Hub, settings: Settings, damage: str) -> None:
    damaged = damage.encode(errors="surrogateescape")
    (run.dir / "published.json").write_bytes(damaged)
    published(run)
    push(run, settings)
    kept = ["me/earlier"] if "earlier" in damage else []
    assert [entry["repo_id"] for entry in published(run)] == [*kept, NAME]
    (aside,) = run.dir.glob("published.damaged-*.json")
    assert aside.read_bytes() == damaged


def test_a_record_that_cannot_be_read_is_not_overwritten(run: Run, mine: Hub, settings: Settings) -> None:
    write_json(run.dir / "published.json", [])
    (run.dir / "published.json").unlink()
    (run.dir / "published.json").mkdir()
    with pytest.raises(JobError, match=rf"it is at {mine.url}/{NAME}, but the run's folder cannot tell so"):
        push(run, settings)
    assert published(run) == [] and (run.dir / "published.json").is_dir()


def test_a_full_disk_does_not_hide_where_the_model_is(
    run: Run, mine: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, value: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(record, "write_json", full)
    said = rf"it is at {mine.url}/{NAME} and {mine.url}/{DEMO}, but the run's folder cannot tell so: .*No space left"
    with pytest.raises(JobError, match=said):
        push(run, settings, space=True)
    assert json.loads(mine.repos[DEMO].files["figures.json"])["model"] == NAME
