"""A saved model beside transformers' own pipeline, and beside what was computed from features."""

from pathlib import Path

import pytest
from models import save_resnet
from pictures import make_folder
from transformers import ViTImageProcessor

from tl_core.images.collection import Picture
from tl_core.ml.evaluation import LEAST_FEATURES_IMAGES, check_parity, parity_images
from tl_core.ml.inference import Predictor, load_predictor
from tl_core.settings import Settings
from tl_core.sources import open_data

MAX_PIXELS = 1_000_000


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    """Of pictures so large that the pipeline is asked about a few only."""
    source = save_resnet(tmp_path / "model", classes=2)
    ViTImageProcessor(size={"height": 224, "width": 224}).save_pretrained(source.path)
    return load_predictor(source)


@pytest.fixture
def pictures(tmp_path: Path, settings: Settings) -> list[Picture]:
    half = LEAST_FEATURES_IMAGES // 2
    folder = make_folder(tmp_path / "photos", {"a": half, "b": half})
    return list(open_data(str(folder), settings).pictures)


def test_features_are_compared_on_more_pictures_than_the_pipeline_is_asked_about(
    tmp_path: Path, predictor: Predictor, pictures: list[Picture]
) -> None:
    exact = predictor.read([picture.path for picture in pictures], MAX_PIXELS)
    few = parity_images(predictor.processor)
    assert few < len(pictures)
    given = exact.copy()
    given[1] += 0.25  # between the first two of the few
    parity = check_parity(tmp_path / "model", predictor, pictures, given, MAX_PIXELS)
    assert parity["passed"] and parity["images"] == few
    assert parity["features_images"] == len(pictures)
    assert parity["features_max_abs_diff"] == pytest.approx(0.25, abs=1e-5)


def test_without_features_only_the_few_are_asked_about(
    tmp_path: Path, predictor: Predictor, pictures: list[Picture]
) -> None:
    parity = check_parity(tmp_path / "model", predictor, pictures, None, MAX_PIXELS)
    assert parity["passed"] and parity["images"] == parity_images(predictor.processor)
    assert (parity["features_images"], parity["features_max_abs_diff"]) == (0, 0.0)


def test_of_fewer_pictures_all_are_compared(tmp_path: Path, predictor: Predictor, pictures: list[Picture]) -> None:
    few = pictures[:3]
    given = predictor.read([picture.path for picture in few], MAX_PIXELS)
    parity = check_parity(tmp_path / "model", predictor, few, given, MAX_PIXELS)
    assert (parity["images"], parity["features_images"]) == (3, 3)
