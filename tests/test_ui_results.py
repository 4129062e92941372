"""Results, of a model that was really trained, of classes with names that want to be markup."""

import copy
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from page import HOSTILE, NAMES, Elements, by_id, handlers_of, with_mistakes

from tl_core.config import TrainConfig
from tl_core.errors import DataError, JobError
from tl_core.files import write_json
from tl_core.model_card import usage
from tl_core.result_pictures import choose_classes
from tl_core.runs import Run, create_run
from tl_core.settings import read_settings
from tl_core.terminal import spoken_accuracy
from tl_core.ui.explanations import CONTROL
from tl_core.ui.judged import behind_cell, judged_pictures, mistakes_shown, one_of_each_class, surest_mistakes
from tl_core.ui.matrix import MOST_CLASSES, describe_cell, draw_matrix, read_pick
from tl_core.ui.panels import compare, results
from tl_core.ui.panels.mistakes import CELL_PICTURES, cell_shown
from tl_core.ui.panels.trained_model import asked, example_picked, examples_of, pack_own
from tl_core.ui.verdict import gain, learnt, per_class, settings_rows, summary


@pytest.fixture
def handlers() -> dict[str, Callable[..., dict[Any, Any]]]:
    return handlers_of(results, compare)


# ---------------------------------------------------------------- the confusion matrix


def test_every_cell_with_pictures_is_a_button_that_says_what_is_behind_it() -> None:
    page = Elements(draw_matrix(["cat", "dog"], [[12, 1], [0, 7]]))
    buttons = {each["data-pick"]: each["aria-label"] for each in page.all("button")}
    assert buttons == {
        "0,0": "12 pictures of cat recognised",
        "0,1": "1 picture of cat taken for dog",
        "1,1": "7 pictures of dog recognised",
    }
    assert [each["scope"] for each in page.all("th")] == ["col", "col", "row", "row"]


def test_class_names_are_never_markup() -> None:
    drawn = draw_matrix([HOSTILE, '"><script>'], [[1, 2], [3, 4]])
    page = Elements(drawn)
    assert not page.all("img") and not page.all("script")
    assert {each["title"] for each in page.all("th")} == {HOSTILE, '"><script>'}
    assert HOSTILE in page.words


def test_a_cell_is_shaded_by_its_share_of_the_row() -> None:
    styles = [each["style"] for each in Elements(draw_matrix(["a", "b"], [[3, 1], [0, 5]])).all("button")]
    assert styles == ["--share:75%", "--share:25%", "--share:100%"]


def test_of_many_classes_the_most_confused_are_shown_and_that_is_said() -> None:
    classes = MOST_CLASSES + 20
    matrix = [[9 if row == column else 0 for column in range(classes)] for row in range(classes)]
    matrix[57][58] = 4
    shown = choose_classes(matrix, MOST_CLASSES)
    assert len(shown) == MOST_CLASSES and {57, 58} <= set(shown) and shown == sorted(shown)
    drawn = Elements(draw_matrix([f"class {each}" for each in range(classes)], matrix))
    assert f"The {MOST_CLASSES} of {classes} classes" in drawn.words
    assert "57,58" in {each["data-pick"] for each in drawn.all("button")}


@pytest.mark.parametrize(
    "picked", [None, 3, "", "1", "1,2,3", "-1,0", "0,2", "2,0", "٣,0", "1;0", "9" * 5000 + ",0", ["0", "0"]]
)
def test_a_click_that_no_cell_sends_is_refused(picked: object) -> None:
    with pytest.raises(DataError):
        read_pick(picked, 2)


def test_a_click_on_a_cell_is_read() -> None:
    assert read_pick("1,0", 2) == (1, 0)


# ---------------------------------------------------------------- pictures


def test_a_cell_shows_the_pictures_behind_it_with_truth_answer_and_probability(report: dict[str, Any]) -> None:
    report = with_mistakes(report)
    labels = report["metrics"]["labels"]
    row, column = labels.index(HOSTILE), labels.index(NAMES[1])
    said, gallery = cell_shown(report, f"{row},{column}")
    rows = behind_cell(judged_pictures(report), HOSTILE, NAMES[1])
    assert describe_cell(len(rows), HOSTILE, NAMES[1]) in Elements(said).words
    assert len(gallery) == min(len(rows), CELL_PICTURES) > 0
    assert [caption for _, caption in gallery] == [f"{each.score:.1%}: {HOSTILE} taken for {NAMES[1]}" for each in rows]
    assert not Elements(said).all("img")


def test_the_surest_mistakes_come_first_with_both_labels(report: dict[str, Any]) -> None:
    pictures = judged_pictures(with_mistakes(report))
    scores = [each.score for each in surest_mistakes(pictures)]
    assert scores == sorted(scores, reverse=True) and scores
    page = Elements(mistakes_shown(pictures, 2, read_settings()))
    assert [str(each["src"])[:23] for each in page.all("img")] == ["data:image/jpeg;base64,"] * 2
    assert page.words.count(f"{HOSTILE} taken for {NAMES[1]}") == 2
    assert "x" not in {each["src"] for each in page.all("img")}


def test_a_picture_that_is_gone_or_broken_is_said(report: dict[str, Any], tmp_path: Path) -> None:
    report = with_mistakes(report)
    mistakes = [row for row in report["predictions"] if row["label"] != row["predicted"]]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    mistakes[0]["path"], mistakes[1]["path"] = str(tmp_path / "gone.png"), str(broken)
    page = Elements(mistakes_shown(judged_pictures(report), len(mistakes), read_settings()))
    assert len(page.all("img")) == len(mistakes) - 2
    assert "2 pictures cannot be shown" in page.words


def test_no_mistake_is_said(report: dict[str, Any]) -> None:
    right = [each for each in judged_pictures(report) if each.right]
    assert "no mistake" in mistakes_shown(right, 24, read_settings())


def test_a_picture_that_changed_is_not_taken_from_the_cache(report: dict[str, Any], tmp_path: Path) -> None:
    first, second = (Path(row["path"]) for row in report["predictions"][:2])
    row = {**report["predictions"][0], "path": str(tmp_path / "p.png"), "predicted": NAMES[1], "label": HOSTILE}
    shown = []
    for number, source in enumerate((first, second)):
        shutil.copy(source, row["path"])
        os.utime(row["path"], (1e9 + number, 1e9 + number))
        shown.append(mistakes_shown(judged_pictures({"predictions": [row]}), 1, read_settings()))
    assert shown[0] != shown[1]


# ---------------------------------------------------------------- words


def test_the_verdict_begins_with_the_sentence_of_the_terminal(report: dict[str, Any]) -> None:
    assert Elements(summary(report)).words.startswith(spoken_accuracy(report["metrics"]))


def test_a_model_no_better_than_guessing_and_inherited_test_images_are_said(report: dict[str, Any]) -> None:
    report["metrics"]["baseline"] = {"label": HOSTILE, "accuracy": 1.0}
    report["warnings"] = ["3 of the test images were taught before"]
    page = Elements(summary(report))
    assert "ot shown to be better than always saying" in page.words and not page.all("img")
    assert "3 of the test images were taught before" in page.words
    assert "took no part in training" not in page.words


def test_classes_are_listed_worst_first(report: dict[str, Any]) -> None:
    metrics = copy.deepcopy(report["metrics"])
    for place, row in enumerate(metrics["per_class"]):
        row["f1"] = 1 - place / 10
    metrics["per_class"][0]["support"] = 0
    page = Elements(per_class(metrics))
    names = [row["label"] for row in metrics["per_class"]]
    assert page.words.index(names[2]) < page.words.index(names[1])
    assert names[0] not in page.words and "1 class has no test picture" in page.words


def test_what_transfer_gained_is_told_with_its_interval_or_how_to_find_out(report: dict[str, Any]) -> None:
    assert CONTROL in gain(report)
    figures = {
        "accuracy": 0.5,
        "difference": 0.25,
        "difference_ci": [-0.1, 0.6],
        "seconds": 60.0,
        "transfer_seconds": 9.0,
    }
    report["control"] = {**figures, "stopped": False, "failed": None}
    told = Elements(gain(report)).words
    assert "+25.0 points" in told and "not shown to be a difference" in told and "50.0%" in told
    report["control"] = {"stopped": True, "failed": None}
    assert "stopped" in gain(report)
    report["control"] = {"stopped": False, "failed": "no memory"}
    assert "no memory" in gain(report)
    assert "random weights" in gain({**report, "strategy": "scratch"})


def test_layers_and_settings_come_from_the_report(report: dict[str, Any]) -> None:
    assert "1 of" in Elements(learnt(report)).words and report["refit"] in Elements(learnt(report)).words
    report["training"] = {
        "steps": 60,
        "learning_rate": 0.001,
        "augmentation": {"policy": "colour", "mirror": False},
        "reasons": {"learning_rate": "small <b>", "augmentation": "varied"},
    }
    rows = settings_rows(report)
    assert ("Learning rate", "0.001", "small <b>") in rows
    assert ("Augmentation: policy", "colour", "varied") in rows and ("Augmentation: mirror", "no", "") in rows
    assert ("Precision", report["precision"], report["precision_reason"]) in rows


# ---------------------------------------------------------------- the panel


def test_a_finished_run_fills_the_page(run: Run, report: dict[str, Any], handlers: dict[str, Any]) -> None:
    answer = by_id(handlers["results.show"](run.id, ""))
    assert answer["notice"] == "" and answer["results-body"].visible is True
    assert answer["report shown"].startswith(f"{run.id}@")
    assert spoken_accuracy(report["metrics"]) in Elements(answer["results-verdict"]).words
    assert answer["results-command"] == report["command"]
    below = by_id(handlers["mistakes.show"](answer["report shown"], ""))
    assert not Elements(below["results-matrix"] + below["results-classes"]).all("img")
    beside = by_id(handlers["trained_model.show"](answer["report shown"], ""))
    assert len(Elements(beside["results-examples"]).all("button")) == len(NAMES)
    assert re.fullmatch(r"Download the model \([\d.]+ MB\)", beside["results-download"])
    assert beside["results-usage"] == usage(run.id)


def test_the_report_shown_changes_when_it_is_written_again(run: Run) -> None:
    before = results.report_word(run)
    os.utime(run.report_path, ns=(1, 1))
    assert results.report_word(run) != before


def test_no_run_and_a_run_that_is_not_there_are_said_at_the_place(run: Run, handlers: dict[str, Any]) -> None:
    nothing = by_id(handlers["results.show"]("", ""))
    assert "No run is chosen" in nothing["results-state"] and nothing["results-body"].visible is False
    absent = by_id(handlers["results.show"](HOSTILE, ""))
    assert "no run" in absent["results-state"] and absent["results-body"].visible is False
    assert not Elements(absent["results-state"]).all("img")


def test_somebody_elses_run_is_as_good_as_absent(
    run: Run, handlers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TL_SHARED", "1")
    token, word = "t" * 43, results.report_word(run)
    for answer, place in (
        (handlers["results.show"](run.id, token), "results-state"),
        (handlers["mistakes.show"](word, token), "notice"),
        (handlers["mistakes.pick"](word, token, gr.EventData(None, {"picked": "0,0"})), "notice"),
        (handlers["trained_model.ask_example"](word, token, gr.EventData(None, {"picked": "0"})), "notice"),
        (handlers["trained_model.ask"](word, "picture.png", token), "notice"),
        (handlers["trained_model.pack"](run.id, token), "notice"),
        (handlers["compare.show"]([run.id, run.id], token), "notice"),
    ):
        assert "There is no run" in Elements(by_id(answer)[place]).words
    assert results.run_choices(token) == []
    with pytest.raises(gr.Error, match="there is no run"):
        handlers["results.tell"](run.id, token)


def test_the_sentence_of_a_run_can_be_asked_for(run: Run, report: dict[str, Any], handlers: dict[str, Any]) -> None:
    assert handlers["results.tell"](run.id) == spoken_accuracy(report["metrics"])


def test_runs_without_results_say_why(home: Path) -> None:
    run = create_run(TrainConfig.parse({"data": "sample:digits"}), read_settings())
    assert results.state_of(run)[1] is None and "queued" in results.state_of(run)[0]
    with pytest.raises(JobError, match="no results"):
        results.sentence_of(run)
    write_json(run.dir / "status.json", {"state": "stopped"})
    assert "stopped before there was a model" in results.state_of(run)[0]
    write_json(run.dir / "status.json", {"state": "failed", "error": {"message": f"bad {HOSTILE}", "details": ["why"]}})
    said = Elements(results.state_of(run)[0])
    assert f"bad {HOSTILE}" in said.words and "why" in said.words and not said.all("img")
    write_json(run.dir / "status.json", {"state": "running"})
    write_json(run.dir / "process.json", {"pid": 2**22 + 1, "started": 1.0})
    assert "went away" in results.state_of(run)[0]
    assert results.run_choices("") == []


# ---------------------------------------------------------------- the model itself


def test_examples_are_asked_by_number_and_answered_from_the_report(run: Run, report: dict[str, Any]) -> None:
    examples = examples_of(report)
    assert {each.label for each in examples} == set(NAMES)
    assert example_picked(report, "1") == examples[1]
    for picked in ("-1", "3", "x", None, "/etc/passwd", "¹"):
        with pytest.raises(DataError):
            example_picked(report, picked)
    page = Elements(asked(run, examples[0].path))
    assert examples[0].predicted in page.words and not page.all("img")


def test_an_example_whose_picture_is_gone_is_another_one(report: dict[str, Any], tmp_path: Path) -> None:
    first = judged_pictures(report)[0]
    report["predictions"][0]["path"] = str(tmp_path / "gone.png")
    chosen = {each.label: each for each in one_of_each_class(judged_pictures(report))}
    assert chosen[first.label].path != tmp_path / "gone.png" and chosen[first.label].path.is_file()


def test_the_zip_lies_where_nobody_can_guess_it(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "served"))
    packed = pack_own(run)
    assert packed.is_relative_to(tmp_path / "served") and len(packed.parent.name) == 32
    assert pack_own(run) == packed and len(list((tmp_path / "served").rglob("*.zip"))) == 1
    with zipfile.ZipFile(packed) as archive:
        names = archive.namelist()
    assert {f"{run.id}/README.md", f"{run.id}/config.json", f"{run.id}/model.safetensors"} <= set(names)
