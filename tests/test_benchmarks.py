"""The benchmarks: what they divide and add up is right, and each says how far its goal is."""

import json
import sys
from pathlib import Path

import pytest
from models import save_resnet
from pictures import make_folder

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import estimates, finetune, frozen, head, memory, startup, transfer
from tl_core.images.duplicates import find_duplicates
from tl_core.images.splits import divide
from tl_core.settings import Settings
from tl_core.sources import open_data


def names(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*.*")}


def test_training_sets_are_nested_and_the_test_set_is_the_same(tmp_path: Path, settings: Settings) -> None:
    collection = open_data(str(make_folder(tmp_path / "photos", {"a": 40, "b": 20})), settings)
    division = divide(collection, find_duplicates(collection.pictures).groups, 0, folds_allowed=False)
    for per_class in ("5", "10", "all"):
        transfer.lay_out(collection, division, per_class, 0, tmp_path / per_class)
    few, more, everything = (names(tmp_path / per_class / "train") for per_class in ("5", "10", "all"))
    assert len(few) == 10 and few < more < everything
    assert len(everything) == len(division.train) + len(division.validation)
    assert names(tmp_path / "5" / "test") == names(tmp_path / "all" / "test")
    assert len(names(tmp_path / "5" / "test")) == len(division.test)


def test_it_goes_on_where_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, model = make_folder(tmp_path / "photos", {"a": 40, "b": 40}), save_resnet(tmp_path / "m").path
    results = tmp_path / "results.jsonl"
    command = ["transfer", str(photos), "--models", f"{model}", "--strategies", "frozen,full", "--per-class", "10"]
    monkeypatch.setattr(sys, "argv", [*command, "--seeds", "0", "--max-steps", "2", "--out", str(results)])
    transfer.main()
    table = capsys.readouterr().out
    whole = results.read_text(encoding="utf-8")
    assert [json.loads(line)["strategy"] for line in whole.splitlines()] == ["frozen", "full"]
    results.write_text(whole[:-20], encoding="utf-8")  # killed while it wrote the second line
    transfer.main()
    again = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    assert [line["strategy"] for line in again] == ["frozen", "full"]
    assert again[0] == json.loads(whole.splitlines()[0])
    assert again[1]["accuracy"] == json.loads(whole.splitlines()[1])["accuracy"]
    assert table.count("| `frozen` |") == 1 and "photos" in table


def test_the_regret_of_auto_is_its_distance_to_the_best_other(capsys: pytest.CaptureFixture[str]) -> None:
    def result(strategy: str, per_class: str, accuracy: float, taken: str) -> dict[str, object]:
        cell = {"data": "photos", "model": "m", "strategy": strategy, "per_class": per_class}
        return {**cell, "accuracy": accuracy, "taken": taken}

    few = [
        result("frozen", "10", 0.5, "frozen"),
        result("full", "10", 0.6, "full"),
        result("auto", "10", 0.5, "frozen"),
    ]
    many = [result("frozen", "50", 0.8, "frozen"), result("scratch", "50", 0.99, "scratch")]
    seeds = [result("auto", "50", accuracy, taken) for accuracy, taken in ((0.84, "full"), (0.80, "frozen"))]
    transfer.print_regret([*few, *many, *seeds])
    told = capsys.readouterr().out
    assert "10 per class: auto took frozen, +10.0 points behind full" in told
    assert "50 per class: auto took frozen, full, -2.0 points behind frozen" in told
    assert "mean regret of auto: 4.00 points over 2 cells" in told
    transfer.print_regret(many)
    assert capsys.readouterr().out == ""


def test_random_weights_are_a_backbone_too(tmp_path: Path) -> None:
    model = transfer.find_model(f"{transfer.RANDOM}tiny-resnet", 0, tmp_path / "random")
    assert (Path(model) / "model.safetensors").is_file()
    assert transfer.find_model("tiny-resnet", 0, tmp_path) == "tiny-resnet"


def test_the_frozen_benchmark_says_how_far_each_goal_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(frozen, "PICTURE", (64, 48))
    monkeypatch.setattr(sys, "argv", ["frozen", "--images", "60", "--models", "tiny", "--epochs", "0"])
    monkeypatch.setenv("TL_HOME", str(tmp_path))  # put back afterwards, for the benchmark has homes of its own
    frozen.main()
    said = capsys.readouterr().out
    for wanted in ("torch", "imports", "floor", "ratio", "second run", "ten more pictures", "by stage: before the run"):
        assert wanted in said
    assert said.count("goal") == 3


def test_the_memory_benchmark_compares_peaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["memory", "--images", "40", "--size", "32"])
    memory.main()
    assert "40 images" in (said := capsys.readouterr().out)
    assert "most against least 1.00, goal ≤ 1.2 (reached)" in said


def test_the_finetuning_benchmark_compares_paces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(frozen, "PICTURE", (64, 48))
    monkeypatch.setattr(sys, "argv", ["finetune", "--images", "60", "--steps", "12", "--models", "tiny"])
    monkeypatch.setenv("TL_HOME", str(tmp_path))
    finetune.main()
    said = capsys.readouterr().out
    assert "50 images, 12 steps" in said and said.count("goal") == 2
    for pace in ("bare loop", "decoded before", "from files", "Trainer with its defaults"):
        assert pace in said


def test_the_pace_of_a_run_leaves_out_its_looks(tmp_path: Path) -> None:
    events = [
        {"time": 0.0, "kind": "stage", "name": "training"},
        {"time": 10.0, "kind": "training", "step": 2},  # the first pass, which decodes
        {"time": 12.0, "kind": "training", "step": 4},
        {"time": 90.0, "kind": "validation", "step": 4},
        {"time": 92.0, "kind": "training", "step": 6},
        {"time": 94.0, "kind": "training", "step": 8},
    ]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    splits = {"data": {"splits": {"train": 20}}, "training": {"batch_size": 10}, "run_dir": str(tmp_path)}
    assert finetune.pace_of_run(splits) == (10.0, 60 / 14)


def test_the_benchmark_of_estimates_holds_them_against_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, model = make_folder(tmp_path / "photos", {"a": 20, "b": 20}), save_resnet(tmp_path / "m").path
    monkeypatch.setattr(sys, "argv", ["estimates", str(photos), "--models", str(model), "--strategies", "frozen"])
    monkeypatch.setenv("TL_HOME", str(tmp_path))
    estimates.main()
    said = capsys.readouterr().out
    assert "| `frozen` |" in said and "of 1 within 25%, goal 80% of them" in said


def test_the_head_benchmark_compares_with_scikit_learn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(head, "COMPARED", 250)
    monkeypatch.setattr(head, "GOALS", {(300, 20, 4): 1000.0, (200, 16, 2): 1e-9})
    monkeypatch.setattr(sys, "argv", ["head", "--sizes", "300x20x4,200x16x2"])
    head.main()
    larger, smaller = capsys.readouterr().out.split("\n\n")[1:]
    assert "300 images, 20 features, 4 classes" in larger and "goal ≤ 1000 s (reached)" in larger
    assert "scikit-learn" not in larger
    assert "goal ≤ 1e-09 s (missed by" in smaller
    assert float(smaller.split("difference of a probability")[1]) < 1e-3


def test_classes_of_the_generated_features_overlap() -> None:
    features, targets = head.make_features(600, 32, 5)
    assert features.shape == (600, 32) and features.dtype == "float32"
    fitted = head.fit_exact(features[200:], targets[200:], 5, validation=(features[:200], targets[:200]))
    assert 0.4 < max(score.accuracy for score in fitted.scores) < 1


def test_imports_are_added_up_by_package(capsys: pytest.CaptureFixture[str]) -> None:
    written = """import time: self [us] | cumulative | imported package
import time:    200000 |     200000 |   os.path
a warning of somebody's
import time:    100000 |     300000 |     torch.nn
import time:   1000000 |    1300000 |   torch
import time:     50000 |    1350000 | tl_core.cli
import time:  -1300000 |       1000 | tl_core.cli
"""
    assert startup.sum_imports(written) == {"standard library": 0.2, "torch": 1.1, "tl_core": 0.05}
    startup.print_where("page", 2.0, written)
    assert capsys.readouterr().out == (
        "  page, 2.00 s: torch 1.10, standard library 0.20, tl_core 0.05, other packages 0.00, other work 0.65\n"
    )


def test_the_startup_benchmark_says_how_far_its_goal_is(capsys: pytest.CaptureFixture[str]) -> None:
    own = {"python": 0.1, "--help": 0.2, "predict": 5.0, "page": 3.0, "answer": 8.0, "answer after page": 5.0}
    rounds = [{**own, "empty page": seconds} for seconds in (1.0, 2.0, 9.0)]
    assert startup.print_medians(rounds, 1.3) == 1.5
    said = capsys.readouterr().out
    assert "ratio 1.50 (rounds: 0.33 to 3.00), goal ≤ 1.3 (missed by 15%)" in said
    assert "8.00; 5.00 after the page" in said and "6.00 after the page of an empty Gradio app" in said


@pytest.mark.slow
def test_the_first_prediction_through_the_page_comes_after_the_page(tmp_path: Path) -> None:
    frozen.make_picture(0, 0, (64, 48)).save(tmp_path / "picture.png")
    seconds = startup.measure_app(tmp_path / "picture.png")
    assert 0 < seconds["page"] < seconds["answer"]


def test_a_command_that_fails_ends_the_benchmark_with_what_it_said() -> None:
    with pytest.raises(SystemExit, match="no-such-model"):
        startup.run_command(["-m", "tl_core", "predict", "no-such-model", "picture.png"])
