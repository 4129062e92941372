"""A model of the Hub, opened by its id: asked in Python and in the page, the backbone or teacher of a run, pinned."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from cards import front_matter
from hub_server import Hub, Repo, commit
from models import save_resnet
from page import handlers_of
from pictures import make_folder, picture

from tl_core import api
from tl_core.config import TrainConfig
from tl_core.errors import HubError
from tl_core.ml.worker import work
from tl_core.pins import FILE_NAME, Pins, recall_pins, remember_pins
from tl_core.runs import Run, create_run, list_runs
from tl_core.settings import Settings
from tl_core.sources import open_model
from tl_core.ui.panels import try_model

NAME, TEACHER = "owner/net", "owner/teacher"
# The folders of the photos are called like the classes that the model on the Hub knows.
CLASSES = ("LABEL_0", "LABEL_1", "LABEL_2")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def models(hub: Hub, tmp_path: Path) -> Hub:
    """A Hub with a small model and a teacher."""
    for number, name in enumerate((NAME, TEACHER)):
        hub.repos[name] = Repo(files_of(save_resnet(tmp_path / name, seed=number).path))
    return hub


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    return {"data": str(make_folder(tmp_path / "photos", dict.fromkeys(CLASSES, 8))), "model": NAME}


def newest(models: Hub, name: str = NAME) -> str:
    return commit(models.repos[name].files)


def move_on(models: Hub, tmp_path: Path, name: str = NAME) -> str:
    """Somebody trains the model further and pushes it: the commit before."""
    before = newest(models, name)
    models.repos[name].put("trained further", files_of(save_resnet(tmp_path / f"newer-{name}", seed=7).path))
    assert newest(models, name) != before
    return before


def stop_at(stage: str, settings: Settings) -> Any:
    """A ticker that asks the run to stop as soon as it is there."""

    def ticker(name: str, *_: int) -> None:
        if name == stage:
            list_runs(settings)[0].request_stop()

    return ticker


def backbone_of(report: dict[str, Any]) -> tuple[str, str]:
    return report["backbone"]["id"], report["backbone"]["revision"]


# Asked


def test_a_model_is_asked_by_its_id(models: Hub, tmp_path: Path) -> None:
    picture(0.1, 0).save(tmp_path / "new.png")
    (answer,) = api.predict(NAME, [tmp_path / "new.png"])["predictions"]
    assert {each["label"] for each in answer["labels"]} == set(CLASSES)
    assert models.asked("model.safetensors")


def test_the_page_asks_a_model_by_its_id(home: Path, models: Hub, tmp_path: Path) -> None:
    picture(0.1, 0).save(tmp_path / "new.png")
    answered = [
        str(value)
        for value in handlers_of(try_model)["try_model.ask"](NAME, "", str(tmp_path / "new.png"), "").values()
    ]
    assert any(NAME in words and all(label in words for label in CLASSES) for words in answered), answered


def test_the_page_asks_a_model_by_its_id_where_others_use_it_too(
    home: Path, models: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nobody's token: what it may fetch is what anybody may."""
    monkeypatch.setenv("TL_SHARED", "1")
    monkeypatch.setenv("HF_TOKEN", "hf_OfTheMachineItself")
    picture(0.1, 0).save(tmp_path / "new.png")
    answered = handlers_of(try_model)["try_model.ask"](NAME, "", str(tmp_path / "new.png"), "a" * 43)
    assert any(CLASSES[0] in str(value) for value in answered.values()), answered
    assert set(models.tokens) == {""}


# Trained from


def test_a_run_and_its_card_name_the_commit_of_the_backbone(models: Hub, values: dict[str, Any]) -> None:
    report = api.train(values)
    assert backbone_of(report) == (NAME, newest(models))
    card = (Path(report["model_dir"]) / "README.md").read_text()
    assert front_matter(card)["base_model"] == NAME
    assert f"{models.url}/{NAME}/tree/{newest(models)}" in card
    assert recall_pins(Run(Path(report["run_dir"]))) == Pins(newest(models))


def test_a_model_trained_on_is_under_the_licence_that_the_card_of_its_backbone_names(
    models: Hub, values: dict[str, Any]
) -> None:
    models.repos[NAME].put("card", {"README.md": b"---\nlicense: MIT\n---\n\n# A net\n"})
    report = api.train(values)
    card = (Path(report["model_dir"]) / "README.md").read_text()
    assert (report["backbone"]["licence"], front_matter(card)["license"]) == ("mit", "mit")
    assert f"[{NAME}]" in card.partition("## Licence")[2] and "which is under mit." in card
    again = api.train({**values, "model": report["run_id"]})  # and so is what is trained on from that
    assert again["backbone"]["licence"] == "mit"


def test_a_run_without_a_model_of_the_hub_pins_nothing(values: dict[str, Any], tmp_path: Path) -> None:
    report = api.train({**values, "model": str(save_resnet(tmp_path / "m").path)})
    assert not (Path(report["run_dir"]) / FILE_NAME).exists()


def test_a_run_that_was_stopped_goes_on_with_the_commits_that_it_began_with(
    models: Hub, values: dict[str, Any], settings: Settings, tmp_path: Path
) -> None:
    taught = {**values, "strategy": "full", "max_steps": 4, "teacher": TEACHER}
    report = api.train(taught, ticker=stop_at("training", settings))
    (run,) = list_runs(settings)
    assert report["stopped"]
    before = Pins(*(move_on(models, tmp_path, name) for name in (NAME, TEACHER)))
    assert recall_pins(run) == before
    resumed = api.resume(run.id)
    assert not resumed["stopped"]
    assert (resumed["backbone"]["revision"], resumed["teacher"]["revision"]) == (before.model, before.teacher)
    assert f"/tree/{before.model}" in (run.model_dir / "README.md").read_text()
    assert backbone_of(api.train(values)) == (NAME, newest(models)), "another run takes what is there now"


def test_a_run_that_waited_opens_what_was_there_when_it_was_started(
    models: Hub, values: dict[str, Any], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tl_core.jobs.start_next", lambda settings: [])  # others are at work
    run = api.train_in_background(values)
    before = move_on(models, tmp_path)
    models.requests.clear()
    assert backbone_of(work(run, settings, echo=None)) == (NAME, before)
    assert models.requests == [], "what was fetched for it already needs no Hub"


def test_a_commit_that_is_no_longer_in_the_cache_is_fetched_again(
    models: Hub, values: dict[str, Any], settings: Settings, tmp_path: Path
) -> None:
    run = pinned_run(models, values, settings, tmp_path)
    before = recall_pins(run).model
    assert backbone_of(api.resume(run.id)) == (NAME, before)


@pytest.mark.parametrize("gone", ["the commit", "the repository"])
def test_a_commit_that_is_gone_says_what_to_do(
    models: Hub, values: dict[str, Any], settings: Settings, tmp_path: Path, gone: str
) -> None:
    run = pinned_run(models, values, settings, tmp_path)
    before = recall_pins(run).model
    if gone == "the commit":
        models.repos[NAME].history.clear()
    else:
        del models.repos[NAME]
    with pytest.raises(HubError, match=f"began with {NAME} at revision {before}.*start a new run"):
        api.resume(run.id)
    assert run.view().state == "failed" and "start a new run" in run.view().message
    assert recall_pins(run).model == before


def test_a_pinned_model_is_the_hubs_whatever_is_called_so_here_by_now(
    models: Hub, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the folder owner/net lies that the model was made in
    assert open_model(NAME, settings).kind == "folder"
    pinned = open_model(NAME, settings, revision=newest(models))
    assert (pinned.kind, pinned.named, pinned.revision) == ("hub", NAME, newest(models))


def pinned_run(models: Hub, values: dict[str, Any], settings: Settings, tmp_path: Path) -> Run:
    """A run that has begun on another day: its commit is not the newest, and not on this machine."""
    run = create_run(TrainConfig.parse(values), settings)
    remember_pins(run, Pins(move_on(models, tmp_path)))
    remember_pins(run, Pins(newest(models)))  # once is for good
    shutil.rmtree(tmp_path / "hf", ignore_errors=True)
    return run
