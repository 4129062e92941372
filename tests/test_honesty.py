"""What chooses never tests and what was taught never judges, whatever happens to the folders in between."""

import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from models import save_resnet
from pictures import make_folder, picture
from transformers import ViTImageProcessor

from tl_core import api
from tl_core.cli import main
from tl_core.config import TrainConfig
from tl_core.errors import DataError, JobError, ModelError
from tl_core.images.splits import Division
from tl_core.ml.data import Collator
from tl_core.ml.head_fitting import HeadFitting
from tl_core.ml.transforms import Normalisation
from tl_core.ml.worker import work
from tl_core.parts import recall_parts
from tl_core.recorder import Recorder
from tl_core.runs import Run, create_run
from tl_core.settings import Settings


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(save_resnet(tmp_path / "model").path)


def test_a_run_is_judged_on_its_own_test_pictures_and_on_new_ones(tmp_path: Path, model: str) -> None:
    photos = make_folder(tmp_path / "photos", {"a": 120, "b": 120})
    report = api.train({"data": str(photos), "model": model})
    tested = report["metrics"]["images"]
    again = api.evaluate(report["run_id"], str(photos))
    assert again["metrics"]["split"] == "test"
    assert again["metrics"]["images"] == tested
    assert again["metrics"]["accuracy"] == pytest.approx(report["metrics"]["accuracy"])
    assert again["metrics"]["fitted_on"] == 0
    # Renamed, moved and added pictures change nothing about which ones were taught.
    (photos / "a").rename(tmp_path / "moved")
    (tmp_path / "moved").rename(photos / "a")
    for number, file in enumerate(sorted((photos / "b").iterdir())):
        file.rename(file.with_name(f"x{number}{file.suffix}"))
    picture(0.9, seed=77_777).save(photos / "b" / "new.png")
    assert api.evaluate(report["run_id"], str(photos))["metrics"]["images"] == tested + 1
    everything = api.evaluate(report["run_id"], str(photos), split="all")["metrics"]
    assert everything["images"] == 241
    assert everything["fitted_on"] == 240 - tested


def test_after_folds_no_picture_is_left_to_judge_the_saved_model(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = make_folder(tmp_path / "few", {"a": 20, "b": 20})
    report = api.train({"data": str(photos), "model": model})
    assert report["metrics"]["method"] == "k-fold"
    with pytest.raises(DataError, match="was fitted on every image"):
        api.evaluate(report["run_id"], str(photos))
    assert api.evaluate(report["run_id"], str(photos), split="all")["metrics"]["fitted_on"] == 40
    assert main(["evaluate", report["run_id"], str(photos), "--split", "all"]) == 0
    assert "fitted on 40 of them" in capsys.readouterr().out


def test_a_given_validation_part_that_was_reported_is_called_so_again(tmp_path: Path, model: str) -> None:
    for split, count in {"train": 60, "validation": 20}.items():
        make_folder(tmp_path / "given" / split, {"a": count, "b": count}, seed=count)
    report = api.train({"data": str(tmp_path / "given"), "model": model})
    for split in (None, "validation"):
        metrics = api.evaluate(report["run_id"], str(tmp_path / "given"), split=split)["metrics"]
        assert (metrics["split"], metrics["images"]) == ("validation", 40)
        assert metrics["accuracy"] == pytest.approx(report["metrics"]["accuracy"])
    train = api.evaluate(report["run_id"], str(tmp_path / "given"), split="train")["metrics"]
    assert (train["images"], train["fitted_on"]) == (120, 120)
    with pytest.raises(DataError, match="--split can be: train, validation, all"):
        api.evaluate(report["run_id"], str(tmp_path / "given"), split="test")


def begun_run(photos: Path, model: str, settings: Settings) -> Run:
    values = {"strategy": "scratch", "max_steps": 30, "batch_size": 16, "precision": "fp32"}
    run = create_run(TrainConfig.parse({"data": str(photos), "model": model, **values}), settings)

    def stop_soon(stage: str, step: int, total: int) -> None:
        if stage == "training" and step >= 3:
            run.request_stop()

    assert work(run, settings, echo=None, ticker=stop_soon)["stopped"]
    return run


def test_pictures_added_to_a_stopped_run_stay_out_of_it(tmp_path: Path, model: str, settings: Settings) -> None:
    photos = make_folder(tmp_path / "photos", {"a": 110, "b": 110})
    run = begun_run(photos, model, settings)
    before = recall_parts(run)
    make_folder(tmp_path / "more", {"a": 20, "b": 20}, seed=9)
    for label in ("a", "b"):
        for file in (tmp_path / "more" / label).iterdir():
            file.rename(photos / label / f"0new-{file.name}")
    report = work(run, settings, echo=None)
    assert recall_parts(run) == before
    assert report["metrics"]["images"] == len(before.test)
    assert not any("0new" in row["file"] for row in report["predictions"])
    assert "40 images were added since" in run.log_path.read_text()


def test_pictures_added_to_a_run_of_folds_stay_out_of_it(
    tmp_path: Path, model: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = make_folder(tmp_path / "few", {"a": 20, "b": 20})
    run = create_run(TrainConfig.parse({"data": str(photos), "model": model}), settings)
    with monkeypatch.context() as patch:
        patch.setattr("tl_core.ml.training.save_backbone", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            work(run, settings, echo=None)
    make_folder(tmp_path / "more", {"a": 12}, seed=9)
    for file in (tmp_path / "more" / "a").iterdir():
        file.rename(photos / "a" / f"new-{file.name}")
    report = work(run, settings, echo=None)
    assert report["metrics"]["images"] == 40
    assert "all 40 images" in report["refit"]


@pytest.mark.parametrize("strategy", ["frozen", "scratch"])
def test_a_run_whose_test_images_are_gone_is_told_so(
    tmp_path: Path, model: str, settings: Settings, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "test"):
        make_folder(tmp_path / "given" / split, {"a": 30, "b": 30}, seed=len(split))
    steps = {"max_steps": 2} if strategy == "scratch" else {}
    config = TrainConfig.parse({"data": str(tmp_path / "given"), "model": model, "strategy": strategy, **steps})
    run = create_run(config, settings)
    with monkeypatch.context() as patch:
        patch.setattr("tl_core.ml.training.save_backbone", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            work(run, settings, echo=None)
    (tmp_path / "given" / "test").rename(tmp_path / "elsewhere")
    with pytest.raises(JobError, match="none of this run's test images can be found"):
        work(run, settings, echo=None)


def test_what_an_earlier_run_was_taught_does_not_judge_the_next(tmp_path: Path, model: str, settings: Settings) -> None:
    photos = str(make_folder(tmp_path / "photos", {"a": 120, "b": 120}))
    first = api.train(data=photos, model=model, strategy="scratch", max_steps=5)
    same = api.train(data=photos, model=first["run_id"])
    assert "were taught to the run" not in Run(Path(same["run_dir"])).log_path.read_text()
    other = api.train(data=photos, model=first["run_id"], seed=1)
    assert "were taught to the run" in Run(Path(other["run_dir"])).log_path.read_text()
    judged = api.evaluate(other["run_id"], photos)["metrics"]
    assert judged["fitted_on"] == 0
    assert judged["images"] < other["metrics"]["images"]


def test_a_runs_model_folder_is_the_run(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = str(make_folder(tmp_path / "few", {"a": 20, "b": 20}))
    report = api.train(data=photos, model=model)
    with pytest.raises(DataError, match="was fitted on every image"):
        api.evaluate(report["model_dir"], photos)
    monkeypatch.chdir(report["run_dir"])
    assert api.train(data=photos, model=".")["backbone"]["id"] == report["run_id"]


def test_a_backbone_that_cannot_be_used_is_refused_before_anything_is_written(
    tmp_path: Path, model: str, settings: Settings
) -> None:
    photos = str(make_folder(tmp_path / "few", {"a": 20, "b": 20}))
    weights = Path(model) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        api.train(data=photos, model=model)
    assert api.runs() == []


def test_a_run_cannot_go_on_with_other_classes(tmp_path: Path, model: str, settings: Settings) -> None:
    photos = make_folder(tmp_path / "photos", {"a": 110, "b": 110})
    run = begun_run(photos, model, settings)
    (photos / "b").rename(photos / "c")
    with pytest.raises(JobError, match=r"classes of .* have changed"):
        work(run, settings, echo=None)


def test_figures_come_from_the_saved_model_where_features_were_less_exact(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = make_folder(tmp_path / "photos", {"a": 110, "b": 110})
    exact = api.train({"data": str(photos), "model": model})
    assert exact["parity"]["features_max_abs_diff"] < 1e-4

    from tl_core.ml import frozen

    compute = frozen.backbone_features
    monkeypatch.setattr(frozen, "backbone_features", lambda *given: 2 * compute(*given))
    report = api.train({"data": str(photos), "model": model})
    assert report["parity"]["features_max_abs_diff"] > 1e-3
    saved = api.evaluate(report["run_id"], str(photos))["metrics"]
    assert report["metrics"]["calibration_error"] == pytest.approx(saved["calibration_error"], abs=1e-6)


def test_neither_strength_nor_weights_of_a_fold_have_seen_its_pictures(settings: Settings) -> None:
    """Every feature is noise, so that any leak shows as accuracy above chance."""
    random = np.random.default_rng(0)
    targets = np.repeat([0, 1], 60)
    features = random.normal(size=(120, 400)).astype(np.float32)
    config = TrainConfig.parse({"data": "x"})
    recorder = Recorder(create_run(config, settings))
    recorder.start()
    fitting = HeadFitting(features, targets, list(range(120)), 2, config, recorder)
    folds = fitting.cross_validate(Division(list(range(120)), [], []))
    assert sorted(folds.tested) == list(range(120))
    right = (folds.probabilities.argmax(1) == targets[folds.tested]).mean()
    assert 0.3 < right < 0.7
    held_out = fitting.hold_out(Division(list(range(0, 120, 2)), list(range(1, 120, 4)), list(range(3, 120, 4))))
    assert 0.2 < (held_out.probabilities.argmax(1) == targets[held_out.tested]).mean() < 0.8


def test_a_model_named_last_is_remembered_by_its_id(tmp_path: Path, model: str, settings: Settings) -> None:
    photos = make_folder(tmp_path / "photos", {"a": 30, "b": 30})
    first = api.train({"data": str(photos), "model": model})
    second = api.train({"data": str(photos), "model": "last"})
    assert json.loads(Path(second["run_dir"], "config.json").read_text())["model"] == first["run_id"]
    assert second["backbone"]["id"] == first["run_id"]


def test_a_relative_folder_means_the_same_from_anywhere(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path / "photos", {"a": 30, "b": 30})
    monkeypatch.chdir(tmp_path)
    report = api.train({"data": "photos", "model": "model"})
    config = json.loads(Path(report["run_dir"], "config.json").read_text())
    assert (config["data"], config["model"]) == (str(tmp_path / "photos"), str(tmp_path / "model"))
    handed_on = [Path(report["model_dir"], name).read_text() for name in ("README.md", "training_config.json")]
    assert not any(str(tmp_path) in text for text in handed_on)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are Unicode")
@pytest.mark.parametrize("strategy", ["frozen", "scratch"])
def test_a_file_name_that_is_no_unicode_goes_all_the_way(tmp_path: Path, model: str, strategy: str) -> None:
    photos = make_folder(tmp_path / "photos", {"a": 110, "b": 110})
    for label in (b"a", b"b"):
        folder = os.path.join(os.fsencode(photos), label)
        for name in os.listdir(folder):
            os.rename(os.path.join(folder, name), os.path.join(folder, b"caf\xe9-" + name))
    steps = {"max_steps": 3} if strategy == "scratch" else {}
    report = api.train({"data": str(photos), "model": model, "strategy": strategy, **steps})
    assert json.loads(Path(report["run_dir"], "report.json").read_bytes().decode("utf-8", "surrogateescape"))
    assert main(["evaluate", report["run_id"], str(photos), "--json"]) == 0


def test_a_picture_that_is_deleted_meanwhile_is_named(tmp_path: Path, model: str, settings: Settings) -> None:
    photos = make_folder(tmp_path / "photos", {"a": 110, "b": 110})
    values = {"strategy": "scratch", "max_steps": 60, "batch_size": 16, "precision": "fp32"}
    run = create_run(TrainConfig.parse({"data": str(photos), "model": model, **values}), settings)

    def delete_all(stage: str, step: int, total: int) -> None:
        if stage == "training" and step == 2:
            for file in photos.rglob("*.*"):
                file.unlink()

    with pytest.raises(DataError, match=r"photos/./\d+\.(png|jpg): cannot be opened"):
        work(run, settings, echo=None, ticker=delete_all)
    assert run.view().state == "failed"


def test_loading_processes_can_receive_the_collator() -> None:
    collate = pickle.loads(pickle.dumps(Collator(Normalisation(ViTImageProcessor()), channels_last=True)))
    batch = collate([{"pixel_values": torch.zeros(3, 8, 8, dtype=torch.uint8), "labels": torch.tensor(1)}])
    assert batch["pixel_values"].shape == (1, 3, 8, 8)


@pytest.mark.slow
def test_resume_is_exact_across_epochs_with_loading_processes(
    tmp_path: Path, model: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    monkeypatch.setattr("tl_core.ml.trainer.MIN_IMAGES_FOR_LOADERS", 1)
    photos = make_folder(tmp_path / "photos", {"a": 110, "b": 110})
    values = {"data": str(photos), "model": model, "strategy": "scratch", "precision": "fp32", "batch_size": 32}
    config = TrainConfig.parse({**values, "max_steps": 25, "checkpoint_minutes": 0.0001})
    whole = create_run(config, settings)
    steps_per_epoch = work(whole, settings, echo=None)["training"]["steps_per_epoch"]
    for stop_at in (steps_per_epoch, steps_per_epoch + 1, 2 * steps_per_epoch):
        run = create_run(config, settings)

        def stop(stage: str, step: int, total: int, run: Run = run, stop_at: int = stop_at) -> None:
            if stage == "training" and step == stop_at:
                run.request_stop()

        work(run, settings, echo=None, ticker=stop)
        work(run, settings, echo=None)
        weights = [load_file(r.model_dir / "model.safetensors") for r in (whole, run)]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0]), stop_at
