"""A saved model that answers: what it says, and the sentences for models that cannot."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from models import edit_config, save_resnet, save_vit
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForImageClassification,
    CLIPImageProcessor,
    ViTImageProcessor,
    ViTModel,
    pipeline,
)

from tl_core import api
from tl_core.errors import DataError, ModelError
from tl_core.ml.inference import Predictor, PredictorCache, load_predictor, rank_labels, recall_predictor
from tl_core.ml.preprocessing import load_processor
from tl_core.settings import read_settings
from tl_core.sources import ModelSource, open_model

MAX_PIXELS = 1_000_000


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("save", [save_resnet, save_vit])
def test_answers_are_those_of_transformers_own_pipeline(tmp_path: Path, picture: Path, save) -> None:
    predictor = load_predictor(save(tmp_path / "model"))
    other = tmp_path / "other.png"
    Image.new("RGB", (20, 90), (9, 200, 30)).save(other)
    ours = predictor.read([picture, other], MAX_PIXELS)
    classify = pipeline("image-classification", model=str(tmp_path / "model"), device="cpu")
    for path, row in zip([picture, other], ours, strict=True):
        with Image.open(path) as image:
            theirs = {entry["label"]: entry["score"] for entry in classify(image, top_k=3)}
        assert [theirs[label] for label in predictor.labels] == pytest.approx(list(row), abs=1e-6)


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_a_model_for_another_problem_is_refused(tmp_path: Path, problem: str) -> None:
    source = save_vit(tmp_path)
    edit_config(source, problem_type=problem)
    with pytest.raises(ModelError, match=f"does not choose one of several classes .*{problem}"):
        load_predictor(source)


def test_a_model_of_one_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"does not choose one of several classes .*1 output"):
        load_predictor(save_vit(tmp_path, classes=1))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_answer_that_is_not_finite_is_a_sentence_with_the_file(tmp_path: Path, picture: Path, value: float) -> None:
    source = save_vit(tmp_path / "model")
    weights = load_file(source.path / "model.safetensors")
    weights["classifier.bias"][1] = value
    save_file(weights, source.path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"picture\.png is not finite"):
        load_predictor(source).read([picture], MAX_PIXELS)


def test_class_numbers_with_a_gap_are_a_sentence(tmp_path: Path) -> None:
    source = save_vit(tmp_path)
    edit_config(source, id2label={"0": "a", "1": "b", "3": "c"}, label2id={"a": 0, "b": 1, "c": 3})
    with pytest.raises(ModelError, match="names 3 classes, but none of them is number 2"):
        load_predictor(source)


def test_a_backbone_without_a_classifier_is_a_sentence(tmp_path: Path) -> None:
    source = save_vit(tmp_path)
    model = AutoModelForImageClassification.from_pretrained(tmp_path)
    backbone = ViTModel(model.config, add_pooling_layer=False)
    backbone.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="cannot predict yet"):
        load_predictor(source)


def test_more_answers_than_class_names_are_a_sentence(tmp_path: Path, picture: Path) -> None:
    model = AutoModelForImageClassification.from_pretrained(save_vit(tmp_path).path)
    processor = load_processor(ModelSource("vit", tmp_path, "folder"))
    with pytest.raises(ModelError, match=r"shape \(1, 3\), but has names for 2 classes"):
        Predictor(model, processor, ["a", "b"]).read([picture], MAX_PIXELS)


def test_a_processor_of_several_sizes_is_refused_before_any_picture(tmp_path: Path) -> None:
    source = save_resnet(tmp_path)
    CLIPImageProcessor(size={"shortest_edge": 32}, do_center_crop=False).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="several sizes"):
        load_predictor(source)


def test_a_processor_of_another_size_than_the_models_is_a_sentence(tmp_path: Path, picture: Path) -> None:
    source = save_vit(tmp_path / "model")
    ViTImageProcessor(size={"height": 48, "width": 48}).save_pretrained(source.path)
    with pytest.raises(ModelError, match="cannot take the pictures that its own processor makes, 48 × 48 pixels"):
        load_predictor(source).read([picture], MAX_PIXELS)


class Wordless(torch.nn.Module):
    def forward(self, pixel_values: torch.Tensor) -> None:
        raise AssertionError


def test_a_failure_without_words_is_still_a_sentence(tmp_path: Path, picture: Path) -> None:
    processor = load_processor(save_vit(tmp_path))
    with pytest.raises(ModelError, match="AssertionError"):
        Predictor(Wordless(), processor, ["a", "b"]).read([picture], MAX_PIXELS)


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.png"):
        load_predictor(save_vit(tmp_path / "model")).read([broken], MAX_PIXELS)


def test_no_pictures_are_no_rows(tmp_path: Path) -> None:
    assert load_predictor(save_vit(tmp_path)).read([], MAX_PIXELS).shape == (0, 3)


def test_ranks_begin_with_the_best() -> None:
    row = np.array([0.2, 0.5, 0.3], np.float32)
    assert [entry["label"] for entry in rank_labels(row, ["a", "b", "c"], 2)] == ["b", "c"]


def test_a_predictor_is_kept_until_its_weights_are_replaced(tmp_path: Path, picture: Path) -> None:
    source = save_vit(tmp_path / "model")
    first = recall_predictor(source)
    assert recall_predictor(source) is first
    save_vit(source.path, seed=1)
    replaced = recall_predictor(source)
    assert replaced is not first
    assert (replaced.read([picture], MAX_PIXELS) != first.read([picture], MAX_PIXELS)).any()


def test_other_class_names_are_another_predictor(tmp_path: Path) -> None:
    source = save_vit(tmp_path)
    recall_predictor(source)
    edit_config(source, id2label={"0": "a", "1": "b", "2": "c"}, label2id={"a": 0, "b": 1, "c": 2})
    os.utime(source.path / "config.json", ns=(1, 1))
    assert recall_predictor(source).labels == ["a", "b", "c"]


def test_the_predictors_asked_last_are_kept(tmp_path: Path) -> None:
    sources = [save_resnet(tmp_path / str(number), seed=number) for number in range(3)]
    cache = PredictorCache(kept=2)
    first, second = cache.get(sources[0]), cache.get(sources[1])
    assert cache.get(sources[0]) is first
    cache.get(sources[2])
    assert cache.get(sources[0]) is first
    assert cache.get(sources[1]) is not second


def test_threads_that_ask_at_once_get_one_predictor(tmp_path: Path, picture: Path) -> None:
    source, cache = save_vit(tmp_path / "model"), PredictorCache()
    with ThreadPoolExecutor(8) as pool:
        predictors = list(pool.map(lambda _: cache.get(source), range(8)))
        rows = list(pool.map(lambda one: one.read([picture], MAX_PIXELS), predictors))
    assert len(set(map(id, predictors))) == 1
    assert all((row == rows[0]).all() for row in rows)


def test_a_model_that_cannot_be_opened_is_not_kept(tmp_path: Path) -> None:
    source = save_vit(tmp_path, classes=1)
    cache = PredictorCache()
    for _ in range(2):
        with pytest.raises(ModelError, match="1 output"):
            cache.get(source)
    save_vit(tmp_path)
    assert len(cache.get(source).labels) == 3


def test_a_warm_model_has_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = []
    judge = Predictor.judge
    monkeypatch.setattr(Predictor, "judge", lambda self, pictures: answered.append(self) or judge(self, pictures))
    api.warm()
    assert answered == [recall_predictor(open_model("tiny-resnet", read_settings()))]


def test_asking_a_model_loads_nothing_that_only_training_needs(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    Image.new("RGB", (40, 40), "red").save(picture)
    code = (
        "import sys, tl_core; tl_core.predict('tiny-resnet', [sys.argv[1]]); "
        "sys.exit(bool({'datasets', 'pandas', 'evaluate', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(picture)]).returncode == 0
