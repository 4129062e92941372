"""What transfer gained: as much time for random weights, decided once, and told with its doubt."""

from pathlib import Path

import pytest
from models import save_resnet
from pictures import make_folder

import tl_core
from tl_core.errors import JobError
from tl_core.files import read_json
from tl_core.ml import control
from tl_core.ml.finetuning import Finetuning
from tl_core.model_card import render_card
from tl_core.runs import Run, find_run
from tl_core.settings import read_settings
from tl_core.terminal import lines_of_training


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "photos", {"a": 30, "b": 30, "c": 30})


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MIN_SECONDS", 0.5)


def train(photos: Path, tmp_path: Path, **options: object) -> dict:
    source = save_resnet(tmp_path / "m")
    return tl_core.train(photos, model=str(source.path), control=True, precision="fp32", **options)


@pytest.mark.usefixtures("short")
def test_a_frozen_run_and_its_control_are_judged_on_the_same_pictures(photos: Path, tmp_path: Path) -> None:
    report = train(photos, tmp_path)
    found = report["control"]
    assert report["metrics"]["method"] == "held-out"  # folds would judge pictures that a control must train on
    assert found["images"] == report["metrics"]["images"]
    assert found["difference"] == pytest.approx(report["metrics"]["accuracy"] - found["accuracy"])
    assert found["difference_ci"][0] <= found["difference"] <= found["difference_ci"][1]
    assert not found["stopped"] and found["failed"] is None
    (line,) = [line for line in lines_of_training(report) if line.startswith("from random weights")]
    assert f"{100 * found['difference']:+.1f} points" in line
    card = (Path(report["model_dir"]) / "README.md").read_text(encoding="utf-8")
    assert "## What transfer gained" in card and "another seed" in card
    assert not (Path(report["run_dir"]) / "checkpoints").exists()


@pytest.mark.usefixtures("short")
def test_features_that_were_there_already_took_their_time_as_well(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets: list[float | None] = []

    def note_minutes(self: Finetuning) -> None:
        budgets.append(self.config.minutes)
        raise JobError("enough")

    monkeypatch.setattr(control, "seconds_of_pass", lambda *_: 600.0)
    monkeypatch.setattr(Finetuning, "run", note_minutes)
    train(photos, tmp_path)
    assert budgets[0] is not None and budgets[0] >= 10


def test_the_time_is_decided_once(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed run finds its features in the store and its head fitted in no time."""
    budgets: list[float | None] = []

    def stop(self: Finetuning) -> None:
        budgets.append(self.config.minutes)
        raise control.StopRequested

    monkeypatch.setattr(Finetuning, "run", stop)
    monkeypatch.setattr(control, "seconds_of_pass", lambda *_: 600.0)
    report = train(photos, tmp_path)
    assert report["stopped"] and report["control"] == {"stopped": True, "failed": None}
    kept = read_json(Path(report["run_dir"]) / "checkpoints" / "control" / "time.json")
    monkeypatch.setattr(control, "seconds_of_pass", lambda *_: 0.0)
    assert tl_core.resume(report["run_id"])["stopped"]
    assert budgets == [kept["seconds"] / 60] * 2


def test_a_control_that_fails_leaves_the_model_and_its_figures(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Finetuning) -> None:
        raise JobError("no room")

    monkeypatch.setattr(Finetuning, "run", fail)
    report = train(photos, tmp_path)
    run = find_run(report["run_id"], read_settings())
    assert isinstance(run, Run) and run.view().state == "succeeded"
    assert report["control"] == {"stopped": False, "failed": "no room"}
    assert tl_core.predict(report["run_id"], [next(photos.rglob("*.png"))])["predictions"]
    assert "the control failed: no room" in run.log_path.read_text(encoding="utf-8")
    assert "What transfer gained" not in render_card(report, {})
