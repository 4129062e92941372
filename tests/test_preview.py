"""What is said of a training before it starts is what the training then does."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hub_server import Repo, serve
from models import save_levit, save_resnet, save_vit
from pictures import make_folder

import tl_core
from tl_core import api
from tl_core.errors import ConfigError, DataError, HubError, ModelError
from tl_core.ml import speed
from tl_core.ml.preview import _seconds_of_fit

CLASSES = {"red": 30, "green": 30, "blue": 30}


@pytest.fixture
def photos(tmp_path: Path) -> str:
    return str(make_folder(tmp_path / "photos", CLASSES))


@pytest.fixture
def resnet(tmp_path: Path) -> str:
    return str(save_resnet(tmp_path / "resnet").path)


def figures(foreseen: dict[str, Any]) -> dict[str, Any]:
    return {figure["option"]: figure["value"] for figure in foreseen["figures"] if figure["option"]}


@pytest.mark.parametrize("options", [{"strategy": "full"}, {"strategy": "last-blocks", "unfreeze_blocks": 1}])
def test_a_training_does_what_was_foreseen(photos: str, resnet: str, options: dict[str, Any]) -> None:
    asked = {"data": photos, "model": resnet, "max_steps": 4, "mirror": "no", **options}
    foreseen = api.preview(asked)
    report = tl_core.train(asked)
    assert foreseen["groups"] == report["backbone"]["groups"]
    assert foreseen["parameters"] == report["backbone"]["parameters"]
    assert foreseen["image_size"] == report["backbone"]["image_size"]
    assert foreseen["images"] == {
        part: report["data"]["splits"][part] for part in ("train", "validation", "test", "folds")
    }
    derived = figures(foreseen)
    done = report["training"]
    for name in ("batch_size", "learning_rate", "layer_decay", "weight_decay", "warmup_steps", "label_smoothing"):
        assert derived[name] == done[name]
    assert derived["augment"] == done["augmentation"]["policy"]
    assert "max_steps" not in derived


def test_the_figures_can_be_given_back_as_options(photos: str, resnet: str) -> None:
    asked = {"data": photos, "model": resnet, "strategy": "full"}
    foreseen = api.preview(asked)
    given = figures(foreseen)
    assert {"max_steps", "batch_size", "learning_rate", "patience", "augment", "precision"} <= set(given)
    again = figures(api.preview({**asked, **given}))
    assert again.get("precision") == given["precision"]
    assert not set(again) - {"precision", "augment", "patience"}


def test_what_is_foreseen_is_plain_and_adds_up(photos: str, resnet: str) -> None:
    foreseen = api.preview({"data": photos, "model": resnet, "strategy": "last-blocks"})
    assert json.loads(json.dumps(foreseen)) == foreseen
    assert sum(group["parameters"] for group in foreseen["groups"]) == foreseen["parameters"]
    trained = [group for group in foreseen["groups"] if group["trained"]]
    assert sum(group["parameters"] for group in trained) == foreseen["trained_parameters"] < foreseen["parameters"]
    assert 0 < foreseen["seconds_low"] < foreseen["seconds"] < foreseen["seconds_high"]
    assert all(figure["label"] and figure["spoken"] and figure["reason"] for figure in foreseen["figures"])


def test_a_frozen_backbone_trains_its_head_alone(photos: str, resnet: str) -> None:
    foreseen = api.preview({"data": photos, "model": resnet, "strategy": "frozen"})
    assert [group["name"] for group in foreseen["groups"] if group["trained"]] == ["head"]
    spoken = {figure["label"]: figure["spoken"] for figure in foreseen["figures"]}
    assert spoken["Judged on"] == "all 90 images, in 5 folds"
    assert "L2 strength" in spoken


def test_a_head_taught_by_steps_says_its_own_figures(photos: str, resnet: str) -> None:
    asked = {"data": photos, "model": resnet, "head_solver": "trainer"}
    assert set(figures(api.preview(asked))) == {
        "max_steps",
        "batch_size",
        "learning_rate",
        "weight_decay",
        "precision",
    }
    assert "max_steps" not in figures(api.preview({**asked, "epochs": 3, "learning_rate": 0.01}))


def test_features_that_are_stored_are_not_computed_again(photos: str, resnet: str) -> None:
    asked = {"data": photos, "model": resnet}
    assert "90 of them" in api.preview(asked)["seconds_reason"]
    tl_core.train(asked)
    assert "0 of them; the features of 90 pictures are known" in api.preview(asked)["seconds_reason"]


def test_thoroughness_is_what_makes_a_training_longer(photos: str, resnet: str) -> None:
    def seconds(thoroughness: str) -> float:
        asked = {"data": photos, "model": resnet, "strategy": "full", "thoroughness": thoroughness}
        return api.preview(asked)["seconds"]

    assert seconds("quick") < seconds("thorough")


def test_minutes_and_a_control_count(photos: str, resnet: str) -> None:
    asked = {"data": photos, "model": resnet, "strategy": "full", "max_steps": 1_000_000}
    limited = {**asked, "minutes": 1}
    assert api.preview(limited)["seconds"] < 120 < api.preview(asked)["seconds"]
    assert api.preview({**limited, "control": True})["seconds"] > api.preview(limited)["seconds"] + 50


def test_no_run_and_no_features_are_made(photos: str, resnet: str, home: Path) -> None:
    for strategy in ("frozen", "full"):
        api.preview({"data": photos, "model": resnet, "strategy": strategy})
    assert not (home / "runs").exists()
    assert not (home / "features").exists()


def test_a_backbone_is_measured_once(photos: str, resnet: str, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: dict[Any, Any] = {}
    monkeypatch.setattr(speed, "_speeds", measured)
    asked = {"data": photos, "model": resnet, "strategy": "full"}
    api.preview(asked)
    (first,) = measured.values()
    api.preview({**asked, "thoroughness": "thorough", "weight_decay": 0.1})
    assert list(measured.values()) == [first]
    api.preview({**asked, "batch_size": 20})
    assert len(measured) == 2


def test_what_a_step_costs_apart_from_its_pictures_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only the steps move: of few pictures each would look dear."""
    clock = [0.0]
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def step(images: int) -> None:
        clock[0] += 0.02 + 0.001 * images

    assert 32 * speed._seconds_per_picture(step, 32) == pytest.approx(0.052)


@pytest.mark.parametrize(
    ("images", "features", "classes", "measured"),
    [(1_259, 256, 10, 0.42), (10_000, 512, 20, 5.2), (10_000, 768, 100, 18.1), (50_000, 768, 100, 59.1)],
)
def test_exact_heads_of_all_sizes_are_foreseen(images: int, features: int, classes: int, measured: float) -> None:
    backbone = SimpleNamespace(head=SimpleNamespace(in_features=features), labels=range(classes))
    inputs: Any = SimpleNamespace(backbone=backbone)
    assert _seconds_of_fit(inputs, images, 1) == pytest.approx(measured, rel=0.25)


def test_a_model_of_several_classifiers_can_only_be_trained_anew(photos: str, tmp_path: Path) -> None:
    levit = str(save_levit(tmp_path / "levit").path)
    foreseen = api.preview({"data": photos, "model": levit, "strategy": "scratch"})
    assert foreseen["groups"] == []
    assert foreseen["trained_parameters"] == foreseen["parameters"]
    with pytest.raises(ModelError, match="no single linear classifier"):
        api.preview({"data": photos, "model": levit, "strategy": "full"})


def test_what_a_training_refuses_is_refused_now(photos: str, resnet: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--precision fp16"):
        api.preview({"data": photos, "model": resnet, "precision": "fp16"})
    with pytest.raises(DataError):
        api.preview({"data": str(tmp_path / "nothing"), "model": resnet})


def test_a_model_on_the_hub_is_not_fetched_for_an_estimate(
    photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_vit(tmp_path / "vit").path
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    asked = {"data": photos, "model": "some/vit", "strategy": "last-blocks", "max_steps": 2}
    with serve({"some/vit": Repo(files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with pytest.raises(HubError, match="some/vit is not on this machine yet: the estimate comes once"):
            api.preview(asked)
        assert hub.requests == []
        tl_core.train(asked)
        known = len(hub.requests)
        assert api.preview(asked)["seconds"] > 0
        assert len(hub.requests) == known


def test_a_start_is_foretold_by_how_long_loading_took_here() -> None:
    code = (
        "from tl_core.ml.libraries import load_libraries, loading_seconds; assert loading_seconds() is None; "
        "load_libraries(); first = loading_seconds(); load_libraries(); assert loading_seconds() == first > 0; "
        "from tl_core.ml.preview import STARTING_FOR_LOADING, STARTING_SECONDS, starting_seconds; "
        "assert starting_seconds() == min(STARTING_FOR_LOADING * first, 2 * STARTING_SECONDS)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
