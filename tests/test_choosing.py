"""`--strategy auto`: what it decides from what it sees, that it says why, and that a run stays with it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import make_folder
from PIL import Image

import tl_core
from tl_core.config import TrainConfig
from tl_core.errors import ConfigError, JobError
from tl_core.files import read_json, write_json
from tl_core.ml.choosing import LEAST_SHARE, USUAL_MINUTES, Choice, decide
from tl_core.ml.inputs import make_inputs, settle_inputs
from tl_core.ml.metrics import wilson_interval
from tl_core.runs import Run, find_run
from tl_core.settings import read_settings
from tl_core.sources import open_configured


def seen(right: int, judged: int = 100) -> tuple[float, tuple[float, float]]:
    return right / judged, wilson_interval(right, judged)


def takes(**seconds: float) -> Callable[[str], float]:
    """Seconds by strategy, "-" written as "_"; what is not named must not be asked about."""
    return lambda strategy: seconds[strategy.replace("-", "_")]


@pytest.mark.parametrize(
    ("right", "per_class", "minutes", "taught", "seconds", "strategy", "words"),
    [
        (96, 100, None, False, takes(), "frozen", "not expected to gain much"),
        (92, 100, None, False, takes(lp_ft=60), "lp-ft", "mends what the features do not tell apart"),
        (92, 10, None, False, takes(), "frozen", "10 training images per class"),
        (70, 10, None, False, takes(lp_ft=60), "lp-ft", "70.0% right"),
        (27, 100, None, False, takes(full=60), "full", "no beginning"),
        (70, 100, None, False, takes(lp_ft=9_000, last_blocks=600), "last-blocks", "longer than 20 minutes"),
        (70, 100, None, False, takes(lp_ft=9_000, last_blocks=8_000), "frozen", "more --minutes"),
        (70, 100, 1.0, False, takes(lp_ft=239), "lp-ft", "mends"),
        (70, 100, 1.0, False, takes(lp_ft=241, last_blocks=239), "last-blocks", "longer than 1 minute here"),
        (70, 100, 1.0, False, takes(lp_ft=900, last_blocks=900), "frozen", "more --minutes"),
        (99, 100, None, True, takes(lp_ft=60), "lp-ft", "mends"),
        (99, 100, None, True, takes(lp_ft=9_000, last_blocks=9_000), "lp-ft", "from the teacher"),
    ],
)
def test_what_is_seen_decides(
    right: int,
    per_class: float,
    minutes: float | None,
    taught: bool,
    seconds: Callable[[str], float],
    strategy: str,
    words: str,
) -> None:
    chosen, reason = decide(seen(right), 0.25, per_class, minutes, taught, seconds)
    assert chosen == strategy
    assert words in reason and reason.count(". ") == 1 and reason.endswith(".")


def test_the_limits_of_the_cases_above_are_those_in_use() -> None:
    assert (LEAST_SHARE, USUAL_MINUTES) == (0.25, 20.0)


def test_what_frozen_features_tell_apart_is_not_trained_further(tmp_path: Path) -> None:
    data = make_folder(tmp_path / "colours", {"red": 30, "cyan": 30})
    report = tl_core.train(data=str(data), strategy="auto", learning_rate=0.01, minutes=5)
    assert report["strategy"] == "frozen" and report["metrics"]["method"] == "k-fold"
    assert report["choice"]["accuracy"] >= 0.95
    assert report["choice"]["reason"] in log_of(report)
    assert any("too few images to keep some from the choice" in warning for warning in report["warnings"])
    card = (Path(report["model_dir"]) / "README.md").read_text(encoding="utf-8")
    assert "every choice but that of the strategy" in card
    assert "not used, since frozen has no use for it: learning_rate\n" in log_of(report)
    assert "--strategy frozen" not in report["command"]  # the default
    assert "auto" not in report["command"] and "--learning-rate" not in report["command"]


def test_what_they_do_not_is_trained_and_the_run_stays_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = noise(tmp_path / "noise")
    report = tl_core.train(data=str(data), strategy="auto", max_steps=2, mirror="no")
    assert report["strategy"] == "full" and report["metrics"]["method"] == "held-out"
    assert report["training"]["steps_done"] == 2
    run = find_run(report["run_id"], read_settings())
    assert Choice(**read_json(run.choice_path) or {}).strategy == "full"
    assert run.config().strategy == "auto" and run.view().strategy == "full"
    run.report_path.unlink()
    write_json(run.dir / "status.json", {"state": "failed"})
    monkeypatch.setattr("tl_core.ml.choosing.choose_strategy", lambda *_: pytest.fail("chose again"))
    assert tl_core.resume(run.id)["strategy"] == "full"


def test_an_estimate_of_what_is_not_chosen_yet_is_a_range(tmp_path: Path) -> None:
    data = make_folder(tmp_path / "colours", {"red": 10, "cyan": 10})
    foreseen = tl_core.preview({"data": str(data), "strategy": "auto", "max_steps": 50})
    frozen = tl_core.preview({"data": str(data)})
    trained = tl_core.preview({"data": str(data), "strategy": "lp-ft", "max_steps": 50})
    assert foreseen["seconds_low"] <= frozen["seconds"] <= foreseen["seconds"]
    assert foreseen["seconds"] == pytest.approx(trained["seconds"] + frozen["seconds"], rel=0.6)
    assert foreseen["groups"] == [] and not foreseen["images"]["folds"] and frozen["images"]["folds"]
    assert [figure["label"] for figure in foreseen["figures"]] == ["Strategy"]
    assert not (read_settings().home / "runs").exists()


def test_options_that_only_one_strategy_has_are_refused(tmp_path: Path) -> None:
    data = make_folder(tmp_path / "colours", {"red": 4, "cyan": 4})
    with pytest.raises(ConfigError, match="--unfreeze-blocks belongs to --strategy last-blocks"):
        tl_core.train(data=str(data), strategy="auto", unfreeze_blocks=1)


def test_a_teacher_that_nothing_was_learnt_from_is_not_said_to_be_one(tmp_path: Path) -> None:
    data = make_folder(tmp_path / "colours", {"red": 20, "cyan": 20})
    teacher = tl_core.train(data=str(data))["run_id"]
    asked = {"data": str(data), "strategy": "auto", "teacher": teacher, "max_steps": 2, "mirror": "no"}
    taught = tl_core.train(asked)
    assert taught["strategy"] == "lp-ft" and taught["teacher"]["id"] == teacher
    settings = read_settings()
    config = TrainConfig.parse(asked)
    inputs = make_inputs(config, *open_configured(config, settings))
    frozen, unused = config.settled("frozen")
    assert {"teacher", "max_steps"} <= set(unused)
    assert inputs.teacher is not None and settle_inputs(inputs, frozen).teacher is None


def test_a_choice_of_another_version_is_refused(tmp_path: Path) -> None:
    data = make_folder(tmp_path / "colours", {"red": 20, "cyan": 20})
    run = find_run(tl_core.train(data=str(data), strategy="auto")["run_id"], read_settings())
    run.report_path.unlink()
    write_json(run.dir / "status.json", {"state": "failed"})
    write_json(run.choice_path, {"strategy": "frozen", "because": "so"})
    with pytest.raises(JobError, match="another version; begin a new run"):
        tl_core.resume(run.id)


def log_of(report: dict[str, Any]) -> str:
    return Run(Path(report["run_dir"])).log_path.read_text(encoding="utf-8")


def noise(root: Path) -> Path:
    """Pictures of two classes that nothing tells apart."""
    random = np.random.default_rng(0)
    for label in ("heads", "tails"):
        (root / label).mkdir(parents=True)
        for number in range(40):
            pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((32, 32)).save(root / label / f"{number}.png")
    return root
