"""The recipe end to end, with a real Trainer on tiny models: what a run leaves behind, and that it is right."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from models import save_resnet, save_vit
from patience import PATIENCE
from pictures import make_folder
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification, pipeline

import tl_core
from tl_core.cli import main
from tl_core.config import TrainConfig
from tl_core.errors import DataError, JobError
from tl_core.jobs import start_worker
from tl_core.ml import logistic_regression
from tl_core.ml.worker import work
from tl_core.runs import Run, create_run, find_run
from tl_core.settings import Settings
from tl_core.terminal import lines_of_training

FILES_OF_A_RUN = {
    "config.json",
    "owner.json",
    "process.json",
    "status.json",
    "events.jsonl",
    "log.txt",
    "lock",
    "model",
    "report.json",
    "parts.json",
}
FILES_OF_A_FROZEN_RUN = FILES_OF_A_RUN | {"precision.json"}
FILES_OF_A_MODEL = {"config.json", "model.safetensors", "preprocessor_config.json", "README.md", "training_config.json"}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """240 learnable pictures of three classes."""
    make_folder(tmp_path / "photos", {"日本語": 80, "train station": 80, "None": 80})
    return tmp_path / "photos"


def answer(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> dict:
    assert main([*map(str, arguments), "--json"]) == code
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


def train(settings: Settings, **values: object) -> tuple[Run, dict]:
    run = create_run(TrainConfig.parse(values), settings)
    report = work(run, settings, echo=None)
    assert report is not None
    return run, report


def test_a_frozen_run_leaves_exactly_these_files(photos: Path, tmp_path: Path, settings: Settings) -> None:
    run, report = train(settings, data=str(photos), model=str(save_resnet(tmp_path / "m").path))
    assert {file.name for file in run.dir.iterdir()} == FILES_OF_A_FROZEN_RUN
    assert {file.name for file in run.model_dir.iterdir()} == FILES_OF_A_MODEL
    view = run.view()
    assert view.state == "succeeded"
    assert view.metrics is not None and view.metrics["accuracy"] == report["metrics"]["accuracy"]
    assert run.report() == json.loads(json.dumps(report))


def test_a_worker_writes_the_same_files_as_the_foreground(photos: Path, tmp_path: Path, settings: Settings) -> None:
    config = TrainConfig.parse({"data": str(photos), "model": str(save_resnet(tmp_path / "m").path)})
    run = create_run(config, settings)
    assert start_worker(run).wait(timeout=PATIENCE) == 0, run.log_path.read_text()
    assert {file.name for file in run.dir.iterdir()} == FILES_OF_A_FROZEN_RUN
    assert run.view().state == "succeeded"
    assert "computing features" in run.log_path.read_text()


@pytest.mark.parametrize("save", [save_resnet, save_vit])
def test_frozen_parts_do_not_move_and_the_head_does(photos: Path, tmp_path: Path, settings: Settings, save) -> None:
    """Batch-norm statistics included: the backbone stays in eval mode."""
    source = save(tmp_path / "m")
    run, _ = train(settings, data=str(photos), model=str(source.path))
    before, after = load_file(source.path / "model.safetensors"), load_file(run.model_dir / "model.safetensors")
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith("classifier") for name in moved)
    assert any("running_mean" in name for name in after) == (save is save_resnet)


@pytest.mark.parametrize("solver", ["exact", "trainer"])
def test_the_model_learns_and_answers_in_plain_transformers(
    photos: Path, tmp_path: Path, settings: Settings, capsys: pytest.CaptureFixture[str], solver: str
) -> None:
    source = save_resnet(tmp_path / "m")
    run, report = train(settings, data=str(photos), model=str(source.path), head_solver=solver)
    metrics = report["metrics"]
    assert metrics["accuracy"] > 0.8
    assert metrics["accuracy_ci"][0] <= metrics["accuracy"] <= metrics["accuracy_ci"][1]
    assert report["parity"]["passed"] and report["parity"]["images"] >= 30
    file = next(photos.rglob("*.*"))
    theirs = pipeline("image-classification", model=str(run.model_dir))(str(file), top_k=3)
    ours = answer(capsys, "predict", run.id, file, "--top", 0)["predictions"][0]["labels"]
    assert {entry["label"] for entry in theirs} == {"日本語", "train station", "None"}
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["label"] == other["label"]
        assert abs(mine["score"] - other["score"]) <= 1e-5


def test_the_second_run_needs_no_pass_of_the_backbone(
    photos: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save_resnet(tmp_path / "m")
    first, report = train(settings, data=str(photos), model=str(source.path))
    monkeypatch.setattr("tl_core.ml.backbone_pass.encode_batch", lambda *_: pytest.fail("the backbone ran again"))
    second, again = train(settings, data=str(photos), model=str(source.path))
    assert again["metrics"] == report["metrics"]
    weights = [load_file(run.model_dir / "model.safetensors") for run in (first, second)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_few_images_are_judged_by_folds(tmp_path: Path, settings: Settings) -> None:
    make_folder(tmp_path / "few", {"a": 20, "b": 20, "c": 20})
    _, report = train(settings, data=str(tmp_path / "few"), model=str(save_resnet(tmp_path / "m").path))
    assert report["metrics"]["method"] == "k-fold"
    assert report["metrics"]["images"] == 60
    assert "all 60 images" in report["refit"]


def test_a_class_with_one_image_is_explained_and_kept(tmp_path: Path, settings: Settings) -> None:
    make_folder(tmp_path / "odd", {"a": 30, "b": 30, "lonely": 1})
    run, report = train(settings, data=str(tmp_path / "odd"), model=str(save_resnet(tmp_path / "m").path))
    config = AutoModelForImageClassification.from_pretrained(run.model_dir).config
    assert sorted(config.id2label.values()) == ["a", "b", "lonely"]
    assert any("lonely" in warning for warning in report["data"]["warnings"])


def test_given_splits_are_respected_and_named(tmp_path: Path, settings: Settings) -> None:
    for split, count in {"train": 80, "val": 20}.items():
        make_folder(tmp_path / "given" / split, {"a": count, "b": count}, seed=count)
    _, report = train(settings, data=str(tmp_path / "given"), model=str(save_resnet(tmp_path / "m").path))
    assert report["metrics"]["split"] == "validation"
    assert report["metrics"]["images"] == 40


def test_a_head_short_of_its_minimum_is_told(
    photos: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logistic_regression, "MAX_STEPS", 1)
    run, report = train(settings, data=str(photos), model=str(save_resnet(tmp_path / "m").path))
    assert report["training"]["head_converged"] is False
    assert "the fit of the head ended before its tolerance" in run.log_path.read_text()


def test_class_weights_are_used(tmp_path: Path, settings: Settings) -> None:
    make_folder(tmp_path / "skewed", {"common": 250, "rare": 25})
    source = save_vit(tmp_path / "m")
    values = {"data": str(tmp_path / "skewed"), "model": str(source.path)}
    plain, _ = train(settings, **values)
    balanced, _ = train(settings, **values, class_weights="balanced")
    biases = [load_file(run.model_dir / "model.safetensors")["classifier.bias"] for run in (plain, balanced)]
    assert biases[1][1] - biases[1][0] > biases[0][1] - biases[0][0]


def test_scratch_learns_from_random_weights(photos: Path, tmp_path: Path, settings: Settings) -> None:
    source = save_resnet(tmp_path / "m")
    (source.path / "model.safetensors").unlink()
    run, report = train(settings, data=str(photos), model=str(source.path), strategy="scratch", max_steps=60)
    assert report["metrics"]["accuracy"] > 0.6
    assert report["training"]["steps_done"] == 60
    assert {file.name for file in run.dir.iterdir()} == FILES_OF_A_RUN
    kinds = {json.loads(line)["kind"] for line in (run.dir / "events.jsonl").read_text().splitlines()}
    assert {"training", "validation", "stage", "note", "end"} <= kinds


def test_a_time_limit_ends_training_and_keeps_the_model(photos: Path, tmp_path: Path, settings: Settings) -> None:
    model = str(save_resnet(tmp_path / "m").path)
    _, report = train(settings, data=str(photos), model=model, strategy="scratch", max_steps=100_000, minutes=0.02)
    assert 0 < report["training"]["steps_done"] < 100_000
    assert not report["stopped"]


def test_a_failure_is_told_in_the_status_and_the_log(photos: Path, tmp_path: Path, settings: Settings) -> None:
    source = save_resnet(tmp_path / "m")
    run = create_run(TrainConfig.parse({"data": str(photos), "model": str(source.path)}), settings)
    weights = source.path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    assert start_worker(run).wait(timeout=PATIENCE) == 2
    view = run.view()
    assert view.state == "failed"
    assert "cannot be loaded" in view.message
    log = run.log_path.read_text()
    assert "error: " in log and "Traceback" not in log


def test_a_disk_that_fills_up_is_told_and_the_run_can_go_on(
    photos: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_run(TrainConfig.parse({"data": str(photos), "model": str(save_resnet(tmp_path / "m").path)}), settings)

    def fill_up(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tl_core.ml.training.save_backbone", fill_up)
        with pytest.raises(JobError, match="is full; make room"):
            work(run, settings, echo=None)
    assert run.view().state == "failed"
    assert "is full" in run.view().message
    work(run, settings, echo=None)
    assert run.view().state == "succeeded"


def test_the_command_line_tells_the_whole_story(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_resnet(tmp_path / "m").path
    value = answer(capsys, "train", "--data", photos, "--model", model, "--name", "first", "--seed", 1)
    assert {"run_id", "run_dir", "model_dir", "strategy", "metrics", "seconds", "precision"} <= set(value)
    assert {"split", "images", "accuracy", "accuracy_ci", "macro_f1"} <= set(value["metrics"])
    assert set(value["seconds"]) == {"total", "features", "training", "evaluation"}

    (run,) = answer(capsys, "runs")["runs"]
    assert {"run_id", "state", "step", "total", "metrics"} <= set(run)
    assert run["run_id"] == value["run_id"] and run["state"] == "succeeded"

    figures = answer(capsys, "evaluate", "last", photos)
    assert figures["metrics"]["split"] == "test"
    assert figures["metrics"]["accuracy"] == pytest.approx(value["metrics"]["accuracy"])
    assert np.sum(figures["confusion_matrix"]) == figures["metrics"]["images"] == value["metrics"]["images"]
    assert [row["label"] for row in figures["per_class"]] == figures["labels"]

    config = Path(value["run_dir"]) / "config.json"
    again = answer(capsys, "train", "--config", config)
    assert again["metrics"] == value["metrics"]


def test_the_final_words_say_accuracy_interval_time_place_and_what_next(
    photos: Path, tmp_path: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--data", str(photos), "--model", str(save_resnet(tmp_path / "m").path)]) == 0
    out = capsys.readouterr().out
    run = find_run("last", settings)
    assert "% of " in out and "95 % interval" in out and " s in all" in out
    assert str(run.model_dir) in out
    assert f"predict {run.id} IMAGE" in out


def test_what_is_odd_about_the_images_is_said_in_the_run_too(tmp_path: Path, settings: Settings) -> None:
    photos = make_folder(tmp_path / "photos", {"many": 205, "lonely": 1})
    (photos / "many" / "broken.jpg").write_bytes(b"")
    run, report = train(settings, data=str(photos), model=str(save_resnet(tmp_path / "m").path))
    log = run.log_path.read_text()
    assert "1 file was left out" in log
    assert "warning: " in log and "lonely" in log
    assert all(f"warning: {text}" in log for text in report["data"]["warnings"])


def test_a_figure_no_better_than_guessing_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    photos = make_folder(tmp_path / "photos", {"many": 205, "lonely": 1})
    assert main(["train", "--data", str(photos), "--model", str(save_resnet(tmp_path / "m").path)]) == 0
    assert (
        "not shown to be better than always saying 'many', which is right on 100.0% of them" in capsys.readouterr().out
    )


def test_predicting_a_folder_leaves_out_what_cannot_be_read(
    photos: Path, tmp_path: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = train(settings, data=str(photos), model=str(save_resnet(tmp_path / "m").path), name="Meine Hände")
    make_folder(tmp_path / "new", {"x": 40})
    (tmp_path / "new" / "x" / "broken.png").write_text("hello")
    capsys.readouterr()
    for name in (run.id, "Meine Hände"):
        value = answer(capsys, "predict", name, tmp_path / "new", "--top", 1)
        assert len(value["predictions"]) == 40
        assert [Path(entry["file"]).name for entry in value["skipped"]] == ["broken.png"]
    assert main(["predict", run.id, str(tmp_path / "new")]) == 0
    assert "left out: " in capsys.readouterr().err


def test_the_report_says_which_layer_groups_were_trained(photos: Path, tmp_path: Path, settings: Settings) -> None:
    model = str(save_vit(tmp_path / "m").path)
    _, frozen = train(settings, data=str(photos), model=model)
    _, scratch = train(settings, data=str(photos), model=model, strategy="scratch", max_steps=2)
    names = [group["name"] for group in frozen["backbone"]["groups"]]
    assert names == ["stem", "block 1", "block 2", "head"]
    assert [group["trained"] for group in frozen["backbone"]["groups"]] == [False, False, False, True]
    assert all(group["trained"] for group in scratch["backbone"]["groups"])
    assert sum(group["parameters"] for group in frozen["backbone"]["groups"]) == frozen["backbone"]["parameters"]


def test_failures_are_json_where_json_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "/nowhere", "--json"]) == 2
    out, err = capsys.readouterr()
    assert "there is no /nowhere" in json.loads(out)["error"]
    assert err.startswith("error: ")


def test_a_run_takes_its_options_as_keywords_too(photos: Path, tmp_path: Path) -> None:
    report = tl_core.train(data=str(photos), model=str(save_resnet(tmp_path / "m").path))
    assert report["metrics"]["images"] > 0
    assert {"train", "check", "predict"} <= set(dir(tl_core))


def test_the_data_can_be_the_one_thing_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no-such-folder"):
        tl_core.train(tmp_path / "no-such-folder")
    with pytest.raises(DataError, match="no sample 'nothing'"):
        tl_core.train("sample:nothing")


def test_figures_that_are_too_good_say_so_wherever_they_are(photos: Path, tmp_path: Path, settings: Settings) -> None:
    first = tl_core.train(photos, model=str(save_resnet(tmp_path / "m").path))
    again = tl_core.train(photos, model=first["run_id"], seed=5)
    (sentence,) = again["warnings"]
    assert "were taught to the run that this one begins from" in sentence
    assert sentence in lines_of_training(again)
    assert sentence in (Path(again["model_dir"]) / "README.md").read_text(encoding="utf-8")
    assert first["warnings"] == []
