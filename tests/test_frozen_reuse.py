"""What a frozen run need not do again: features, and the number format, of an earlier run are taken from the home."""

import json
from pathlib import Path

import numpy as np
import pytest
from models import save_resnet
from pictures import make_folder, picture

from tl_core import api
from tl_core.config import TrainConfig
from tl_core.ml import backbone_pass, evaluation, frozen, precision
from tl_core.ml.backbone import Backbone, load_backbone
from tl_core.ml.precision import Precision
from tl_core.settings import Settings


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures went through the backbone, batch by batch."""
    batches: list[int] = []
    encode = backbone_pass.encode_batch

    def count(model, head, pixels, precision):
        batches.append(len(pixels))
        return encode(model, head, pixels, precision)

    monkeypatch.setattr(backbone_pass, "encode_batch", count)
    return batches


def test_only_new_pictures_pass_through_the_backbone(tmp_path: Path, encoded: list[int]) -> None:
    photos = make_folder(tmp_path / "photos", {"a": 40, "b": 40})
    model = str(save_resnet(tmp_path / "model", classes=2).path)
    api.train(data=str(photos), model=model)
    assert sum(encoded) == 80
    encoded.clear()
    api.train(data=str(photos), model=model)
    api.train(data=str(photos), model=model, seed=7)  # another split
    api.train(data=str(photos), model=model, class_weights="balanced", head_solver="trainer", max_steps=5)
    (photos / "b").rename(photos / "another name")
    api.train(data=str(photos), model=model)
    third = photos / "c"  # another class, of pictures that were known
    third.mkdir()
    for file in sorted((photos / "a").iterdir())[:20]:
        file.rename(third / file.name)
    api.train(data=str(photos), model=model)
    assert encoded == []
    for number in range(10):
        picture(0.9, 9_000 + number).save(photos / "a" / f"new {number}.png")
    api.train(data=str(photos), model=model)
    assert sum(encoded) == 10


def test_other_weights_and_another_size_are_computed_anew(tmp_path: Path, encoded: list[int]) -> None:
    photos = str(make_folder(tmp_path / "photos", {"a": 20, "b": 20}))
    api.train(data=photos, model=str(save_resnet(tmp_path / "one", classes=2).path))
    api.train(data=photos, model=str(save_resnet(tmp_path / "two", classes=2, seed=1).path))
    api.train(data=photos, model=str(tmp_path / "two"), image_size=48)
    assert sum(encoded) == 3 * 40


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    return load_backbone(save_resnet(tmp_path / "one"), list("abc"))


AUTO = TrainConfig.parse({"data": "x"})
FASTEST = Precision("bf16", True, "measured: twice as fast")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One word for each time that formats are compared; that finds `FASTEST`. Every job is long."""
    times: list[str] = []

    def choose(timed: object, what: str) -> Precision:
        times.append(what)
        return FASTEST

    monkeypatch.setattr(precision, "supports_bfloat16", lambda device: True)
    monkeypatch.setattr(precision, "LONG_FORWARD_SECONDS", 0.0)
    monkeypatch.setattr(precision, "measure_formats", lambda formats, *_: dict.fromkeys(formats, 1.0))
    monkeypatch.setattr(precision, "choose_fastest", choose)
    return times


def test_a_measured_number_format_is_remembered_for_this_backbone(
    tmp_path: Path,
    settings: Settings,
    backbone: Backbone,
    measured: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = load_backbone(save_resnet(tmp_path / "two", seed=1), list("abc"))
    for _ in range(2):
        assert frozen.choose_precision(AUTO, backbone, 9, settings) == FASTEST
        assert len(measured) == 1
    asked = TrainConfig.parse({"data": "x", "precision": "fp32"})
    assert frozen.choose_precision(asked, backbone, 9, settings).dtype == "fp32"
    (remembered,) = settings.cache_dir.glob("precision-*.json")
    with monkeypatch.context() as patched:  # nor is it asked again how long the job takes
        patched.setattr(precision, "forward_step", None)
        assert frozen.choose_precision(AUTO, backbone, 9, settings) == FASTEST
    frozen.choose_precision(AUTO, other, 9, settings)
    assert len(measured) == 2
    whole = json.loads(remembered.read_text(encoding="utf-8"))
    fastest = dict(whole["fastest"])
    del fastest["dtype"]
    damages = ({"fastest": fastest}, {"seconds": "soon"}, {"circumstances": "elsewhere"})
    for times, text in enumerate(["{damaged", *(json.dumps(whole | damage) for damage in damages)], start=3):
        remembered.write_text(text, encoding="utf-8")
        assert frozen.choose_precision(AUTO, backbone, 9, settings) == FASTEST
        assert len(measured) == times


def test_where_nothing_else_could_be_tried_a_longer_job_tries_again(
    settings: Settings, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "supports_bfloat16", lambda device: True)
    monkeypatch.setattr(precision, "LONG_FORWARD_SECONDS", 0.0)
    monkeypatch.setattr(precision, "MEASURING_SHARE", 0.0)
    chosen = frozen.choose_precision(AUTO, backbone, 9, settings)
    assert "too slow here to try anything else" in chosen.reason
    monkeypatch.setattr(precision, "MEASURING_SHARE", 1e9)
    assert "measured" in frozen.choose_precision(AUTO, backbone, 9, settings).reason


def test_what_another_run_has_found_meanwhile_is_kept(
    settings: Settings, backbone: Backbone, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert frozen.choose_precision(AUTO, backbone, 9, settings) == FASTEST
    (remembered,) = settings.cache_dir.glob("precision-*.json")
    found = remembered.read_bytes()
    remembered.unlink()
    try_few = precision._time_few

    def slowly(step: precision.Step) -> tuple[precision.Step, float]:
        remembered.write_bytes(found)
        return try_few(step)

    monkeypatch.setattr(precision, "_time_few", slowly)
    monkeypatch.setattr(precision, "LONG_FORWARD_SECONDS", 1e9)
    assert "too little to gain" in frozen.choose_precision(AUTO, backbone, 9, settings).reason
    monkeypatch.setattr(precision, "LONG_FORWARD_SECONDS", 0.0)
    assert frozen.choose_precision(AUTO, backbone, 9, settings) == FASTEST
    assert len(measured) == 1


def test_a_short_job_does_not_depend_on_a_long_one_before_it(
    settings: Settings, backbone: Backbone, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert frozen.choose_precision(AUTO, backbone, 9, settings) == FASTEST
    monkeypatch.setattr(precision, "LONG_FORWARD_SECONDS", 1e9)
    for _ in range(2):
        assert frozen.choose_precision(AUTO, backbone, 9, settings).dtype == "fp32"
    monkeypatch.setattr(precision, "LONG_FORWARD_SECONDS", 0.0)
    assert frozen.choose_precision(AUTO, backbone, 9, settings) == FASTEST
    assert len(list(settings.cache_dir.glob("precision-*.json"))) == 1 and len(measured) == 1


def test_a_run_stays_with_the_number_format_that_it_began_with(
    tmp_path: Path, settings: Settings, backbone: Backbone, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    short, long = tmp_path / "short", tmp_path / "long"
    short.mkdir(), long.mkdir()
    assert frozen.choose_precision(AUTO, backbone, 9, settings, long) == FASTEST
    monkeypatch.setattr(precision, "LONG_FORWARD_SECONDS", 1e9)
    assert frozen.choose_precision(AUTO, backbone, 9, settings, short).dtype == "fp32"
    assert frozen.choose_precision(AUTO, backbone, 9, settings, long) == FASTEST
    monkeypatch.setattr(precision, "LONG_FORWARD_SECONDS", 0.0)
    assert frozen.choose_precision(AUTO, backbone, 9, settings, short).dtype == "fp32"


def test_a_frozen_run_keeps_its_number_format_in_its_folder(tmp_path: Path) -> None:
    photos = make_folder(tmp_path / "photos", {"a": 20, "b": 20})
    report = api.train(data=str(photos), model=str(save_resnet(tmp_path / "model", classes=2).path))
    kept = Path(report["run_dir"]) / "precision.json"
    assert json.loads(kept.read_text())["dtype"] == report["precision"]


def test_close_calls_are_judged_in_full_and_what_that_took_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoded: list[int]
) -> None:
    """Features that are a little off change no figure that the saved model would not change too."""
    photos = make_folder(tmp_path / "photos", {"a": 110, "b": 110})
    model = str(save_resnet(tmp_path / "model", classes=2).path)
    monkeypatch.setattr(evaluation, "parity_images", lambda _: 8)
    monkeypatch.setattr(evaluation, "LEAST_FEATURES_IMAGES", 12)
    compute = frozen.backbone_features
    monkeypatch.setattr(frozen, "backbone_features", lambda *given: 1.01 * compute(*given))
    report = api.train(data=str(photos), model=model)
    saved = api.evaluate(report["run_id"], str(photos))["metrics"]
    assert report["parity"]["features_max_abs_diff"] < 0.1
    assert report["parity"]["features_images"] == 12
    assert np.isclose(report["metrics"]["accuracy"], saved["accuracy"])
    assert 220 < sum(encoded) < 220 + report["metrics"]["images"]
    encoded.clear()
    again = api.train(data=str(photos), model=model, class_weights="balanced")
    assert encoded == []
    assert again["parity"]["features_images"] == report["parity"]["features_images"]
